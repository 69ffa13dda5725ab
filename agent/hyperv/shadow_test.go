package hyperv_test

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"github.com/hyperkeep/hyperkeep/agent/hyperv"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/emulator"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/vss"
)

func TestVSSServiceIsStarted(t *testing.T) {
	l := newLab(t, oneVM())
	l.Expect(l.StartVSS(t.Context())).To(Succeed(), "DR-04: it is stopped")
	l.Expect(l.StartVSS(t.Context())).To(Succeed(), "DR-03: it runs")
	l.host.Faults().DisableService("VSS")
	l.Expect(l.StartVSS(t.Context())).To(MatchError(hyperv.ErrVSSUnavailable), "DR-05")

	failing := newLab(t, oneVM())
	failing.host.Faults().FailNext(emulator.Fault{Method: "StartService", ReturnValue: 8})
	failing.Expect(failing.StartVSS(t.Context())).To(MatchError(hyperv.ErrVSSUnavailable), "DR-05")
}

// shadow is a shadow copy of the VM, in the way that suits its state without the guest's part, or with it.
func (l *lab) shadow(application, save bool) (*hyperv.Shadow, hyperv.ShadowIntent, hyperv.ShadowApproach) {
	l.Helper()
	s, err := l.OpenShadow(l.Context(), l.vm(crmID), hyperv.ShadowOptions{})
	l.Expect(err).NotTo(HaveOccurred())
	l.Cleanup(func() { l.Expect(s.Close()).To(Succeed()) })
	info, err := l.Info(l.Context())
	l.Expect(err).NotTo(HaveOccurred())
	approach := hyperv.CrashShadow(info, l.vm(crmID), s.Mode(), save)
	if application {
		approach, err = hyperv.ApplicationShadow(l.vm(crmID), s.Mode())
		l.Expect(err).NotTo(HaveOccurred())
	}
	intent, err := s.Begin(l.Context(), approach)
	l.Expect(err).NotTo(HaveOccurred())
	return s, intent, approach
}

func (l *lab) contents(s *hyperv.Shadow) hyperv.Contents {
	l.Helper()
	c, err := s.Contents(l.Context())
	l.Expect(err).NotTo(HaveOccurred())
	return c
}

func TestShadowCopyIsWhatTheDisksWere(t *testing.T) {
	for name, application := range map[string]bool{"the guest quiesces": true, "the guest is not asked (NW-05)": false} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, oneVM())
			l.write("crm/system.vhdx", 0, filled(mib, 'a'))
			s, _, approach := l.shadow(application, false)
			taken, err := s.Snapshot(t.Context())
			l.Expect(err).NotTo(HaveOccurred())
			l.write("crm/system.vhdx", 0, filled(mib, 'b'))
			c := l.contents(s)
			l.Expect(c.Disks).To(HaveLen(2))
			l.Expect(c.Disks[0].LivePath).To(Equal(`D:\VMs\crm\system.vhdx`))
			l.Expect(l.read(c.Disks[0], mib)).To(Equal(filled(mib, 'a')), "NV-09")
			l.Expect(taken.Interruption).To(BeZero(), "EZ-10, EZ-11: no interruption")
			l.Expect(taken.Saved).To(BeFalse())
			l.Expect(time.Since(taken.Time)).To(BeNumerically("<", time.Minute))
			l.Expect(l.vm(crmID).State).To(Equal(hyperv.Running))
			wantLevel, wantQuiesced := hyperv.Crash, 0
			if application {
				wantLevel, wantQuiesced = hyperv.Application, 1
			}
			l.Expect(approach.Level).To(Equal(wantLevel))
			l.Expect(l.host.QuiesceCalls()).To(Equal(wantQuiesced))
			l.Expect(s.Complete(t.Context(), true)).To(Succeed())
			l.Expect(l.host.ShadowCopies()).To(BeZero(), "NV-11")
			l.Eventually(func() []string { return l.listing("crm") }, 10*time.Second, 5*time.Millisecond).
				Should(ConsistOf("vm.yaml", "system.vhdx", "data.vhdx"), "the automatic checkpoint is merged")
		})
	}
}

const legacyHost = "osVersion: \"2012\"\njobMillis: 60\n"

func TestSavedStateEndsBeforeTheTransfer(t *testing.T) {
	for state, want := range map[string]hyperv.State{"running": hyperv.Running, "paused": hyperv.Paused} {
		t.Run(state, func(t *testing.T) {
			l := newLab(t, oneVM().with("state: running", "state: "+state+"\nintegrationServices: missing").on(legacyHost))
			s, intent, approach := l.shadow(false, false)
			l.Expect(approach).To(Equal(hyperv.ShadowApproach{Level: hyperv.Crash}), "NV-04, EZ-13: a host before 2012 R2 saves")
			l.Expect(intent.State).To(Equal(want))
			taken, err := s.Snapshot(t.Context())
			l.Expect(err).NotTo(HaveOccurred())
			l.Expect(l.vm(crmID).State).To(Equal(want), "NV-06, NV-08")
			l.Expect(taken.Saved).To(BeTrue(), "EZ-06")
			if want == hyperv.Running {
				l.Expect(taken.Interruption).To(BeNumerically(">", 0), "EZ-13")
			}
			l.Expect(l.contents(s).Files).To(ContainElement(HaveField("Size", BeNumerically(">", 32<<10))), "EZ-06: the memory")
		})
	}
}

func TestStatesThatAreNoLongerChanged(t *testing.T) {
	for state, want := range map[string]hyperv.State{`"off"`: hyperv.Off, "saved": hyperv.Saved, "paused": hyperv.Paused} {
		t.Run(state, func(t *testing.T) {
			l := newLab(t, oneVM().with("state: running", "state: "+state))
			s, _, _ := l.shadow(false, false)
			taken, err := s.Snapshot(t.Context())
			l.Expect(err).NotTo(HaveOccurred())
			l.Expect(taken.Saved).To(Equal(want == hyperv.Saved))
			l.Expect(l.vm(crmID).State).To(Equal(want), "NV-08")
			l.Expect(l.contents(s).Disks).To(HaveLen(2))
		})
	}
}

func TestVMThatTheWriterLeavesSavedIsResumed(t *testing.T) {
	l := newLab(t, oneVM().with("state: running", "state: running\nintegrationServices: missing").on(legacyHost))
	l.host.Faults().FailNext(emulator.Fault{Method: "HyperVWriter.Thaw", ReturnValue: uint32(vss.WriterNonRetryable)})
	s, _, _ := l.shadow(false, false)
	_, err := s.Snapshot(t.Context())
	l.Expect(err).To(MatchError(vss.WriterNonRetryable))
	l.Expect(l.vm(crmID).State).To(Equal(hyperv.Running), "NV-07: the snapshot failed")
}

func TestJournaledIntentResumesWhatAKilledAgentLeft(t *testing.T) {
	l := newLab(t, oneVM())
	save := func() { l.requestState(6) }
	intent := hyperv.ShadowIntent{SetID: "99999999-9999-4999-8999-999999999999", State: hyperv.Running}
	save()
	l.Expect(l.vm(crmID).State).To(Equal(hyperv.Saved))
	for range 2 {
		l.Expect(l.SettleShadow(t.Context(), crmID, intent)).To(Succeed())
		l.Expect(l.vm(crmID).State).To(Equal(hyperv.Running), "NV-07: the agent died between save and resume")
		l.Expect(l.DropShadow(t.Context(), intent.SetID)).To(Succeed())
	}
	intent.Settled = true
	save()
	l.Expect(l.SettleShadow(t.Context(), crmID, intent)).To(Succeed())
	l.Expect(l.vm(crmID).State).To(Equal(hyperv.Saved), "its user saved it after the backup had let go")
	l.Expect(l.SettleShadow(t.Context(), webID, hyperv.ShadowIntent{State: hyperv.Running})).To(Succeed(), "a VM that is gone")
}

func TestTreeOfCheckpointsIsInTheShadowCopy(t *testing.T) {
	l := newLab(t, oneVM())
	l.write("crm/system.vhdx", 0, filled(mib, 'a'))
	l.snapshot(2)
	l.write("crm/system.vhdx", 0, filled(mib, 'b'))
	s, _, _ := l.shadow(true, false)
	_, err := s.Snapshot(t.Context())
	l.Expect(err).NotTo(HaveOccurred())
	c := l.contents(s)
	l.Expect(c.Disks[0].Chain).To(HaveLen(2))
	l.Expect(l.read(c.Disks[0], mib)).To(Equal(filled(mib, 'b')))
	endings := map[string]int{}
	for _, f := range c.Files {
		endings[f.Name[strings.LastIndexByte(f.Name, '.'):]]++
	}
	l.Expect(endings).To(HaveKeyWithValue(".avhdx", 2), "EZ-07: what was written since the checkpoint")
	l.Expect(endings).To(HaveKeyWithValue(".vhdx", 2), "the disks that it froze")
	l.Expect(endings).To(HaveKeyWithValue(".vmcx", 2), "the configuration of the machine and of the checkpoint")
}

func TestShadowIsRefused(t *testing.T) {
	t.Run("while another product holds a recovery checkpoint", func(t *testing.T) {
		l := newLab(t, oneVM())
		l.snapshot(32768)
		s, err := l.OpenShadow(t.Context(), l.vm(crmID), hyperv.ShadowOptions{})
		l.Expect(err).NotTo(HaveOccurred())
		defer s.Close()
		_, err = s.Begin(t.Context(), hyperv.ShadowApproach{})
		l.Expect(err).To(MatchError(hyperv.ErrForeignCheckpoint))
	})
	t.Run("for a VM that the writer does not list, as seen on Server 2025", func(t *testing.T) {
		l := newLab(t, oneVM().with("state: running", "state: running\nhiddenFromWriter: true"))
		_, err := l.OpenShadow(t.Context(), l.vm(crmID), hyperv.ShadowOptions{})
		l.Expect(err).To(MatchError(hyperv.ErrNotInWriter))
	})
	t.Run("when the guest never answers, within its time", func(t *testing.T) {
		l := newLab(t, oneVM().with("state: running", "state: running\nintegrationServices: hanging"))
		s, _, _ := l.shadow(true, false)
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		_, err := s.Snapshot(ctx)
		l.Expect(err).To(MatchError(hyperv.ErrQuiesce))
	})
	t.Run("when the guest's writers fail", func(t *testing.T) {
		l := newLab(t, oneVM().with("state: running", "state: running\nintegrationServices: failing"))
		s, _, _ := l.shadow(true, false)
		_, err := s.Snapshot(t.Context())
		l.Expect(err).To(MatchError(hyperv.ErrQuiesce))
	})
}

// attach gives the running VM a third disk.
func (l *lab) attach() {
	l.Helper()
	l.makeDisk(filepath.Join(l.dir, "crm", "more.vhdx"), 0)
	l.writeFile("crm/vm.yaml", strings.Replace(crm, "- path: data.vhdx\n", "- path: data.vhdx\n- path: more.vhdx\n", 1))
	l.Eventually(func() int { return len(l.vm(crmID).Disks) }, "10s", "5ms").Should(Equal(3))
}

func TestShadowIsOfTheVMAfterTheWaitForItsTurn(t *testing.T) {
	open := func(l *lab) *hyperv.Shadow {
		s, err := l.OpenShadow(t.Context(), l.vm(crmID), hyperv.ShadowOptions{})
		l.Expect(err).NotTo(HaveOccurred())
		t.Cleanup(func() { l.Expect(s.Close()).To(Succeed()) })
		return s
	}
	t.Run("a disk was attached", func(t *testing.T) {
		l := newLab(t, oneVM())
		s := open(l)
		l.attach()
		_, err := s.Begin(t.Context(), hyperv.ShadowApproach{Uninvolved: true, Level: hyperv.Crash})
		l.Expect(err).NotTo(HaveOccurred())
		_, err = s.Snapshot(t.Context())
		l.Expect(err).NotTo(HaveOccurred())
		l.Expect(l.contents(s).Disks).To(HaveLen(3))
	})
	t.Run("another product made a recovery checkpoint", func(t *testing.T) {
		l := newLab(t, oneVM())
		s := open(l)
		l.snapshot(32768)
		_, err := s.Begin(t.Context(), hyperv.ShadowApproach{Uninvolved: true, Level: hyperv.Crash})
		l.Expect(err).To(MatchError(hyperv.ErrForeignCheckpoint))
	})
	for name, change := range map[string]func(*lab){
		"it was switched off":       func(l *lab) { l.requestState(3) },
		"its guest stopped to help": func(l *lab) { l.writeFile("crm/vm.yaml", crm+"integrationServices: missing\n") },
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, oneVM())
			s := open(l)
			change(l)
			_, err := s.Begin(t.Context(), hyperv.ShadowApproach{Level: hyperv.Application})
			l.Expect(err).To(MatchError(hyperv.ErrBusy), "the approach was chosen for what it was")
			l.Expect(l.host.ShadowCopies()).To(BeZero())
		})
	}
}

func TestShadowOfAVMThatChangesDuringTheSnapshotIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		change      func(*lab)
		application bool
		want        error
	}{
		"another product makes a recovery checkpoint":           {func(l *lab) { l.snapshot(32768) }, false, hyperv.ErrBusy},
		"another product does, and the writer cannot then":      {func(l *lab) { l.snapshot(32768) }, true, vss.WriterRetryable},
		"its user makes a checkpoint":                           {func(l *lab) { l.snapshot(2) }, false, hyperv.ErrBusy},
		"its user does, and the writer makes another on top":    {func(l *lab) { l.snapshot(2) }, true, hyperv.ErrBusy},
		"a disk is attached":                                    {(*lab).attach, false, hyperv.ErrBusy},
		"a disk is attached, and the writer makes a checkpoint": {(*lab).attach, true, hyperv.ErrBusy},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, oneVM())
			s, _, _ := l.shadow(c.application, false)
			c.change(l)
			_, err := s.Snapshot(t.Context())
			l.Expect(err).To(MatchError(c.want))
		})
	}
}

func TestMergeOfTheWritersOwnCheckpointIsNoChange(t *testing.T) {
	l := newLab(t, oneVM())
	l.host.Faults().HoldMerges()
	defer l.host.Faults().ReleaseMerges()
	s, _, _ := l.shadow(true, false)
	taken, err := s.Snapshot(t.Context())
	l.Expect(err).NotTo(HaveOccurred())
	l.Expect(taken.Level).To(Equal(hyperv.Application))
	l.Expect(l.vm(crmID).Operation).To(Equal(hyperv.MergingDisks))
}

func TestVolumeThatIsMountedInAFolderIsInTheShadowCopy(t *testing.T) {
	const disk = ".volumes/D_Archive/crm/data.vhdx"
	l := newLab(t, machines{
		"host.yaml": "mounts: {'D:\\Archive': {}}\njobMillis: 1\n", "crm/vm.yaml": strings.Replace(crm, "data.vhdx", `D:\Archive\crm\data.vhdx`, 1),
		"crm/system.vhdx": "", disk: "",
	})
	l.write("crm/data.vhdx", 0, filled(mib, 'a'))
	s, _, _ := l.shadow(false, false)
	_, err := s.Snapshot(t.Context())
	l.Expect(err).NotTo(HaveOccurred())
	l.Expect(l.host.ShadowCopies()).To(Equal(2))
	l.write("crm/data.vhdx", 0, filled(mib, 'b'))
	c := l.contents(s)
	l.Expect(c.Disks).To(HaveLen(2))
	l.Expect(c.Disks[1].LivePath).To(Equal(`D:\Archive\crm\data.vhdx`))
	l.Expect(l.read(c.Disks[1], mib)).To(Equal(filled(mib, 'a')))
}

func TestShadowCopiesAreMadeByTheProviderThatIsNamed(t *testing.T) {
	l := newLab(t, oneVM())
	for provider, want := range map[string]error{
		"B5946137-7B9F-4925-AF80-51ABD60B20D5": nil, "b5946137-7b9f-4925-af80-51abd60b20d5": nil, webID: vss.ProviderNotRegistered,
	} {
		s, err := l.OpenShadow(t.Context(), l.vm(crmID), hyperv.ShadowOptions{Provider: provider})
		l.Expect(err).NotTo(HaveOccurred())
		_, err = s.Begin(t.Context(), hyperv.ShadowApproach{Uninvolved: true})
		if want == nil {
			l.Expect(err).NotTo(HaveOccurred())
		} else {
			l.Expect(err).To(MatchError(want), "DR-11")
		}
		l.Expect(s.Close()).To(Succeed())
	}
}

func TestSnapshotSetsAreMadeOneAfterTheOther(t *testing.T) {
	l := newLab(t, oneVM())
	l.host.Faults().FailNext(emulator.Fault{Method: "StartSnapshotSet", ReturnValue: uint32(vss.SnapshotSetInProgress), Times: 2})
	s, _, _ := l.shadow(true, false) // waits for another product's set
	other, err := l.OpenShadow(t.Context(), l.vm(crmID), hyperv.ShadowOptions{})
	l.Expect(err).NotTo(HaveOccurred())
	defer other.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err = other.Begin(ctx, hyperv.ShadowApproach{Uninvolved: true})
	l.Expect(err).To(MatchError(context.DeadlineExceeded), "DR-10: one at a time on a host")
	_, err = s.Snapshot(t.Context())
	l.Expect(err).NotTo(HaveOccurred())
	l.Eventually(func() hyperv.Operation { return l.vm(crmID).Operation }, 10*time.Second, 2*time.Millisecond).
		Should(BeZero(), "what the first set froze is merged")
	_, err = other.Begin(t.Context(), hyperv.ShadowApproach{Uninvolved: true})
	l.Expect(err).NotTo(HaveOccurred())
}

func TestApproachOfAShadowCopy(t *testing.T) {
	now, old := hyperv.HostInfo{Build: 20348}, hyperv.HostInfo{Build: 9200}
	running := hyperv.VM{State: hyperv.Running, BackupService: hyperv.BackupServiceOK, CheckpointType: hyperv.CheckpointsProduction}
	mute := running
	mute.BackupService = hyperv.BackupServiceMissing
	paused := hyperv.VM{State: hyperv.Paused}
	g := NewWithT(t)
	for name, c := range map[string]struct {
		host hyperv.HostInfo
		vm   hyperv.VM
		mode vss.Mode
		save bool
		want hyperv.ShadowApproach
	}{
		"no integration services, 2012 R2 or later (EZ-11, NV-14)":     {now, mute, vss.OfflineMode, false, hyperv.ShadowApproach{Uninvolved: true, Level: hyperv.Crash}},
		"the same, and the policy allows the saved state":              {now, mute, vss.OfflineMode, true, hyperv.ShadowApproach{Level: hyperv.Crash}},
		"no integration services before 2012 R2 (NV-04, NV-14, EZ-13)": {old, mute, vss.OfflineMode, false, hyperv.ShadowApproach{Level: hyperv.Crash}},
		"a guest that could quiesce is not asked (NW-05)":              {old, running, vss.Online, true, hyperv.ShadowApproach{Uninvolved: true, Level: hyperv.Crash}},
		"a paused one is left alone":                                   {now, paused, vss.OfflineMode, false, hyperv.ShadowApproach{Uninvolved: true, Level: hyperv.Crash}},
		"words that we do not understand are no permission to save":    {now, mute, vss.UnknownMode, true, hyperv.ShadowApproach{Uninvolved: true, Level: hyperv.Crash}},
		"one that is off": {now, hyperv.VM{State: hyperv.Off}, vss.OfflineMode, false, hyperv.ShadowApproach{Level: hyperv.Offline}},
	} {
		g.Expect(hyperv.CrashShadow(c.host, c.vm, c.mode, c.save)).To(Equal(c.want), name)
	}
	for name, c := range map[string]struct {
		vm   hyperv.VM
		mode vss.Mode
		want hyperv.Level
		err  error
	}{
		"online (EZ-10)": {running, vss.Online, hyperv.Application, nil},
		"a localized caption, and a guest that can":   {running, vss.UnknownMode, hyperv.Application, nil},
		"a localized caption, and a guest that can't": {mute, vss.UnknownMode, "", hyperv.ErrQuiesce},
		"offline though all looks well":               {running, vss.OfflineMode, "", hyperv.ErrQuiesce},
		"no integration services (DR-13)":             {mute, vss.OfflineMode, "", hyperv.ErrQuiesce},
		"paused (NW-09)":                              {paused, vss.OfflineMode, "", hyperv.ErrVMState},
		"off":                                         {hyperv.VM{State: hyperv.Off}, vss.OfflineMode, hyperv.Offline, nil},
	} {
		approach, err := hyperv.ApplicationShadow(c.vm, c.mode)
		if c.err != nil {
			g.Expect(err).To(MatchError(c.err), name)
			continue
		}
		g.Expect(err).NotTo(HaveOccurred(), name)
		g.Expect(approach).To(Equal(hyperv.ShadowApproach{Level: c.want}), name)
	}
}
