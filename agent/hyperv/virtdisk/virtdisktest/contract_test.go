package virtdisktest_test

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/emulator"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/emulator/client"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/virtdisk/virtdisktest"
	"github.com/hyperkeep/hyperkeep/test/nbd"
)

// faults is virtdisktest.Host for a host in this process.
type faults struct{ *emulator.Host }

func (f faults) FailNext(function string, code uint32, times int) error {
	f.Faults().FailNext(emulator.Fault{Method: function, ReturnValue: code, Times: times})
	return nil
}

func (f faults) LimitChanges(n int) error {
	f.Faults().LimitChanges(n)
	return nil
}

func (f faults) DiskHandles() ([]string, error) { return f.Host.DiskHandles(), nil }

// newFixture opens a host with the fixture.
func newFixture(t *testing.T) (*emulator.Host, string, virtdisktest.Fixture) {
	t.Helper()
	dir, err := os.MkdirTemp("", "hv") // short: the path of a socket has at most 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	virtdisktest.Layout(t, dir)
	host, err := emulator.Open(dir, emulator.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := host.Close(); err != nil {
			t.Error(err)
		}
	})
	return host, dir, virtdisktest.NewFixture(t, dir, host, clock{}, nbd.WriteOnce)
}

type clock struct{}

func (clock) Now() time.Time                         { return time.Now() }
func (clock) After(d time.Duration) <-chan time.Time { return time.After(d / 100) }

func TestHostInProcessKeepsTheContract(t *testing.T) {
	host, _, fixture := newFixture(t)
	virtdisktest.Contract(t, virtdisktest.Subject{Disks: host.Disks(), Attacher: host.Attacher(), Host: faults{host}, Fixture: fixture})
}

func TestHostBehindItsSocketKeepsTheContract(t *testing.T) {
	host, dir, fixture := newFixture(t)
	l, err := host.Listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- host.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	c := client.Dial(emulator.SocketPath(dir))
	t.Cleanup(func() { c.Close() })
	virtdisktest.Contract(t, virtdisktest.Subject{Disks: c.Disks(), Attacher: c.Attacher(), Host: faults{host}, Fixture: fixture})
}
