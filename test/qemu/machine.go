package qemu

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os/exec"
	"strconv"
	"strings"
	"sync"
)

// Machine is a running QEMU machine.
type Machine struct {
	cmd     *exec.Cmd
	done    chan struct{}
	changed chan struct{} // has room for one: something was printed

	mu      sync.Mutex
	console []string
}

// Drive is what QEMU's -drive takes for the machine's disk.
type Drive string

// Served is the disk behind an NBD socket. dir is the socket's folder.
func Served(socket string) Drive { return Drive("file=nbd+unix:///?socket=" + socket + ",format=raw") }

// Scratch is a VHDX file whose changes are thrown away when the machine ends.
func Scratch(vhdx string) Drive { return Drive("file=" + vhdx + ",format=vhdx,snapshot=on") }

// Boot starts a machine with one disk, in software emulation: hardware that is there is not always usable. work is what init.sh does: write or read. Names in the drive are relative to dir. The machine is killed when
// ctx ends.
func (l *Linux) Boot(ctx context.Context, dir string, drive Drive, work string) (*Machine, error) {
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64",
		"-machine", "pc,accel=tcg", "-m", "192", "-display", "none", "-no-reboot", "-nodefaults",
		"-serial", "stdio", "-kernel", l.kernel, "-initrd", l.initrd,
		"-append", "console=ttyS0 quiet panic=-1 work="+work,
		"-drive", string(drive)+",if=virtio,cache=writeback",
	)
	cmd.Dir = dir
	output, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	m := &Machine{cmd: cmd, done: make(chan struct{}), changed: make(chan struct{}, 1)}
	go func() {
		defer close(m.done)
		m.listen(output)
		_ = cmd.Wait() // how it ended is on the console
	}()
	return m, nil
}

func (m *Machine) listen(output io.Reader) {
	for lines := bufio.NewScanner(output); lines.Scan(); {
		m.mu.Lock()
		m.console = append(m.console, strings.TrimSpace(lines.Text()))
		m.mu.Unlock()
		select {
		case m.changed <- struct{}{}:
		default:
		}
	}
}

// Number returns the number in the newest line "guest: WORD NUMBER" of the console, -1 when there is none.
func (m *Machine) Number(word string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := len(m.console) - 1; i >= 0; i-- {
		if text, found := strings.CutPrefix(m.console[i], "guest: "+word+" "); found {
			if number, err := strconv.Atoi(text); err == nil {
				return number
			}
		}
	}
	return -1
}

// Await waits until the guest has said a word with at least a number, and returns the number.
func (m *Machine) Await(ctx context.Context, word string, least int) (int, error) {
	for {
		if number := m.Number(word); number >= least {
			return number, nil
		}
		select {
		case <-m.changed:
		case <-ctx.Done():
			return 0, fmt.Errorf("wait for %q: %w; the console says:\n%s", word, context.Cause(ctx), m.Console())
		case <-m.done:
			if number := m.Number(word); number >= least {
				return number, nil
			}
			return 0, fmt.Errorf("the machine ended without saying %q; the console says:\n%s", word, m.Console())
		}
	}
}

// Console is all that the machine printed.
func (m *Machine) Console() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return strings.Join(m.console, "\n")
}

// Kill ends the machine as a loss of power does, and waits until it is gone.
func (m *Machine) Kill() {
	_ = m.cmd.Process.Kill() // it may have ended
	<-m.done
}
