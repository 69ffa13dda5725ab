package preflight_test

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"github.com/hyperkeep/hyperkeep/agent/extent"
	"github.com/hyperkeep/hyperkeep/agent/hyperv"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/emulator"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/preflight"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/virtdisk"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
	"github.com/hyperkeep/hyperkeep/test/nbd"
)

// clean tells that nothing of a cycle is left on the host.
func clean(g *WithT, t *testing.T, h *emulator.Host) {
	t.Helper()
	host := hyperv.New(seams(h))
	ctx := context.WithoutCancel(t.Context())
	g.Expect(host.Owned(ctx)).To(BeEmpty())
	g.Expect(host.ReferencePoints(ctx, crmID)).To(BeEmpty())
	vm, err := host.VM(ctx, crmID)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(vm.Checkpoints).To(BeEmpty())
	for i, name := range []string{"system.vhdx", "data.vhdx"} {
		g.Expect(vm.Disks[i].Path).To(Equal(`D:\VMs\crm\` + name))
	}
	// A merge is over when no disk stands on a file of it any more; Hyper-V deletes the file after that.
	g.Eventually(func() ([]string, error) {
		files, err := h.Files().ReadDir(ctx, `D:\VMs\crm`)
		var names []string
		for _, f := range files {
			names = append(names, f.Name())
		}
		return names, err
	}).WithTimeout(time.Minute).ShouldNot(ContainElement(HaveSuffix(".avhdx")))
}

// interrupted is a session that does something when a method is called for the nth time.
type interrupted struct {
	wmi.Session
	mu    sync.Mutex
	calls map[string]int
	when  map[string]func()
}

func (s *interrupted) Invoke(ctx context.Context, path, method string, in wmi.Params) (wmi.Result, error) {
	s.mu.Lock()
	s.calls[method]++
	act := s.when[fmt.Sprintf("%s %d", method, s.calls[method])]
	s.mu.Unlock()
	result, err := s.Session.Invoke(ctx, path, method, in)
	if act != nil {
		act()
	}
	return result, err
}

func interrupting(s wmi.Session, when map[string]func()) *interrupted {
	return &interrupted{Session: s, calls: map[string]int{}, when: when}
}

func TestACycleMeasuresAndLeavesNothing(t *testing.T) {
	g := NewWithT(t)
	h := open(t, oneVM())
	p := of(seams(h))
	r := p.Run(t.Context())
	p.Cycle(t.Context(), r, "CRM")
	g.Expect(r.ExitCode()).To(Equal(preflight.ExitReady), "%+v", r.Checks)
	m := r.Cycle
	g.Expect([]any{m.VM, m.Level, m.ReferencePointDisks, m.ReferencePointIDs}).To(Equal([]any{"crm", hyperv.Application, 2, 2}))
	g.Expect(m.Disks).To(HaveLen(2))
	for _, d := range m.Disks {
		g.Expect(d.Reads).To(HaveLen(3), "the files themselves, and both ways of the host")
		for _, read := range d.Reads {
			g.Expect(read.Problem).To(BeEmpty(), read.Way)
		}
		g.Expect([]any{d.Chain, d.Sampled, d.Changed, d.Missed}).To(Equal([]any{1, int64(mib), 0, 0}), d.Key)
	}
	g.Expect(check(r, preflight.SectionCycle, "clean up").Result).To(Equal(preflight.Passed))
	g.Expect(check(r, preflight.SectionCycle, "changes of SCSI-0-0").Found).To(Equal("0 B reported, 0 of 16 sampled pieces changed, each of them reported"))
	g.Expect(r.Open).NotTo(ContainElement(ContainSubstring("--vm")))
	clean(g, t, h)
}

// deaf is a virtual-disk service whose change tracking noticed nothing.
type deaf struct{ virtdisk.Service }

func (deaf) Changes(_ context.Context, _, _ string, window extent.Extent) ([]extent.Extent, int64, error) {
	return nil, window.Length, nil
}

// I3: a change that tracking does not tell is the worst that a host can do to an increment.
func TestACycleFindsChangesThatTrackingMissed(t *testing.T) {
	for name, c := range map[string]struct {
		disks  func(virtdisk.Service) virtdisk.Service
		result preflight.Result
		missed int
	}{
		"tracking works":      {func(s virtdisk.Service) virtdisk.Service { return s }, preflight.Passed, 0},
		"tracking misses all": {func(s virtdisk.Service) virtdisk.Service { return deaf{s} }, preflight.Failed, 2},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			h := open(t, oneVM())
			s := seams(h)
			s.Disks = c.disks(s.Disks)
			// The guest writes after the first checkpoint was taken.
			s.Virtualization = interrupting(s.Virtualization, map[string]func(){"ConvertToReferencePoint 1": func() { write(t, h, 100<<10, 64<<10) }})
			p := of(s)
			r := p.Run(t.Context())
			p.Cycle(t.Context(), r, crmID)
			g.Expect(check(r, preflight.SectionCycle, "changes of SCSI-0-0").Result).To(Equal(c.result), "%+v", r.Checks)
			g.Expect([]int{r.Cycle.Disks[0].Changed, r.Cycle.Disks[0].Missed}).To(Equal([]int{2, c.missed}))
			clean(g, t, h)
		})
	}
}

// otherwise is a host whose one way to read gives zeros, and whose other does not work.
type otherwise struct{}

func (otherwise) Attach(_ context.Context, _ string, way virtdisk.Way) (virtdisk.Content, error) {
	if way == virtdisk.AsDisk {
		return nil, virtdisk.ErrInUse
	}
	return zeros{}, nil
}

type zeros struct{}

func (zeros) ReadAt(p []byte, _ int64) (int, error) { clear(p); return len(p), nil }
func (zeros) Size() int64                           { return 16 * mib }
func (zeros) Close() error                          { return nil }

func TestACycleFindsWaysToReadThatDoNotWork(t *testing.T) {
	g := NewWithT(t)
	h := open(t, oneVM())
	s := seams(h)
	s.Attacher = otherwise{}
	p := of(s)
	r := p.Run(t.Context())
	p.Cycle(t.Context(), r, "crm")
	g.Expect(r.ExitCode()).To(Equal(preflight.ExitConcerns))
	g.Expect(check(r, preflight.SectionCycle, "read SCSI-0-0").Found).To(And(
		ContainSubstring("Handle: gives other bytes than the files do"), ContainSubstring("Disk: the virtual disk is in use")))
	clean(g, t, h)
}

// I4: a cycle that is stopped, wherever it is, takes back what it made.
func TestACycleThatIsStoppedLeavesNothing(t *testing.T) {
	for _, at := range []string{
		"CreateSnapshot 1", "ModifySystemSettings 1", "ConvertToReferencePoint 1", "CreateSnapshot 2", "ModifySystemSettings 2",
	} {
		t.Run(at, func(t *testing.T) {
			g := NewWithT(t)
			h := open(t, oneVM())
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			s := seams(h)
			s.Virtualization = interrupting(s.Virtualization, map[string]func(){at: stop})
			p := of(s)
			r := p.Run(ctx)
			p.Cycle(ctx, r, "crm")
			g.Expect(r.ExitCode()).To(Equal(preflight.ExitNotReady))
			g.Expect(check(r, preflight.SectionCycle, "cycle").Found).To(ContainSubstring("canceled"))
			g.Expect(check(r, preflight.SectionCycle, "clean up").Result).To(Equal(preflight.Passed), "%+v", check(r, preflight.SectionCycle, "clean up"))
			clean(g, t, h)
		})
	}
}

func TestACycleFallsBackWhenTheGuestDoesNotQuiesce(t *testing.T) {
	g := NewWithT(t)
	h := open(t, oneVM())
	h.Faults().FailNext(emulator.Fault{Method: "CreateSnapshot", JobError: 32768, Message: "A writer in the guest failed."})
	p := of(seams(h))
	r := p.Run(t.Context())
	p.Cycle(t.Context(), r, "crm")
	g.Expect(r.ExitCode()).To(Equal(preflight.ExitConcerns))
	g.Expect(check(r, preflight.SectionCycle, "quiesce").Found).To(ContainSubstring("A writer in the guest failed."))
	g.Expect(r.Cycle.Level).To(Equal(hyperv.Crash))
	clean(g, t, h)
}

// I4: a checkpoint that Hyper-V does not let be named is measured, told and removed like any other.
func TestACycleWithoutNamesLeavesNothing(t *testing.T) {
	g := NewWithT(t)
	h := open(t, oneVM())
	g.Expect(h.Faults().SetTrouble("crm", "namesRefused", true)).To(Succeed())
	p := of(seams(h))
	r := p.Run(t.Context())
	p.Cycle(t.Context(), r, "crm")
	g.Expect(r.ExitCode()).To(Equal(preflight.ExitConcerns), "%+v", r.Checks)
	g.Expect(check(r, preflight.SectionCycle, "checkpoint's name").Found).To(ContainSubstring("32775"))
	g.Expect(check(r, preflight.SectionCycle, "clean up").Result).To(Equal(preflight.Passed))
	clean(g, t, h)
}

// What could not be removed is told so that a person finds it.
func TestACycleThatCannotCleanUpNamesItsCheckpoint(t *testing.T) {
	for name, c := range map[string]struct {
		refused bool
		want    string
	}{
		"with its name":    {false, `"hyperkeep preflight-..."`},
		"without its name": {true, "The recovery checkpoint of crm, made at 20"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			h := open(t, oneVM())
			g.Expect(h.Faults().SetTrouble("crm", "namesRefused", c.refused)).To(Succeed())
			h.Faults().FailNext(emulator.Fault{Method: "ConvertToReferencePoint", ReturnValue: 32769})
			h.Faults().FailNext(emulator.Fault{Method: "DestroySnapshot", ReturnValue: 32769, Times: 100})
			p := of(seams(h))
			r := p.Run(t.Context())
			p.Cycle(t.Context(), r, "crm")
			g.Expect(check(r, preflight.SectionCycle, "clean up").Remedy).To(And(ContainSubstring(c.want), ContainSubstring("Remove-VMSnapshot")))
		})
	}
}

func TestACycleRefusesAMachineThatIsNotFree(t *testing.T) {
	for name, c := range map[string]struct {
		vm   string
		want string
	}{
		"unknown":          {"nobody", `0 virtual machines are called "nobody"`},
		"of a dead backup": {"crm", "not released yet"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			h := open(t, oneVM())
			host := hyperv.New(seams(h))
			intent, err := host.PrepareCheckpoint(t.Context(), crmID, hyperv.Crash)
			g.Expect(err).NotTo(HaveOccurred())
			_, err = host.Checkpoint(t.Context(), hyperv.CheckpointRequest{VMID: crmID, Tag: "dead", Level: hyperv.Crash, Intent: intent})
			g.Expect(err).NotTo(HaveOccurred())
			p := of(seams(h))
			r := p.Run(t.Context())
			p.Cycle(t.Context(), r, c.vm)
			g.Expect(r.ExitCode()).To(Equal(preflight.ExitNotReady))
			g.Expect(r.Checks[len(r.Checks)-2:]).To(ContainElement(HaveField("Found", ContainSubstring(c.want))))
			g.Expect(host.Owned(t.Context())).To(HaveLen(1), "what is not its own it leaves alone")
		})
	}
}

// Windows Server 2016 knows no backups that leave the guest's logs alone, so its guest is not asked.
func TestACycleTruncatesNoLogs(t *testing.T) {
	g := NewWithT(t)
	machine := oneVM()
	machine["host.yaml"] = "osVersion: \"2016\"\njobMillis: 1\n"
	h := open(t, machine)
	p := of(seams(h))
	r := p.Run(t.Context())
	p.Cycle(t.Context(), r, "crm")
	g.Expect(r.ExitCode()).NotTo(Equal(preflight.ExitNotReady), "%+v", r.Checks)
	g.Expect(r.Cycle.Level).To(Equal(hyperv.Crash))
	g.Expect(h.LogTruncations()).To(BeZero())
	clean(g, t, h)
}

// write writes to the system disk as its guest does.
func write(t *testing.T, h *emulator.Host, offset int64, length int) {
	t.Helper()
	guest, err := nbd.Dial(filepath.Join(h.Mapping().Root, "crm", "system.vhdx.nbd"))
	if err != nil {
		t.Error(err)
		return
	}
	defer guest.Close()
	if err := guest.WriteDurably([]byte(strings.Repeat("y", length)), offset); err != nil {
		t.Error(err)
	}
}
