package shim

import (
	"context"
	"fmt"
	"net"
	"sync"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/emulator"
)

// control is the service by which tests that run under Wine make the host misbehave, and look at what it keeps for programs.
type control struct{ host *emulator.Host }

func newControl(host *emulator.Host) process { return control{host} }

// call implements process.
func (c control) call(_ context.Context, function string, args []any) (uint32, []any) {
	a := &arguments{left: args}
	switch function {
	case "FailNext":
		fault := emulator.Fault{Method: next[string](a), ReturnValue: next[uint32](a), Times: int(next[uint32](a))}
		if a.err == nil {
			c.host.Faults().FailNext(fault)
		}
	case "LimitChanges":
		n := next[uint32](a)
		if a.err == nil {
			c.host.Faults().LimitChanges(int(n))
		}
	case "DiskHandles":
		open := List{Of: Text}
		for _, path := range c.host.DiskHandles() {
			open.Items = append(open.Items, path)
		}
		return 0, []any{open}
	default:
		a.err = errMalformed
	}
	if a.err != nil {
		return 1, nil
	}
	return 0, nil
}

// exit implements process.
func (control) exit() {}

// Control makes an emulated host misbehave from a process that reaches it by the shims' address alone. It is safe for concurrent use.
type Control struct {
	mu   sync.Mutex
	conn net.Conn
}

// DialControl connects to the address that the shims of a host are served at.
func DialControl(ctx context.Context, address string) (*Control, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp4", address)
	if err != nil {
		return nil, err
	}
	return &Control{conn: conn}, WriteFrame(conn, "control", uint64(0), uint32(0), false)
}

// Close ends the connection.
func (c *Control) Close() error { return c.conn.Close() }

// FailNext does what emulator.Faults.FailNext does, for a call that fails with a return value.
func (c *Control) FailNext(method string, returnValue uint32, times int) error {
	_, err := c.call("FailNext", method, returnValue, uint32(times))
	return err
}

// LimitChanges does what emulator.Faults.LimitChanges does.
func (c *Control) LimitChanges(n int) error {
	_, err := c.call("LimitChanges", uint32(n))
	return err
}

// DiskHandles does what emulator.Host.DiskHandles does.
func (c *Control) DiskHandles() ([]string, error) {
	results, err := c.call("DiskHandles")
	if err != nil {
		return nil, err
	}
	a := &arguments{left: results}
	var paths []string
	for _, item := range next[List](a).Items {
		path, _ := item.(string)
		paths = append(paths, path)
	}
	return paths, a.err
}

func (c *Control) call(function string, args ...any) ([]any, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := WriteFrame(c.conn, append([]any{function}, args...)...); err != nil {
		return nil, err
	}
	answer, err := ReadFrame(c.conn)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", function, err)
	}
	a := &arguments{left: answer}
	if status := next[uint32](a); status != 0 || a.err != nil {
		return nil, fmt.Errorf("%s: refused", function)
	}
	return a.left, nil
}
