package site

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

// stopPatience is how long a process that was asked to stop may take before it is killed.
const stopPatience = 30 * time.Second

// Process is a program that is started, killed and started again, always with the same arguments. Its output is appended to a log file. It dies with
// the program that started it. Its methods may be called from several goroutines.
type Process struct {
	name string
	log  string
	args []string
	// environment is nil for this process's own. stop is the signal that asks the process to end.
	environment []string
	stop        os.Signal

	mu  sync.Mutex
	run *run // nil when not running
}

// run is one life of a process.
type run struct {
	cmd  *exec.Cmd
	done chan struct{}
	err  error // how it ended; set before done is closed
}

// NewProcess makes a process that is not started yet: a program's path and its arguments.
func NewProcess(name, log string, args ...string) *Process {
	return &Process{name: name, log: log, args: args, stop: syscall.SIGTERM}
}

// Name is what people call the process.
func (p *Process) Name() string { return p.name }

// Log is the file with the output of all its lives.
func (p *Process) Log() string { return p.log }

// Start starts the process. It does nothing while the process runs.
func (p *Process) Start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.run != nil && !p.run.ended() {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(p.log), 0o755); err != nil {
		return err
	}
	output, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	args := p.args
	if runtime.GOOS == "linux" {
		// The kernel kills the process when the thread that started it ends (prctl(2), PR_SET_PDEATHSIG), so that a test that panics leaves nothing
		// behind. setpriv asks for that and then becomes the program.
		args = append([]string{"setpriv", "--pdeathsig", "KILL"}, args...)
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = output, output
	cmd.Env = p.environment
	life := &run{cmd: cmd, done: make(chan struct{})}
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // the thread must not end before the process does
		defer close(life.done)
		defer output.Close()
		err := cmd.Start()
		started <- err
		if err == nil {
			life.err = cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	p.run = life
	return nil
}

// Kill ends the process at once, as kill -9 and a loss of power do, and waits until it is gone. It does nothing when the process does not run.
func (p *Process) Kill() error {
	_, err := p.end(syscall.SIGKILL, stopPatience)
	return err
}

// Stop asks the process to end, and kills it when it takes longer than half a minute. An error says that it had ended by itself before, or had to be
// killed. A second call does nothing.
func (p *Process) Stop() error {
	crashed, err := p.end(p.stop, stopPatience)
	if crashed {
		return fmt.Errorf("%s had ended by itself; its log ends with:\n%s", p.name, p.Tail(10))
	}
	if err == nil {
		return nil
	}
	_, killed := p.end(syscall.SIGKILL, stopPatience)
	return errors.Join(err, killed)
}

// end signals the process and waits for its end. crashed says that there was one that had ended before.
func (p *Process) end(signal os.Signal, patience time.Duration) (crashed bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.run == nil {
		return false, nil
	}
	if p.run.ended() {
		p.run = nil
		return true, nil
	}
	if err := p.run.cmd.Process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return false, fmt.Errorf("signal %s: %w", p.name, err)
	}
	if signal == os.Interrupt {
		// Wine makes a thread within its handler of the signal, which fails or waits for ever where the interrupted one was doing the same. A person tries again.
		process := p.run.cmd.Process
		again := time.AfterFunc(patience/2, func() { _ = process.Signal(signal) })
		defer again.Stop()
	}
	select {
	case <-p.run.done:
		p.run = nil
		return false, nil
	case <-time.After(patience):
		return false, fmt.Errorf("%s did not end within %s; its log ends with:\n%s", p.name, patience, p.Tail(10))
	}
}

// PID is the process's number, 0 when it does not run.
func (p *Process) PID() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.run == nil || p.run.ended() {
		return 0
	}
	return p.run.cmd.Process.Pid
}

// Running says whether the process runs.
func (p *Process) Running() bool { return p.PID() != 0 }

// await asks ready until it says yes, the process ends, or ctx does.
func (p *Process) await(ctx context.Context, ready func(context.Context) bool) error {
	for !ready(ctx) {
		if !p.Running() {
			return fmt.Errorf("%s ended while starting; its log ends with:\n%s", p.name, p.Tail(10))
		}
		if err := pause(ctx); err != nil {
			return fmt.Errorf("wait for %s: %w; its log ends with:\n%s", p.name, err, p.Tail(10))
		}
	}
	return nil
}

// Tail returns the last lines of the log, or why it cannot be read.
func (p *Process) Tail(lines int) string {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

func (r *run) ended() bool {
	select {
	case <-r.done:
		return true
	default:
		return false
	}
}

// pollInterval is how often something that has no event is looked at.
const pollInterval = 50 * time.Millisecond

func pause(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(pollInterval):
		return nil
	}
}
