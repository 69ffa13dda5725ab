package hyperv_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	"github.com/hyperkeep/hyperkeep/agent/extent"
	"github.com/hyperkeep/hyperkeep/agent/hyperv"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/virtdisk"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

// base takes a first backup: tracking on, a checkpoint, a reference point.
func (l *lab) base() hyperv.ReferencePoint {
	l.Helper()
	for _, d := range l.vm(crmID).Disks {
		l.Expect(l.EnableTracking(l.Context(), d.Path)).To(Succeed())
		l.Expect(l.EnableTracking(l.Context(), d.Path)).To(Succeed(), "again does nothing")
	}
	cp := l.mustCheckpoint("task-base", hyperv.Application)
	disks := l.frozen(cp)
	point := l.convert(cp, disks)
	l.waitReleased(cp, disks)
	return point
}

func (l *lab) convert(cp hyperv.Checkpoint, disks []hyperv.FrozenDisk) hyperv.ReferencePoint {
	l.Helper()
	point, err := patient(l, func() (hyperv.ReferencePoint, error) { return l.Convert(l.Context(), cp, disks) })
	l.Expect(err).NotTo(HaveOccurred())
	return point
}

// AC-05, NW-11, NW-13: what comes back is what was written, and nothing else.
func TestChangesAreWhatTheGuestWroteBetweenTwoCheckpoints(t *testing.T) {
	l := newLab(t, oneVM())
	l.write("crm/data.vhdx", 0, filled(mib, 'a'))
	base := l.base()
	l.Expect(base.Disks).To(HaveLen(2))
	l.write("crm/data.vhdx", 3*mib+100, filled(10, 'b'))
	l.write("crm/data.vhdx", 8*mib, filled(2*mib, 'c'))
	cp := l.mustCheckpoint("task-1", hyperv.Application)
	l.write("crm/data.vhdx", 5*mib, filled(mib, 'd')) // after the checkpoint: not in it
	disks := l.frozen(cp)

	l.Expect(l.changes(disks[0], base.Disks[0].Tracked())).To(BeEmpty())
	changed := l.changes(disks[1], base.Disks[1].Tracked())
	for _, e := range changed {
		l.Expect(e.Offset%512).To(BeZero(), "%v", e)
		l.Expect(e.Length%512).To(BeZero(), "%v", e)
	}
	written := extent.List{{Offset: 3*mib + 100, Length: 10}, {Offset: 8 * mib, Length: 2 * mib}}
	l.Expect(written.Subtract(changed)).To(BeEmpty(), "every change is told")
	l.Expect(changed.Bytes()).To(BeNumerically("<=", 2*mib+256<<10), "little more than the changes is told: %v", changed)
}

func TestChangesStreamOverPages(t *testing.T) {
	l := newLab(t, oneVM())
	base := l.base()
	for i := range int64(diskSize / mib) {
		l.write("crm/data.vhdx", i*mib, filled(4096, 'x'))
	}
	disk := l.frozen(l.mustCheckpoint("task-1", hyperv.Crash))[1]
	inOne := l.changes(disk, base.Disks[1].Tracked())
	l.Expect(inOne).To(HaveLen(diskSize / mib))

	paged := hyperv.New(hyperv.Seams{Disks: pagedDisks{l.host.Disks(), 100_000}}) // pages that end within sectors and changes
	seq, err := paged.Changes(t.Context(), disk, base.Disks[1].Tracked())
	l.Expect(err).NotTo(HaveOccurred())
	for range 2 { // a stream may be read again
		got, err := extent.Collect(seq)
		l.Expect(err).NotTo(HaveOccurred())
		l.Expect(got).To(Equal(inOne))
	}
}

func TestChangesGuardAgainstAHostThatDoesNotGetOn(t *testing.T) {
	l := newLab(t, oneVM())
	base := l.base()
	disk := l.frozen(l.mustCheckpoint("task-1", hyperv.Crash))[1]
	stuck := hyperv.New(hyperv.Seams{Disks: stuckDisks{pagedDisks{l.host.Disks(), diskSize / 2}}})
	seq, err := stuck.Changes(t.Context(), disk, base.Disks[1].Tracked())
	l.Expect(err).NotTo(HaveOccurred(), "the first page is fine")
	_, err = extent.Collect(seq)
	var lost *hyperv.TrackingLostError
	l.Expect(errors.As(err, &lost)).To(BeTrue(), "%v", err)
	l.Expect(lost.Reason).To(Equal(hyperv.TrackingMalformed))
}

// Ranges may overlap, come in any order, and reach beyond what the answer covers and beyond the disk.
func TestChangesPutAnUntidyAnswerInOrder(t *testing.T) {
	h := hyperv.New(hyperv.Seams{Disks: untidyDisks{}})
	disk := hyperv.FrozenDisk{DiskID: "A", VirtualSize: diskSize, SectorSize: 4096, Tracked: true}
	seq, err := h.Changes(t.Context(), disk, hyperv.TrackedDisk{RCTID: "x", DiskID: "A", VirtualSize: diskSize})
	g := NewWithT(t)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(extent.Collect(seq)).To(Equal(extent.List{
		{Offset: 0, Length: 8192}, {Offset: 6 * mib, Length: mib}, {Offset: 10 * mib, Length: 4096}, {Offset: diskSize - mib, Length: mib},
	}))
}

// I3: each way in which an id stops being good makes a full read, with its reason.
func TestTrackingLost(t *testing.T) {
	tests := map[string]struct {
		spoil func(*lab, *hyperv.TrackedDisk, *hyperv.FrozenDisk)
		want  hyperv.TrackingLostReason
	}{
		"an id of another disk": {func(l *lab, b *hyperv.TrackedDisk, _ *hyperv.FrozenDisk) {
			points, err := l.ReferencePoints(t.Context(), crmID)
			l.Expect(err).NotTo(HaveOccurred())
			b.RCTID = points[0].Disks[0].RCTID
		}, hyperv.TrackingIDUnknown},
		"an id that never was":           {func(_ *lab, b *hyperv.TrackedDisk, _ *hyperv.FrozenDisk) { b.RCTID = "rctX:0:0:0:0:0:00000001" }, hyperv.TrackingIDUnknown},
		"no id":                          {func(_ *lab, b *hyperv.TrackedDisk, _ *hyperv.FrozenDisk) { b.RCTID = "" }, hyperv.NoTrackingID},
		"another disk at the same place": {func(_ *lab, _ *hyperv.TrackedDisk, d *hyperv.FrozenDisk) { d.DiskID = "OTHER" }, hyperv.DiskReplaced},
		"a resized disk":                 {func(_ *lab, b *hyperv.TrackedDisk, _ *hyperv.FrozenDisk) { b.VirtualSize -= mib }, hyperv.DiskResized},
		"tracking switched off":          {func(_ *lab, _ *hyperv.TrackedDisk, d *hyperv.FrozenDisk) { d.Tracked = false }, hyperv.TrackingDisabled},
		"tracking files that a crash of the host lost": {func(l *lab, _ *hyperv.TrackedDisk, _ *hyperv.FrozenDisk) {
			l.Expect(l.host.Faults().LoseTracking(`D:\VMs\crm\data.vhdx`)).To(Succeed())
		}, hyperv.TrackingIDUnknown},
		"a dropped reference point": {func(l *lab, _ *hyperv.TrackedDisk, _ *hyperv.FrozenDisk) {
			points, err := l.ReferencePoints(t.Context(), crmID)
			l.Expect(err).NotTo(HaveOccurred())
			l.Expect(l.DropReferencePoint(t.Context(), crmID, points[0].ID)).To(Succeed())
		}, hyperv.TrackingIDUnknown},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, oneVM())
			base := l.base().Disks[1].Tracked()
			disk := l.frozen(l.mustCheckpoint("task-1", hyperv.Crash))[1]
			tt.spoil(l, &base, &disk)
			_, err := l.Changes(t.Context(), disk, base)
			var lost *hyperv.TrackingLostError
			l.Expect(errors.As(err, &lost)).To(BeTrue(), "%v", err)
			l.Expect(err).To(MatchError(hyperv.ErrTrackingLost))
			l.Expect(lost.Reason).To(Equal(tt.want))
		})
	}
}

// I3: whatever a host answers a change query with, at the first page or later, a full read is right. Only a host that does not answer is none.
func TestFailedChangeQuery(t *testing.T) {
	const corrupt = 1392 // ERROR_FILE_CORRUPT
	query := func(code uint32) error { return &virtdisk.Error{Function: "QueryChangesVirtualDisk", Code: code} }
	for name, c := range map[string]struct {
		err  error
		want hyperv.TrackingLostReason // "" for none
	}{
		"an id that is not known":         {query(virtdisk.CodeTrackingIDInvalid), hyperv.TrackingIDUnknown},
		"a format without tracking":       {query(virtdisk.CodeNotSupported), hyperv.TrackingIDUnknown},
		"access is denied":                {query(virtdisk.CodeAccessDenied), hyperv.QueryFailed},
		"a sharing violation":             {query(virtdisk.CodeSharingViolation), hyperv.QueryFailed},
		"an invalid parameter":            {query(virtdisk.CodeInvalidParameter), hyperv.QueryFailed},
		"a corrupt file":                  {query(corrupt), hyperv.QueryFailed},
		"a code that nobody has heard of": {query(0xC03A0123), hyperv.QueryFailed},
		"a file that does not open":       {&virtdisk.Error{Function: "OpenVirtualDisk", Code: virtdisk.CodeFileNotFound}, hyperv.QueryFailed},
		"a host that is gone":             {query(virtdisk.CodeServerUnavailable), ""},
	} {
		for page, from := range map[string]int64{"first page": 0, "later page": diskSize / 2} {
			t.Run(name+", "+page, func(t *testing.T) {
				g := NewWithT(t)
				h := hyperv.New(hyperv.Seams{Disks: failingDisks{untidyDisks{}, from, c.err}})
				disk := hyperv.FrozenDisk{DiskID: "A", VirtualSize: diskSize, Tracked: true}
				changed, err := h.Changes(t.Context(), disk, hyperv.TrackedDisk{RCTID: "x", DiskID: "A", VirtualSize: diskSize})
				if from > 0 {
					g.Expect(err).NotTo(HaveOccurred())
					_, err = extent.Collect(changed)
				}
				g.Expect(errors.Is(err, hyperv.ErrTrackingLost)).To(Equal(c.want != ""), "%v", err)
				if c.want == "" {
					g.Expect(err).To(MatchError(virtdisk.ErrDisconnected))
					return
				}
				lost, _ := errors.AsType[*hyperv.TrackingLostError](err)
				g.Expect(lost.Reason).To(Equal(c.want))
				g.Expect(lost.Detail).To(Equal(c.err.Error()), "it has the code")
			})
		}
	}
	t.Run("a caller that has given up", func(t *testing.T) {
		g := NewWithT(t)
		ctx, stop := context.WithCancel(t.Context())
		stop()
		h := hyperv.New(hyperv.Seams{Disks: failingDisks{untidyDisks{}, 0, context.Canceled}})
		_, err := h.Changes(ctx, hyperv.FrozenDisk{DiskID: "A", VirtualSize: diskSize, Tracked: true}, hyperv.TrackedDisk{RCTID: "x", DiskID: "A", VirtualSize: diskSize})
		g.Expect(err).To(MatchError(context.Canceled))
		g.Expect(errors.Is(err, hyperv.ErrTrackingLost)).To(BeFalse())
	})
}

// AC-04: a format without tracking is reported, and the disk is named.
func TestTrackingThatCannotBeEnabledNamesTheDisk(t *testing.T) {
	l := newLab(t, oneVM())
	err := l.EnableTracking(t.Context(), `D:\VMs\crm\none.vhdx`)
	l.Expect(err).To(MatchError(virtdisk.ErrFileNotFound))
	l.Expect(err).To(MatchError(ContainSubstring(`D:\VMs\crm\none.vhdx`)))
}

// I3, I5, NW-14: wherever the agent dies while converting, it comes to the same reference point, and only one exists.
func TestConvertSurvivesEveryCrash(t *testing.T) {
	var cp hyperv.Checkpoint
	var disks []hyperv.FrozenDisk
	var first hyperv.ReferencePoint
	crashTest{
		files: oneVM,
		prepare: func(l *lab) {
			first = l.base() // another image's, which must not be mistaken for ours
			l.write("crm/data.vhdx", 0, filled(4096, 'a'))
			cp = l.mustCheckpoint("task-1", hyperv.Crash)
			disks = l.frozen(cp)
		},
		operation: func(l *lab) error {
			_, err := l.Convert(t.Context(), cp, disks)
			return err
		},
		check: func(l *lab) {
			point := l.convert(cp, disks)
			l.Expect(l.called("ConvertToReferencePoint")).To(Equal(2), "once for each checkpoint")
			l.Expect(point.ID).NotTo(Equal(first.ID))
			l.Expect(point.Disks).To(HaveLen(2))
			for i, d := range point.Disks {
				l.Expect([]any{d.Key, d.DiskID, d.VirtualSize, d.RCTID}).To(Equal([]any{disks[i].Key, disks[i].DiskID, disks[i].VirtualSize, disks[i].RCTID}))
			}
			points, err := l.ReferencePoints(t.Context(), crmID)
			l.Expect(err).NotTo(HaveOccurred())
			l.Expect(points).To(HaveLen(2))
			l.waitReleased(cp, disks)
		},
	}.run(t)
}

// I3: when ours cannot be told with certainty, there is none, rather than somebody else's.
func TestConvertedCheckpointIsNotConfusedWithAnother(t *testing.T) {
	l := newLab(t, oneVM())
	l.base()
	cp := l.mustCheckpoint("task-1", hyperv.Crash)
	disks := l.frozen(cp)
	l.Expect(l.Release(t.Context(), cp)).To(Succeed()) // released, never converted
	_, err := l.Convert(t.Context(), cp, disks)
	l.Expect(err).To(MatchError(hyperv.ErrReferencePointNotFound))
}

// I4: where tracking began with the conversion and nobody heard its answer, the reference point is no base, and does not stay either.
func TestReferencePointThatNobodyHeardOfIsDropped(t *testing.T) {
	l := newLab(t, oneVM())
	l.trouble("liveFilesHeld", true)
	intent, err := l.PrepareCheckpoint(t.Context(), crmID, hyperv.Crash)
	l.Expect(err).NotTo(HaveOccurred())
	cp, err := l.Checkpoint(t.Context(), hyperv.CheckpointRequest{VMID: crmID, Tag: "task-1", Level: hyperv.Crash, Intent: intent})
	l.Expect(err).NotTo(HaveOccurred())
	disks := l.frozen(cp)
	l.Expect(disks[0].RCTID).To(BeEmpty())
	l.convert(cp, disks)

	_, err = l.Convert(t.Context(), cp, disks)
	l.Expect(err).To(MatchError(hyperv.ErrReferencePointNotFound))
	l.Expect(l.DropConverted(t.Context(), crmID, hyperv.Intent{})).To(Succeed())
	l.Expect(l.ReferencePoints(t.Context(), crmID)).To(HaveLen(1), "nobody looked before")
	l.Expect(l.DropConverted(t.Context(), crmID, intent)).To(Succeed())
	l.Expect(l.ReferencePoints(t.Context(), crmID)).To(BeEmpty())

	l.trouble("liveFilesHeld", false)
	l.base()
	second := l.mustCheckpoint("task-2", hyperv.Crash)
	l.convert(second, l.frozen(second))
	l.Expect(l.DropConverted(t.Context(), crmID, intent)).To(Succeed())
	l.Expect(l.ReferencePoints(t.Context(), crmID)).To(HaveLen(2), "of two, one is somebody else's")
}

func TestConvertedCheckpointThatTwoPointsMatchIsNone(t *testing.T) {
	l := newLab(t, oneVM())
	l.base()
	cp := l.mustCheckpoint("task-1", hyperv.Crash)
	disks := l.frozen(cp)
	l.convert(cp, disks)
	h := hyperv.New(hyperv.Seams{Virtualization: doubledPoints{l.foreignSession()}})
	_, err := h.Convert(t.Context(), cp, disks)
	l.Expect(err).To(MatchError(hyperv.ErrReferencePointNotFound))
	l.Expect(l.convert(cp, disks).Disks).To(HaveLen(2), "one is found")
}

// doubledPoints shows every reference point twice.
type doubledPoints struct{ wmi.Session }

func (d doubledPoints) Query(ctx context.Context, wql string) ([]wmi.Instance, error) {
	found, err := d.Session.Query(ctx, wql)
	if strings.Contains(wql, "Msvm_VirtualSystemReferencePoint") {
		found = append(found, found...)
	}
	return found, err
}

func TestReferencePointsAreLookedUpAndDropped(t *testing.T) {
	l := newLab(t, oneVM())
	point := l.base()
	found, err := l.ReferencePoint(t.Context(), crmID, point.ID)
	l.Expect(err).NotTo(HaveOccurred())
	l.Expect(found.ID).To(Equal(point.ID))
	l.Expect(found.Disks[0].RCTID).To(Equal(point.Disks[0].RCTID))
	l.Expect(found.Disks[0].Place).To(Equal(point.Disks[0].Place))

	_, err = l.ReferencePoint(t.Context(), webID, point.ID)
	l.Expect(err).To(MatchError(hyperv.ErrReferencePointNotFound), "it is this VM's only")
	for range 2 {
		l.Expect(l.DropReferencePoint(t.Context(), crmID, point.ID)).To(Succeed())
	}
	l.Expect(l.called("DestroyReferencePoint")).To(Equal(1))
	_, err = l.ReferencePoint(t.Context(), crmID, point.ID)
	l.Expect(err).To(MatchError(hyperv.ErrReferencePointNotFound))
}

func TestBusyHostIsToldWhenConverting(t *testing.T) {
	l := newLab(t, oneVM())
	cp := l.mustCheckpoint("task-1", hyperv.Crash)
	stop := l.refuse("ConvertToReferencePoint", 32775)
	_, err := l.Convert(t.Context(), cp, l.frozen(cp))
	l.Expect(err).To(MatchError(hyperv.ErrBusy))
	l.Expect(err).To(MatchError(wmi.ErrInvalidState))
	stop()
	l.Expect(l.convert(cp, l.frozen(cp)).Disks).To(HaveLen(2))
}
