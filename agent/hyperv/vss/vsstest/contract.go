// Package vsstest is the contract of vss.Service, for each of its implementations.
package vsstest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/hostfs"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/vss"
)

// Lab is a host with an implementation of vss.Service in front of it. Each test makes a new one.
type Lab struct {
	Service vss.Service
	Files   hostfs.FS
	// Fail has the next call or step of this name end with the code: see emulator.Faults.
	Fail func(method string, code vss.Code)
	// ShadowCopies counts those on the host, and State is the state of the virtual machine in the words of vm.yaml.
	ShadowCopies func() int
	State        func() string
	// LogTruncations counts how often the applications in the guest truncated their logs.
	LogTruncations func() int
	// Corrupt overwrites the virtual machine's disk, as its guest does.
	Corrupt func()
}

// The virtual machine of a lab: running, and with a disk on D:\ whose name is Disk.
const (
	MachineID = "11111111-1111-4111-8111-111111111111"
	Disk      = `D:\VMs\crm\system.vhdx`
)

// Options say what the host of a lab is.
type Options struct {
	// Legacy is a host that saves a virtual machine which cannot quiesce, and Mute a guest that cannot.
	Legacy, Mute bool
	// Desktop is an edition without the writer.
	Desktop bool
}

// Run proves the contract on labs that the function makes.
func Run(t *testing.T, lab func(*testing.T, Options) Lab) {
	for name, test := range map[string]func(*testing.T, func(*testing.T, Options) Lab){
		"a shadow copy keeps what the guest overwrites":                 keeps,
		"a guest that cannot quiesce is saved and resumed by old hosts": saves,
		"without the writer nothing happens to the virtual machine":     uninvolved,
		"a copy leaves the logs of the guest alone":                     copies,
		"shadow copies end with their requester":                        ends,
		"shadow copies can be deleted by their set, twice":              deletes,
		"a second set waits for the first":                              oneAtATime,
		"what fails keeps its code":                                     fails,
		"calls in the wrong order are refused":                          order,
		"a call whose context ended says so":                            canceled,
	} {
		t.Run(name, func(t *testing.T) { test(t, lab) })
	}
	t.Run("a desktop edition has no writer", func(t *testing.T) {
		r := open(t, lab(t, Options{Desktop: true}))
		if _, err := r.Components(t.Context()); !errors.Is(err, vss.ErrNoWriter) {
			t.Errorf("%v", err)
		}
	})
}

func open(t *testing.T, l Lab) vss.Requester {
	t.Helper()
	r, err := l.Service.Open(t.Context(), vss.Full)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return r
}

// component finds the machine's, and checks what every host says of it.
func component(t *testing.T, r vss.Requester) vss.Component {
	t.Helper()
	all, err := r.Components(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c, found := vss.Find(all, strings.ToLower(MachineID))
	if !found || c.Type != vss.FileGroup || c.Writer == "" {
		t.Fatalf("%+v", all)
	}
	kinds := map[string]bool{}
	for _, f := range c.Files {
		kinds[strings.ToLower(f.Pattern[strings.LastIndexByte(f.Pattern, '.'):])] = true
	}
	if !kinds[".vhdx"] || (!kinds[".vmcx"] && !kinds[".xml"]) || (!kinds[".vmrs"] && !kinds[".vsv"]) { // old hosts have the latter
		t.Errorf("the component lacks files: %+v", c.Files)
	}
	return c
}

func begin(t *testing.T, r vss.Requester, change func(*vss.Request)) string {
	t.Helper()
	c := component(t, r)
	volumes, elsewhere := c.Volumes()
	if len(volumes) == 0 || len(elsewhere) > 0 {
		t.Fatalf("no volumes: %+v", c.Files)
	}
	request := vss.Request{Component: c, Volumes: volumes}
	change(&request)
	set, err := r.Begin(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func selected(*vss.Request)     {}
func unselected(r *vss.Request) { r.Uninvolved = true }
func content(t *testing.T, l Lab, path string) []byte {
	t.Helper()
	f, err := l.Files.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	size, err := f.Size()
	if err != nil {
		t.Fatal(err)
	}
	all, err := io.ReadAll(io.NewSectionReader(f, 0, size))
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	return all
}

func snapshot(t *testing.T, l Lab, r vss.Requester, change func(*vss.Request)) (set, disk string) {
	t.Helper()
	set = begin(t, r, change)
	s, err := r.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	disk = s.Path(Disk)
	if disk == "" {
		t.Fatalf("no device for %s: %v", Disk, s.Devices)
	}
	if n := l.ShadowCopies(); n != 1 {
		t.Errorf("%d shadow copies", n)
	}
	return set, disk
}

func keeps(t *testing.T, lab func(*testing.T, Options) Lab) {
	l := lab(t, Options{})
	r := open(t, l)
	if c := component(t, r); c.Mode() != vss.Online {
		t.Errorf("the caption is %q", c.Caption)
	}
	_, disk := snapshot(t, l, r, selected)
	before := content(t, l, disk)
	l.Corrupt()
	if after := content(t, l, disk); !bytes.Equal(before, after) || len(before) == 0 {
		t.Errorf("the shadow copy changed; it has %d bytes, then %d", len(before), len(after))
	}
	if state := l.State(); state != "running" {
		t.Errorf("the virtual machine is %s", state)
	}
	if err := r.Complete(t.Context(), true); err != nil {
		t.Error(err)
	}
	if n := l.ShadowCopies(); n != 0 {
		t.Errorf("%d shadow copies remain (NV-11)", n)
	}
}

func saves(t *testing.T, lab func(*testing.T, Options) Lab) {
	l := lab(t, Options{Legacy: true, Mute: true})
	r := open(t, l)
	c := component(t, r)
	if c.Mode() != vss.OfflineMode {
		t.Errorf("the caption is %q", c.Caption)
	}
	set := begin(t, r, selected)
	s, err := r.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if state := l.State(); state != "running" || set == "" {
		t.Errorf("the virtual machine is %s (NV-06)", state)
	}
	memory := 0
	for _, f := range c.Files {
		if strings.EqualFold(f.Pattern, MachineID+".vsv") { // of a configuration version that hosts before 2016 run
			memory = len(content(t, l, s.Path(f.Path+`\`+f.Pattern)))
		}
	}
	if memory < 32<<10 {
		t.Errorf("the saved state has %d bytes: no memory (EZ-06)", memory)
	}
}

func copies(t *testing.T, lab func(*testing.T, Options) Lab) {
	l := lab(t, Options{})
	for i, kind := range []vss.BackupType{vss.Copy, vss.Full} {
		r, err := l.Service.Open(t.Context(), kind)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(whole(t.Context(), r), r.Close()); err != nil {
			t.Fatal(err)
		}
		if n := l.LogTruncations(); n != i {
			t.Errorf("after a backup of type %d logs were truncated %d times", kind, n)
		}
	}
}

func uninvolved(t *testing.T, lab func(*testing.T, Options) Lab) {
	l := lab(t, Options{Legacy: true, Mute: true})
	l.Fail("HyperVWriter.PrepareBackup", vss.WriterNonRetryable) // which nobody meets
	r := open(t, l)
	_, disk := snapshot(t, l, r, unselected)
	before := content(t, l, disk)
	l.Corrupt()
	if !bytes.Equal(before, content(t, l, disk)) {
		t.Error("the shadow copy changed")
	}
	if err := r.Complete(t.Context(), false); err != nil {
		t.Error(err)
	}
}

func ends(t *testing.T, lab func(*testing.T, Options) Lab) {
	l := lab(t, Options{})
	r := open(t, l)
	_, disk := snapshot(t, l, r, selected)
	for range 2 {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
	if n := l.ShadowCopies(); n != 0 {
		t.Errorf("%d shadow copies remain", n)
	}
	if _, err := l.Files.Open(t.Context(), disk); err == nil {
		t.Error("a file of a shadow copy that is gone could be opened")
	}
}

func deletes(t *testing.T, lab func(*testing.T, Options) Lab) {
	l := lab(t, Options{})
	r := open(t, l)
	set, _ := snapshot(t, l, r, selected)
	for range 2 {
		if err := l.Service.Delete(t.Context(), set); err != nil {
			t.Error(err)
		}
		if n := l.ShadowCopies(); n != 0 {
			t.Errorf("%d shadow copies remain", n)
		}
	}
}

func oneAtATime(t *testing.T, lab func(*testing.T, Options) Lab) {
	l := lab(t, Options{})
	first, second := open(t, l), open(t, l)
	begin(t, first, selected)
	c := component(t, second)
	if _, err := second.Begin(t.Context(), vss.Request{Component: c, Volumes: []string{`D:\`}}); !errors.Is(err, vss.SnapshotSetInProgress) || !vss.Retryable(err) {
		t.Errorf("%v", err)
	}
	if _, err := first.Snapshot(t.Context()); err != nil {
		t.Fatal(err)
	}
	third := open(t, l)
	begin(t, third, unselected) // the first is made, and still there
}

func fails(t *testing.T, lab func(*testing.T, Options) Lab) {
	l := lab(t, Options{})
	for _, failing := range []struct {
		method string
		code   vss.Code
		state  vss.WriterState
	}{
		{"GatherWriterMetadata", vss.WriterInfrastructure, 0},
		{"StartSnapshotSet", vss.SnapshotSetInProgress, 0},
		{"AddToSnapshotSet", vss.TooManySnapshots, 0},
		{"PrepareForBackup", vss.Unexpected, 0},
		{"DoSnapshotSet", vss.HoldWritesTimeout, 0},
		{"HyperVWriter.PrepareBackup", vss.WriterRetryable, vss.FailedAtPrepareBackup},
		{"HyperVWriter.Freeze", vss.WriterTimeout, vss.FailedAtFreeze},
		{"HyperVWriter.Thaw", vss.WriterNonRetryable, vss.FailedAtThaw},
		{"BackupComplete", vss.Unexpected, 0},
		{"DeleteSnapshots", vss.Unexpected, 0},
	} {
		t.Run(failing.method, func(t *testing.T) {
			l.Fail(failing.method, failing.code)
			r := open(t, l)
			err := whole(t.Context(), r)
			if !errors.Is(err, failing.code) || vss.Retryable(err) != failing.code.Retryable() {
				t.Errorf("%v is not %v", err, failing.code)
			}
			if writer, ok := errors.AsType[*vss.WriterError](err); ok != (failing.state != 0) || (ok && writer.State != failing.state) {
				t.Errorf("the writer's part in %v is not %v", err, failing.state)
			}
			if err := r.Close(); err != nil {
				t.Error(err)
			}
			if n := l.ShadowCopies(); n != 0 {
				t.Errorf("%d shadow copies remain (NV-12)", n)
			}
			if err := whole(t.Context(), open(t, l)); err != nil {
				t.Errorf("the next backup: %v", err)
			}
		})
	}
}

// whole is a backup that reads nothing.
func whole(ctx context.Context, r vss.Requester) error {
	all, err := r.Components(ctx)
	if err != nil {
		return err
	}
	c, _ := vss.Find(all, MachineID)
	if _, err := r.Begin(ctx, vss.Request{Component: c, Volumes: []string{`D:\`}}); err != nil {
		return err
	}
	if _, err := r.Snapshot(ctx); err != nil {
		return err
	}
	return r.Complete(ctx, true)
}

func order(t *testing.T, lab func(*testing.T, Options) Lab) {
	l := lab(t, Options{})
	r := open(t, l)
	if _, err := r.Snapshot(t.Context()); !errors.Is(err, vss.BadState) {
		t.Errorf("a snapshot of nothing: %v", err)
	}
	if err := r.Complete(t.Context(), true); !errors.Is(err, vss.BadState) {
		t.Errorf("the end of nothing: %v", err)
	}
	unknown := open(t, l)
	c := component(t, unknown)
	c.Name = "99999999-9999-4999-8999-999999999999"
	if _, err := unknown.Begin(t.Context(), vss.Request{Component: c, Volumes: []string{`D:\`}}); !errors.Is(err, vss.ObjectNotFound) {
		t.Errorf("an unknown component: %v", err)
	}
	absent := open(t, l)
	if _, err := absent.Begin(t.Context(), vss.Request{Component: component(t, absent), Volumes: []string{`Q:\`}}); !errors.Is(err, vss.ObjectNotFound) {
		t.Errorf("an unknown volume: %v", err)
	}
	if err := absent.Close(); err != nil { // the set that it began goes with it
		t.Error(err)
	}
	foreign := open(t, l)
	request := vss.Request{Component: component(t, foreign), Volumes: []string{`D:\`}, Provider: MachineID}
	if _, err := foreign.Begin(t.Context(), request); !errors.Is(err, vss.ProviderNotRegistered) {
		t.Errorf("an unknown provider (DR-11): %v", err)
	}
}

func canceled(t *testing.T, lab func(*testing.T, Options) Lab) {
	l := lab(t, Options{})
	r := open(t, l)
	begin(t, r, selected)
	ctx, cancel := context.WithTimeout(t.Context(), time.Nanosecond)
	defer cancel()
	<-ctx.Done()
	if _, err := r.Snapshot(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
}
