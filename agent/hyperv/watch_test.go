package hyperv_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"github.com/hyperkeep/hyperkeep/agent/hyperv"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

// direct is a Host on the emulated one itself, whose session tells events.
func (l *lab) direct() *hyperv.Host {
	return hyperv.New(hyperv.Seams{
		Virtualization: l.host.Session(wmi.NamespaceVirtualization), CIM: l.host.Session(wmi.NamespaceCIMv2),
		Disks: l.host.Disks(), Files: l.host.Files(), Clock: hurried{},
	})
}

// tells waits until the watch tells of a VM.
func (l *lab) tells(w *hyperv.Watch, id string) {
	l.Helper()
	ctx, cancel := context.WithTimeout(l.Context(), 10*time.Second)
	defer cancel()
	for {
		got, err := w.Next(ctx)
		l.Expect(err).NotTo(HaveOccurred(), "waiting for %s", id)
		if got == id {
			return
		}
	}
}

func TestAWatchTellsWhichVMChanged(t *testing.T) {
	for name, change := range map[string]func(*lab){
		"it is turned off": func(l *lab) { l.Expect(l.TurnOff(l.Context(), crmID)).To(Succeed()) },
		"a person makes a checkpoint": func(l *lab) {
			l.snapshot(2)
		},
		"its disk is detached":         func(l *lab) { l.writeFile("crm/vm.yaml", "id: "+crmID+"\nname: crm\ndisks: [{path: system.vhdx}]\n") },
		"its guest loses its services": func(l *lab) { l.writeFile("crm/vm.yaml", crm+"integrationServices: missing\n") },
		"its name changes": func(l *lab) {
			l.writeFile("crm/vm.yaml", "id: "+crmID+"\nname: crm2\ndisks: [{path: system.vhdx}, {path: data.vhdx}]\n")
		},
		"it is deleted from the host": func(l *lab) { l.Expect(os.RemoveAll(filepath.Join(l.dir, "crm"))).To(Succeed()) },
		"another one is made before it": func(l *lab) {
			l.writeFile("web/vm.yaml", "id: "+webID+"\nstate: off\n")
			l.writeFile("crm/vm.yaml", crm+"notes: [x]\n")
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, oneVM())
			watch, err := l.direct().Watch(t.Context(), 20*time.Millisecond)
			l.Expect(err).NotTo(HaveOccurred())
			defer watch.Close()
			change(l)
			l.tells(watch, crmID)
		})
	}
}

// storm tells nothing but changes of how long a VM has been on.
type storm struct {
	wmi.Session
	wmi.Watcher
}

func (s storm) Watch(context.Context, string) (wmi.Subscription, error) { return &ticks{}, nil }

type ticks struct{ n int64 }

func (t *ticks) Next(ctx context.Context) (wmi.Event, error) {
	if t.n++; t.n > 3 {
		<-ctx.Done()
		return wmi.Event{}, context.Cause(ctx)
	}
	instance := func(n int64) wmi.Instance {
		return wmi.Instance{Class: "Msvm_ComputerSystem", Properties: map[string]any{
			"Name": crmID, "EnabledState": int64(2), "OperationalStatus": []int64{2}, "OnTimeInMilliseconds": n, "InstanceID": "Microsoft:x",
			"VirtualSystemIdentifier": "settings", "SystemName": crmID,
		}}
	}
	return wmi.Event{Class: wmi.EventChange, Target: instance(t.n), Previous: instance(t.n - 1)}, nil
}

func (t *ticks) Close() error { return nil }

func TestAWatchIgnoresThatTimePasses(t *testing.T) {
	g := NewWithT(t)
	watch, err := hyperv.New(hyperv.Seams{Virtualization: storm{}}).Watch(t.Context(), time.Second)
	g.Expect(err).NotTo(HaveOccurred())
	defer watch.Close()
	var got []string
	for range 6 { // three from each of the two classes of which every change counts
		id, err := watch.Next(t.Context())
		g.Expect(err).NotTo(HaveOccurred())
		got = append(got, id)
	}
	g.Expect(got).NotTo(ContainElement(crmID), "the running VM only grew older")
}

func TestAWatchEndsWithItsHost(t *testing.T) {
	l := newLab(t, oneVM())
	watch, err := l.direct().Watch(t.Context(), 20*time.Millisecond)
	l.Expect(err).NotTo(HaveOccurred())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = watch.Next(ctx)
	l.Expect(err).To(MatchError(context.Canceled))
	l.Expect(l.host.Close()).To(Succeed())
	_, err = watch.Next(t.Context())
	l.Expect(err).To(MatchError(wmi.ErrDisconnected))
	l.Expect(watch.Close()).To(Succeed())
	l.Expect(watch.Close()).To(Succeed())
}

func TestAConnectionWithoutEventsSaysSo(t *testing.T) {
	l := newLab(t, oneVM())
	_, err := l.Watch(t.Context(), time.Second) // the lab's wire passes calls on, not events
	l.Expect(err).To(MatchError(hyperv.ErrNoEvents))
}

func TestRefreshLooksOnlyAtWhatChanged(t *testing.T) {
	calls := func(vms int) int {
		files := oneVM()
		for i := range vms {
			files[fmt.Sprintf("vm%d/vm.yaml", i)] = "state: off\ndisks: [{path: a.vhdx}]\n"
			files[fmt.Sprintf("vm%d/a.vhdx", i)] = ""
		}
		l := newLab(t, files)
		before, err := l.Inventory(t.Context())
		l.Expect(err).NotTo(HaveOccurred())
		l.writeFile("crm/vm.yaml", crm+"notes: [changed]\n")
		l.wire.calls = 0
		after, err := l.Refresh(t.Context(), before, []string{crmID})
		l.Expect(err).NotTo(HaveOccurred())
		asked := l.wire.calls
		whole, err := l.Inventory(t.Context())
		l.Expect(err).NotTo(HaveOccurred())
		after.Host, whole.Host = hyperv.HostInfo{}, hyperv.HostInfo{}
		l.Expect(after).To(Equal(whole), "what was looked at and what was kept are the whole")
		return asked
	}
	NewWithT(t).Expect(calls(4)).To(Equal(calls(0)))
}

func TestRefreshAddsAndDropsVMs(t *testing.T) {
	l := newLab(t, oneVM())
	before, err := l.Inventory(t.Context())
	l.Expect(err).NotTo(HaveOccurred())
	l.Expect(l.TurnOff(t.Context(), crmID)).To(Succeed())
	l.copyFile("crm/system.vhdx", "web/copy.vhdx")
	l.writeFile("web/vm.yaml", "id: "+webID+"\nstate: off\ndisks: [{path: copy.vhdx}]\n")
	both, err := l.Refresh(t.Context(), before, []string{webID, crmID, "not a VM"})
	l.Expect(err).NotTo(HaveOccurred())
	l.Expect(both.VMs).To(HaveLen(2))
	for _, vm := range both.VMs {
		l.Expect(vm.Concerns).To(ContainElement(HaveField("Reason", hyperv.DuplicateDiskID)), "concerns of all VMs together are brought up to date")
	}
	l.Expect(os.RemoveAll(filepath.Join(l.dir, "web"))).To(Succeed())
	left, err := l.Refresh(t.Context(), both, []string{webID})
	l.Expect(err).NotTo(HaveOccurred())
	l.Expect(left.VMs).To(HaveLen(1))
	l.Expect(left.VMs[0].Concerns).To(BeEmpty(), "nobody else has its disk id any more")
	l.Expect(before.VMs[0].State).To(Equal(hyperv.Running), "an inventory that was returned does not change")
}
