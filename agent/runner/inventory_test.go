package runner

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/utils/clock"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hyperkeep/hyperkeep/agent/hyperv"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/emulator"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
	"github.com/hyperkeep/hyperkeep/test/controlplane"
)

// estate is an emulated host whose inventory is published to a real API server.
type estate struct {
	*WithT
	t      *testing.T
	dir    string
	client client.Client
	seams  hyperv.Seams
	publisher
}

type publisher struct{ *InventoryPublisher }

func newEstate(t *testing.T, machines int) *estate {
	t.Helper()
	server := controlplane.ForTest(t, controlplane.Options{CRDs: []string{"../../config/crd/bases"}})
	scheme := runtime.NewScheme()
	err := errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme))
	e := &estate{t: t, WithT: NewWithT(t), dir: t.TempDir()}
	e.Expect(err).NotTo(HaveOccurred())
	e.client, err = client.New(server.Config(), client.Options{Scheme: scheme})
	e.Expect(err).NotTo(HaveOccurred())
	namespace := v1alpha1.AgentNamespace(hostName)
	e.Expect(e.client.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}})).To(Succeed())
	for n := range machines {
		e.machine(fmt.Sprintf("vm%03d", n), "off")
	}
	host, err := emulator.Open(e.dir, emulator.Options{})
	e.Expect(err).NotTo(HaveOccurred())
	t.Cleanup(func() { _ = host.Close() })
	e.seams = hyperv.Seams{
		Virtualization: host.Session(wmi.NamespaceVirtualization), CIM: host.Session(wmi.NamespaceCIMv2),
		Disks: host.Disks(), Files: host.Files(), Clock: clock.RealClock{},
	}
	// Nothing is looked at again by itself within the test.
	e.publisher = publisher{&InventoryPublisher{
		Client: e.client, Namespace: namespace, Session: "session", Version: "test",
		Resync: time.Hour, Interval: time.Hour, Within: 20 * time.Millisecond, Limit: time.Minute, Clock: clock.RealClock{},
	}}
	return e
}

// machine writes the definition of a virtual machine without disks.
func (e *estate) machine(name, state string) {
	e.t.Helper()
	folder := filepath.Join(e.dir, name)
	e.Expect(os.MkdirAll(folder, 0o755)).To(Succeed())
	e.Expect(os.WriteFile(filepath.Join(folder, "vm.yaml"), []byte("state: "+state+"\n"), 0o644)).To(Succeed())
}

func (e *estate) publish() {
	e.t.Helper()
	e.Host = hyperv.New(e.seams)
	ctx, stop := context.WithCancel(context.WithoutCancel(e.t.Context()))
	var running sync.WaitGroup
	running.Go(func() { _ = e.Start(ctx) })
	e.t.Cleanup(func() { stop(); running.Wait() })
}

// states are what is published of each virtual machine, with the part that it is in.
func (e *estate) states() (map[string]string, []v1alpha1.HostInventory) {
	list := &v1alpha1.HostInventoryList{}
	e.Expect(e.client.List(e.t.Context(), list, client.InNamespace(e.Namespace))).To(Succeed())
	out := map[string]string{}
	for _, item := range list.Items {
		for _, machine := range item.Status.VirtualMachines {
			out[machine.DisplayName] = fmt.Sprintf("%s in %d", machine.State, item.Status.Part)
		}
	}
	return out, list.Items
}

func (e *estate) eventually(condition func(map[string]string) bool) {
	e.t.Helper()
	e.Eventually(func() bool { states, _ := e.states(); return condition(states) }, 20*time.Second, 20*time.Millisecond).Should(BeTrue())
}

func TestChangesArePublishedWithoutWaitingForAResync(t *testing.T) {
	e := newEstate(t, 66)
	e.publish()
	e.eventually(func(s map[string]string) bool { return len(s) == 66 && s["vm003"] == "Off in 0" && s["vm065"] != "" })
	_, before := e.states()
	e.Expect(before).To(HaveLen(2))

	e.machine("fresh", "off")
	e.eventually(func(s map[string]string) bool { return s["fresh"] == "Off in 1" })
	e.machine("vm065", "paused")
	e.eventually(func(s map[string]string) bool { return strings.HasPrefix(s["vm065"], "Paused") })
	states, after := e.states()
	e.Expect(states).To(HaveLen(67))
	e.Expect(after[0].Status.ScanID).To(Equal(after[1].Status.ScanID), "the manager still sees one whole scan")
	e.Expect(os.RemoveAll(filepath.Join(e.dir, "fresh"))).To(Succeed())
	e.eventually(func(s map[string]string) bool { return s["fresh"] == "" && len(s) == 66 })
}

// silent is a connection without events.
type silent struct{ wmi.Session }

func TestAHostThatTellsNoEventsIsLookedAtAtIntervals(t *testing.T) {
	e := newEstate(t, 1)
	e.seams.Virtualization = silent{e.seams.Virtualization}
	e.Interval = 20 * time.Millisecond
	e.publish()
	e.eventually(func(s map[string]string) bool { return s["vm000"] == "Off in 0" })
	e.machine("vm000", "paused")
	e.eventually(func(s map[string]string) bool { return s["vm000"] == "Paused in 0" })
}

// cutOff is a connection whose events end, and begin again when it is asked for them the next time.
type cutOff struct {
	wmi.Session
	cuts chan chan struct{}
}

func (c cutOff) Watch(ctx context.Context, wql string) (wmi.Subscription, error) {
	events, err := c.Session.(wmi.Watcher).Watch(ctx, wql)
	if err != nil || !strings.Contains(wql, "ISA 'Msvm_ComputerSystem'") {
		return events, err
	}
	cut := make(chan struct{})
	select {
	case c.cuts <- cut:
	case <-ctx.Done():
	}
	return cutSubscription{events, cut}, nil
}

type cutSubscription struct {
	wmi.Subscription
	cut chan struct{}
}

func (s cutSubscription) Next(ctx context.Context) (wmi.Event, error) {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	unhook := make(chan struct{})
	defer close(unhook)
	go func() {
		select {
		case <-s.cut:
			stop(wmi.ErrDisconnected)
		case <-unhook:
		}
	}()
	return s.Subscription.Next(ctx)
}

func TestWhatHappensWhileEventsAreCutOffIsFound(t *testing.T) {
	e := newEstate(t, 1)
	cuts := make(chan chan struct{}, 1)
	e.seams.Virtualization = cutOff{e.seams.Virtualization, cuts}
	e.Interval = 200 * time.Millisecond
	e.publish()
	cut := <-cuts
	e.eventually(func(s map[string]string) bool { return s["vm000"] == "Off in 0" })
	close(cut)
	e.machine("vm000", "paused")
	e.eventually(func(s map[string]string) bool { return s["vm000"] == "Paused in 0" })
	<-cuts // it has subscribed again
	e.machine("fresh", "off")
	e.eventually(func(s map[string]string) bool { return s["fresh"] != "" })
}

// hanging is a connection that can be made to answer no query any more, until it is cut.
type hanging struct {
	wmi.Session
	hangs *atomic.Bool
}

func (h hanging) Query(ctx context.Context, wql string) ([]wmi.Instance, error) {
	if h.hangs.Load() {
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}
	return h.Session.Query(ctx, wql)
}

// I9: Hyper-V's management hangs, as it does in the field, and neither hides the virtual machines nor the hang.
func TestAHostThatHangsIsToldAndLookedAtAgain(t *testing.T) {
	e := newEstate(t, 1)
	hangs := &atomic.Bool{}
	e.seams.Virtualization = hanging{silent{e.seams.Virtualization}, hangs}
	e.Interval, e.Limit = 20*time.Millisecond, 3*time.Second
	e.publish()
	e.eventually(func(s map[string]string) bool { return s["vm000"] == "Off in 0" })
	problem := func() string {
		_, published := e.states()
		return published[0].Status.Error
	}
	hangs.Store(true)
	e.Eventually(problem, 20*time.Second, 20*time.Millisecond).Should(ContainSubstring("it does not answer"))
	states, _ := e.states()
	e.Expect(states).To(HaveKey("vm000"), "it has not vanished")
	hangs.Store(false)
	e.machine("vm000", "paused")
	e.eventually(func(s map[string]string) bool { return s["vm000"] == "Paused in 0" })
	e.Expect(problem()).To(BeEmpty())
}

// The time of the scan is that of the first part, which is written in time also when only others change.
func TestScanTimeIsKeptUpWhileOtherPartsChange(t *testing.T) {
	e := newEstate(t, v1alpha1.InventoryPartSize+2)
	clk := clocktesting.NewFakeClock(time.Now())
	e.Clock, e.Host = clk, hyperv.New(e.seams)
	published := func() (time.Time, map[string]string) {
		e.Expect(e.InventoryPublisher.publish(t.Context(), hostEvent{all: true})).To(Succeed())
		states, parts := e.states()
		return parts[0].Status.ScanTime.Time, states
	}
	before, states := published()
	var other string
	for name, state := range states {
		if state == "Off in 1" {
			other = name
		}
	}
	clk.Step(inventoryRefresh)
	e.machine(other, "paused")
	e.Eventually(func() string {
		after, states := published()
		e.Expect(after).To(BeTemporally("==", before.Add(inventoryRefresh).Truncate(time.Second)))
		return states[other]
	}, 20*time.Second).Should(Equal("Paused in 1"))
}

func TestPartsOfAnInventory(t *testing.T) {
	vms := func(ids ...int) hyperv.Inventory {
		var i hyperv.Inventory
		for _, id := range ids {
			i.VMs = append(i.VMs, hyperv.VM{ID: fmt.Sprintf("VM-%03d", id), Name: "vm"})
		}
		return i
	}
	span := func(from, to int) (out []int) {
		for n := from; n < to; n++ {
			out = append(out, n)
		}
		return out
	}
	full := v1alpha1.InventoryPartSize
	for name, c := range map[string]struct {
		before, after []int
		session       string
		written       []int
		same          bool // the scan goes on
	}{
		"nothing changed":                    {span(0, 100), span(0, 100), "a", nil, true},
		"one is new, and sorts first":        {span(1, 100), span(0, 100), "a", []int{1}, true},
		"one of the first part is gone":      {span(0, 100), span(1, 100), "a", []int{0}, true},
		"room that was left is used":         {span(0, 2*full), append(span(1, 2*full), 900), "a", []int{0}, true},
		"another part is needed":             {span(0, full), span(0, full+1), "a", []int{0, 1}, false},
		"a part is needed no more":           {span(0, full+1), span(0, full), "a", []int{0}, false},
		"all are gone":                       {span(0, 3), nil, "a", []int{0}, true},
		"another session publishes the same": {span(0, 100), span(0, 100), "b", []int{0, 1}, false},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			before := parts(nil).put(vms(c.before...), "a", "1")
			after := before.put(vms(c.after...), c.session, "1")
			g.Expect(before.changed(after)).To(Equal(c.written))
			g.Expect(after[0].ScanID == before[0].ScanID).To(Equal(c.same))
			count := 0
			for _, part := range after {
				g.Expect(len(part.VirtualMachines)).To(BeNumerically("<=", full))
				count += len(part.VirtualMachines)
			}
			g.Expect(count).To(Equal(len(c.after)))
		})
	}
}

// I9: a host that cannot be looked at is told, and its machines have not vanished.
func TestPartsWithAnError(t *testing.T) {
	g := NewWithT(t)
	before := parts(nil).put(hyperv.Inventory{VMs: []hyperv.VM{{ID: "A", Name: "a"}}}, "s", "1")
	failed := before.withError("down", "s")
	g.Expect(failed[0].Error).To(Equal("down"))
	g.Expect(failed[0].VirtualMachines).To(HaveLen(1))
	g.Expect(failed.changed(failed.withError("down", "s"))).To(BeEmpty(), "it is written once")
	again := failed.put(hyperv.Inventory{VMs: []hyperv.VM{{ID: "A", Name: "a"}}}, "s", "1")
	g.Expect(again[0].Error).To(BeEmpty())
	g.Expect(failed.changed(again)).To(Equal([]int{0}))
	g.Expect(parts(nil).withError("down", "s")).To(HaveLen(1), "a host that never answered has an inventory, too")
}
