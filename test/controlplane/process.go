package controlplane

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
)

// startTimeout is how long a process may take until it serves. They need 4 s on two idle cores; a
// machine that compiles at the same time needs several times as much.
const startTimeout = 90 * time.Second

// process is a running server.
type process struct {
	name   string
	log    string // path of the file with its output
	cancel context.CancelFunc
	done   chan struct{}
	err    error // how it ended; set before done is closed
}

// run starts a server whose output goes to the file log.
//
// On Linux, the server is killed when the thread that started it ends (prctl(2),
// PR_SET_PDEATHSIG), so that a test that panics or is killed leaves nothing behind. It is the
// thread that counts and not the whole process, so the server gets a thread of its own, which waits
// for it. setpriv asks for the signal and then becomes the server.
func run(log, path string, args ...string) (*process, error) {
	output, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	command := append([]string{path}, args...)
	if runtime.GOOS == "linux" {
		command = append([]string{"setpriv", "--pdeathsig", "KILL"}, command...)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Stdout, cmd.Stderr = output, output

	p := &process{name: filepath.Base(path), log: log, cancel: cancel, done: make(chan struct{})}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer close(p.done)
		defer output.Close()
		err := cmd.Start()
		started <- err
		if err == nil {
			p.err = cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		cancel()
		return nil, fmt.Errorf("run %s: %w", p.name, err)
	}
	return p, nil
}

// await asks ready again and again until it says yes, the process ends, or the time is over. The
// error shows the last lines of the log.
func (p *process) await(ctx context.Context, ready func(context.Context) bool) error {
	err := wait.PollUntilContextTimeout(ctx, 50*time.Millisecond, startTimeout, true,
		func(ctx context.Context) (bool, error) {
			if p.ended() {
				return false, p.end()
			}
			return ready(ctx), nil
		})
	if err != nil {
		return fmt.Errorf("wait for %s: %w; its log ends with:\n%s", p.name, err, tail(p.log))
	}
	return nil
}

// end says how the process ended; a server that ends has failed, even with exit code 0.
func (p *process) end() error {
	if p.err == nil {
		return errors.New("it had ended by itself")
	}
	return fmt.Errorf("it had ended by itself: %w", p.err)
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// stop kills the process in *p, waits for it, and sets *p to nil; nil is stopped already. It is an
// error when the process had ended by itself. Asked politely, an API server would first wait for its
// clients' watches to end, which would only make tests slow: no server has anything to save.
func stop(p **process) error {
	stopped := *p
	if stopped == nil {
		return nil
	}
	*p = nil
	crashed := stopped.ended()
	stopped.cancel()
	<-stopped.done
	if crashed {
		return fmt.Errorf("stop %s: %w; its log ends with:\n%s", stopped.name, stopped.end(), tail(stopped.log))
	}
	return nil
}

// tail returns the last lines of a text file, or why it cannot be read.
func tail(path string) string {
	const lines = 10
	text, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
