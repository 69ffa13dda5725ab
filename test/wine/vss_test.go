package wine

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/emulator"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/vss"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/vss/child"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/vss/remote"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/vss/vsstest"
	"github.com/hyperkeep/hyperkeep/agent/vhdx"
	"github.com/hyperkeep/hyperkeep/test/nbd"
)

// shadowHost is the host of a lab, which serves its shims.
type shadowHost struct {
	*emulator.Host
	dir     string
	address string
}

// newShadowHost serves a host over a folder, in which nothing of a host before remains.
func newShadowHost(t *testing.T, dir string, o vsstest.Options) *shadowHost {
	t.Helper()
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	h := &shadowHost{dir: dir}
	host, services := "jobMillis: 1\n", "ok"
	if o.Legacy {
		host += "osVersion: \"2012\"\n"
	}
	if o.Desktop {
		host += "edition: desktop\n"
	}
	if o.Mute {
		services = "missing"
	}
	machine := "id: " + vsstest.MachineID + "\nstate: running\nintegrationServices: " + services + "\ndisks:\n- path: system.vhdx\n"
	for name, text := range map[string]string{"host.yaml": host, "crm/vm.yaml": machine} {
		path := filepath.Join(h.dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	h.makeDisk(t)
	served, err := serve(h.dir, "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := served.end(); err != nil {
			t.Error(err)
		}
	})
	h.Host, h.address = served.Host, served.address
	return h
}

func (h *shadowHost) makeDisk(t *testing.T) {
	t.Helper()
	f, err := os.Create(filepath.Join(h.dir, "crm", "system.vhdx"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	size, err := vhdx.Create(f, vhdx.Options{VirtualSize: 16 << 20, BlockSize: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	w, err := vhdx.OpenWriter(f, size, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.WriteAt(bytes.Repeat([]byte("before"), 1<<16), 1<<20); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

func (h *shadowHost) state(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(h.dir, "crm", "vm.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "state: ")
	state, _, _ := strings.Cut(rest, "\n")
	return strings.Trim(state, `"`)
}

// lab is the host with requesters that run under Wine in front of it.
func (h *shadowHost) lab(t *testing.T, command func() *exec.Cmd) vsstest.Lab {
	return vsstest.Lab{
		Service: child.Service(command), Files: h.Files(), ShadowCopies: h.ShadowCopies, LogTruncations: h.LogTruncations,
		Fail: func(method string, code vss.Code) {
			h.Faults().FailNext(emulator.Fault{Method: method, ReturnValue: uint32(code)})
		},
		State: func() string { return h.state(t) },
		Corrupt: func() {
			guest, err := nbd.Dial(filepath.Join(h.dir, "crm", "system.vhdx.nbd"))
			if err != nil {
				t.Fatal(err)
			}
			defer guest.Close()
			if err := guest.WriteDurably(bytes.Repeat([]byte("after!"), 1<<15), 1<<20); err != nil {
				t.Error(err)
			}
		},
	}
}

// TestVSSContractOfTheWindowsAdapter runs the real requester, a Windows program with vssapi.dll's interfaces, as a child process.
func TestVSSContractOfTheWindowsAdapter(t *testing.T) {
	Require(t)
	exe, dir := Build(t, "test/wine/internal/requester"), newHost(t)
	machine := NewPrefix(t, dir, "")
	vsstest.Run(t, func(t *testing.T, o vsstest.Options) vsstest.Lab {
		h := newShadowHost(t, dir, o)
		p, err := machine.anew(h.address)
		if err != nil {
			t.Fatal(err)
		}
		return h.lab(t, func() *exec.Cmd { return p.Command(context.Background(), exe) })
	})
}

// abandoned is a child whose parent can die: from its end on the child has no input.
type abandoned struct {
	io.ReadCloser
	io.WriteCloser
}

func (a abandoned) Close() error { return a.WriteCloser.Close() }

// TestRequesterEndsWithItsAgent has the agent die while the machine is frozen, and while its shadow copies are read: all that its child sees is the end of
// its input.
func TestRequesterEndsWithItsAgent(t *testing.T) {
	Require(t)
	exe := Build(t, "test/wine/internal/requester")
	h := newShadowHost(t, t.TempDir(), vsstest.Options{})
	p := NewPrefix(t, h.dir, h.address)
	for _, frozen := range []bool{true, false} {
		cmd := p.Command(t.Context(), exe)
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		service := remote.New(func(context.Context) (io.ReadWriteCloser, error) { return abandoned{out, in}, nil })
		r, err := service.Open(t.Context(), vss.Full)
		if err != nil {
			t.Fatal(err)
		}
		all, err := r.Components(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.Begin(t.Context(), vss.Request{Component: all[0], Volumes: []string{`D:\`}}); err != nil {
			t.Fatal(err)
		}
		if frozen {
			pause := h.Faults().PauseAt("vss.frozen")
			go func() {
				<-pause.Reached
				_ = in.Close() // the agent dies
			}()
			if _, err := r.Snapshot(t.Context()); !errors.Is(err, context.Canceled) {
				t.Errorf("the requester without an agent: %v", err)
			}
		} else if _, err := r.Snapshot(t.Context()); err != nil {
			t.Fatal(err)
		}
		_ = in.Close() // the agent dies, if it has not yet
		if err := cmd.Wait(); err != nil {
			t.Errorf("the child did not end in order: %v", err)
		}
		for limit := time.Now().Add(time.Minute); h.ShadowCopies() > 0; time.Sleep(5 * time.Millisecond) {
			if time.Now().After(limit) {
				t.Fatal("the shadow copies outlive their requester")
			}
		}
		if state := h.state(t); state != "running" {
			t.Errorf("the virtual machine is %s", state)
		}
	}
}
