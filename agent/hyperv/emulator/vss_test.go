package emulator

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/vss"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/vss/vsstest"
	"github.com/hyperkeep/hyperkeep/agent/vhdx"
)

// vssLab is the host of the contract, reached through the service given.
func vssLab(t *testing.T, o vsstest.Options, through func(*testing.T, *Host) vss.Service) vsstest.Lab {
	t.Helper()
	dir := tempDir(t)
	host := "jobMillis: 1\n"
	if o.Legacy {
		host += "osVersion: \"2012\"\n"
	}
	if o.Desktop {
		host += "edition: desktop\n"
	}
	services := servicesOK
	if o.Mute {
		services = servicesMissing
	}
	write(t, filepath.Join(dir, "host.yaml"), host)
	makeVHDX(t, filepath.Join(dir, "crm", "system.vhdx"))
	write(t, filepath.Join(dir, "crm", "vm.yaml"),
		"id: "+vsstest.MachineID+"\nstate: running\nintegrationServices: "+string(services)+"\ndisks:\n- path: system.vhdx\n")
	h := startHost(t, dir)
	return vsstest.Lab{
		Service: through(t, h), Files: h.Files(), ShadowCopies: h.ShadowCopies, LogTruncations: h.LogTruncations,
		Fail: func(method string, code vss.Code) {
			h.Faults().FailNext(Fault{Method: method, ReturnValue: uint32(code)})
		},
		State:   func() string { return stateIn(t, dir) },
		Corrupt: func() { guestOverwrites(t, dir) },
	}
}

// makeVHDX makes a disk of 16 MiB with something in it.
func makeVHDX(t *testing.T, path string) {
	t.Helper()
	write(t, path, "")
	f, err := os.OpenFile(path, os.O_RDWR, 0)
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

func stateIn(t *testing.T, dir string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "crm", "vm.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "state: ")
	state, _, _ := strings.Cut(rest, "\n")
	return strings.Trim(state, `"`)
}

func guestOverwrites(t *testing.T, dir string) {
	t.Helper()
	g, err := dialGuest(filepath.Join(dir, "crm", "system.vhdx.nbd"))
	if err != nil {
		t.Fatal(err)
	}
	defer g.close()
	if err := g.write(bytes.Repeat([]byte("after!"), 1<<15), 1<<20); err != nil {
		t.Error(err)
	}
	if err := g.flush(); err != nil {
		t.Error(err)
	}
}

func TestVSSContract(t *testing.T) {
	t.Run("in process", func(t *testing.T) {
		vsstest.Run(t, func(t *testing.T, o vsstest.Options) vsstest.Lab {
			return vssLab(t, o, func(_ *testing.T, h *Host) vss.Service { return h.VSS() })
		})
	})
	t.Run("through the socket", func(t *testing.T) {
		vsstest.Run(t, func(t *testing.T, o vsstest.Options) vsstest.Lab {
			return vssLab(t, o, func(t *testing.T, h *Host) vss.Service {
				serve(t, h)
				c, _ := connect(t, h.dir)
				return c.VSS()
			})
		})
	})
}

func TestRequesterEndsWithItsConnection(t *testing.T) {
	var host *Host
	lab := vssLab(t, vsstest.Options{}, func(t *testing.T, h *Host) vss.Service {
		host = h
		serve(t, h)
		c, _ := connect(t, h.dir)
		return c.VSS()
	})
	pause := host.Faults().PauseAt("vss.frozen")
	r, err := lab.Service.Open(t.Context(), vss.Full)
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
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = r.Snapshot(t.Context()) // cut off below
	}()
	<-pause.Reached
	host.Close() // closed twice: its connections break as those of a dead host
	<-ended
	if n := host.ShadowCopies(); n != 0 {
		t.Errorf("%d shadow copies remain", n)
	}
	if err := r.Close(); err != nil {
		t.Errorf("closing a requester that is gone: %v", err)
	}
}

func TestWriterOffersEachVMAsItsHostDoes(t *testing.T) {
	for name, c := range map[string]struct {
		host, vm string
		caption  string
	}{
		"2012, a guest that quiesces":                          {`osVersion: "2012"`, "state: running", `Backup Using Child Partition Snapshot\crm`},
		"2012, no integration services (NV-04, EZ-13)":         {`osVersion: "2012"`, "state: running\nintegrationServices: missing", `Backup Using Saved State\crm`},
		"2012, checkpoints disabled (EZ-14)":                   {`osVersion: "2012"`, "state: running\ncheckpoints: disabled", `Backup Using Saved State\crm`},
		"2012 R2, a guest that quiesces (NV-05)":               {"osVersion: 2012R2", "state: running", `Online\crm`},
		"2016, no integration services (EZ-11)":                {`osVersion: "2016"`, "state: running\nintegrationServices: missing", `Offline\crm`},
		"2022, production checkpoints off (EZ-12)":             {"", "state: running\ncheckpoints: standard", `Offline\crm`},
		"2022, the backup integration service off":             {"", "state: running\nintegrationServices: disabled", `Offline\crm`},
		"2022, a virtual machine that is off":                  {"", `state: "off"`, `Offline\crm`},
		"2025, a virtual machine that the writer does not see": {`osVersion: "2025"`, "state: running\nhiddenFromWriter: true", ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir := tempDir(t)
			write(t, filepath.Join(dir, "host.yaml"), c.host+"\n")
			write(t, filepath.Join(dir, "crm", "vm.yaml"), c.vm+"\n")
			r, err := startHost(t, dir).VSS().Open(t.Context(), vss.Full)
			if err != nil {
				t.Fatal(err)
			}
			all, err := r.Components(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			caption := ""
			for _, component := range all {
				caption = component.Caption
			}
			if caption != c.caption {
				t.Errorf("the caption is %q, not %q", caption, c.caption)
			}
		})
	}
}

func TestSavedVMStaysSavedWhenTheWriterFailsToThaw(t *testing.T) {
	lab := vssLab(t, vsstest.Options{Legacy: true, Mute: true}, func(_ *testing.T, h *Host) vss.Service { return h.VSS() })
	lab.Fail(writerThaw, vss.WriterNonRetryable)
	r, err := lab.Service.Open(t.Context(), vss.Full)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	all, err := r.Components(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Begin(t.Context(), vss.Request{Component: all[0], Volumes: []string{`D:\`}}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Snapshot(t.Context()); err == nil || lab.State() != "saved" {
		t.Errorf("%v, and the VM is %s", err, lab.State())
	}
}

func TestSharedVolumeHasOneSnapshotSet(t *testing.T) {
	dir := tempDir(t)
	write(t, filepath.Join(dir, "crm", "vm.yaml"), "id: "+vsstest.MachineID+"\n")
	service := startHost(t, dir).VSS()
	begin := func() (vss.Requester, error) {
		r, err := service.Open(t.Context(), vss.Full)
		if err != nil {
			t.Fatal(err)
		}
		all, err := r.Components(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		_, err = r.Begin(t.Context(), vss.Request{Component: all[0], Volumes: []string{`C:\ClusterStorage\Volume1\`, `D:\`}})
		return r, err
	}
	first, err := begin()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := first.Snapshot(t.Context()); err != nil {
		t.Fatal(err)
	}
	second, err := begin()
	if !vss.Retryable(err) {
		t.Errorf("a second set of a shared volume (DR-09): %v", err)
	}
	for _, r := range []vss.Requester{second, first} {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
	third, err := begin()
	if err != nil {
		t.Errorf("after the first has ended: %v", err)
	}
	if err := third.Close(); err != nil {
		t.Error(err)
	}
}

func TestRequesterDeathIsNoticedDuringACall(t *testing.T) {
	lab := vssLab(t, vsstest.Options{}, func(t *testing.T, h *Host) vss.Service {
		serve(t, h)
		c, _ := connect(t, h.dir)
		return c.VSS()
	})
	r, err := lab.Service.Open(t.Context(), vss.Full)
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
	if _, err := r.Snapshot(t.Context()); err != nil {
		t.Fatal(err)
	}
	gone, leave := context.WithCancel(t.Context())
	leave()
	_ = r.Complete(gone, true) // a call that is given up breaks the connection
	for limit := time.Now().Add(testTimeout); lab.ShadowCopies() > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatal("the shadow copies outlive the connection of their requester")
		}
	}
}
