// Package child runs each VSS requester in a child process of the agent, which speaks with it over its standard input and output (package remote). A requester
// needs other COM security than WMI, which a process chooses once; and its shadow copies end with its process, so that an agent that dies leaves none: the
// child's input ends then, and with it the child.
package child

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/vss"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/vss/remote"
)

// endLimit is how long a child may take to end by itself, with its shadow copies, once its input has ended.
const endLimit = 30 * time.Second

// Command is the command of the agent that calls Run, the only argument of the children that Self starts.
const Command = "vss-requester"

// Self makes requesters in children of this very program.
func Self() (vss.Service, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	// A child lives as long as its requester, whatever becomes of the call that started it.
	return Service(func() *exec.Cmd { return exec.CommandContext(context.Background(), exe, Command) }), nil
}

// Service makes requesters in children that command starts: each a process that calls Run.
func Service(command func() *exec.Cmd) vss.Service {
	return remote.New(func(context.Context) (io.ReadWriteCloser, error) { return start(command()) })
}

// conn is a child and its pipes.
type conn struct {
	io.Reader
	io.WriteCloser
	ended chan error
	kill  func() error
}

func start(cmd *exec.Cmd) (*conn, error) {
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, errors.Join(err, in.Close())
	}
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(err, in.Close(), out.Close())
	}
	c := &conn{Reader: out, WriteCloser: in, ended: make(chan error, 1), kill: cmd.Process.Kill}
	go func() {
		state, err := cmd.Process.Wait() // not cmd.Wait, which takes the output away from who reads it
		if err == nil && !state.Success() {
			err = &exec.ExitError{ProcessState: state}
		}
		_ = out.Close() // whoever still reads learns that there is nobody any more
		c.ended <- err
	}()
	return c, nil
}

// Close ends the child and waits for its end. One that does not end by itself is killed.
func (c *conn) Close() error {
	err := c.WriteCloser.Close()
	select {
	case ended := <-c.ended:
		return errors.Join(err, ended)
	case <-time.After(endLimit):
		return errors.Join(err, c.kill(), <-c.ended)
	}
}

// serve is the child's side: it answers until the input ends. A call into Windows that does not return must not keep it alive then.
func serve(ctx context.Context, service vss.Service, in io.Reader, out io.Writer) error {
	return remote.Serve(ctx, service, struct {
		io.Reader
		io.Writer
	}{&lastInput{Reader: in}, out})
}

// lastInput ends the process some time after the input has ended.
type lastInput struct{ io.Reader }

func (l *lastInput) Read(p []byte) (int, error) {
	n, err := l.Reader.Read(p)
	if err != nil {
		time.AfterFunc(endLimit/2, func() { os.Exit(1) })
	}
	return n, err
}
