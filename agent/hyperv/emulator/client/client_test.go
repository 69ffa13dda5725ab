package client_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/emulator"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/emulator/client"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/virtdisk"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

// run serves a host until the returned function is called.
func run(t *testing.T, dir string) (stop func()) {
	t.Helper()
	h, err := emulator.Open(dir, emulator.Options{})
	if err != nil {
		t.Fatal(err)
	}
	l, err := h.Listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- h.Serve(ctx, l) }()
	return func() {
		cancel()
		if err := errors.Join(<-served, h.Close()); err != nil {
			t.Error(err)
		}
	}
}

func TestClientSaysThatTheHostIsAwayAndComesBack(t *testing.T) {
	dir, err := os.MkdirTemp("", "hv")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	c := client.Dial(emulator.SocketPath(dir))
	t.Cleanup(func() { c.Close() })
	session := c.Session(wmi.NamespaceVirtualization)
	check := func(there bool) {
		t.Helper()
		_, err := session.Query(t.Context(), "SELECT * FROM Msvm_ComputerSystem")
		_, getErr := session.Get(t.Context(), "Msvm_ComputerSystem.Name=\"x\"")
		_, infoErr := c.Disks().Info(t.Context(), `D:\VMs\x`)
		if there != (err == nil) || there == errors.Is(err, wmi.ErrDisconnected) || there != errors.Is(getErr, wmi.ErrNotFound) {
			t.Errorf("query: %v, get: %v", err, getErr)
		}
		if there == errors.Is(infoErr, virtdisk.ErrDisconnected) || there != errors.Is(infoErr, virtdisk.ErrFileNotFound) {
			t.Errorf("info: %v", infoErr)
		}
	}
	check(false)
	if _, err := c.Files().Stat(t.Context(), `D:\VMs`); !errors.Is(err, wmi.ErrDisconnected) {
		t.Errorf("files: %v", err)
	}
	for range 2 {
		stop := run(t, dir)
		check(true)
		if _, err := c.Files().Stat(t.Context(), `D:\VMs`); err != nil {
			t.Errorf("files: %v", err)
		}
		stop()
		check(false)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := session.Query(ctx, "SELECT * FROM Msvm_ComputerSystem"); !errors.Is(err, context.Canceled) {
		t.Errorf("a call that was given up: %v", err)
	}
}

func TestFaultsGoThroughTheSocket(t *testing.T) {
	dir, err := os.MkdirTemp("", "hv")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.MkdirAll(filepath.Join(dir, "crm"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "crm", "vm.yaml"), []byte("state: running\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(run(t, dir))
	c := client.Dial(emulator.SocketPath(dir))
	t.Cleanup(func() { c.Close() })
	if err := c.FailNext(t.Context(), client.Fault{Method: "RequestStateChange", ReturnValue: 32769}); err != nil {
		t.Fatal(err)
	}
	session := c.Session(wmi.NamespaceVirtualization)
	vms, err := session.Query(t.Context(), "SELECT * FROM Msvm_ComputerSystem WHERE ElementName = 'crm'")
	if err != nil || len(vms) != 1 {
		t.Fatal(vms, err)
	}
	for _, want := range []uint32{32769, 4096} {
		r, err := session.Invoke(t.Context(), vms[0].Path, "RequestStateChange", wmi.Params{"RequestedState": int64(3)})
		if err != nil || r.ReturnValue != want {
			t.Errorf("%d, not %d: %v", r.ReturnValue, want, err)
		}
	}
	if err := errors.Join(c.HoldMerges(t.Context(), true), c.HoldMerges(t.Context(), false)); err != nil {
		t.Error(err)
	}
	if err := c.LoseTracking(t.Context(), `D:\VMs\no.vhdx`); err == nil {
		t.Error("a disk that does not exist lost its tracking")
	}
	if n, err := c.QuiesceCalls(t.Context()); n != 0 || err != nil {
		t.Errorf("%d calls, %v", n, err)
	}
}
