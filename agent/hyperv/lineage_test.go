package hyperv_test

import (
	"errors"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"github.com/hyperkeep/hyperkeep/agent/extent"
	"github.com/hyperkeep/hyperkeep/agent/hyperv"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

// remove deletes a checkpoint of the VM's user, and waits until its files are merged.
func (l *lab) remove(name string) {
	l.Helper()
	files := len(l.listing("crm"))
	l.on("Msvm_VirtualSystemSnapshotService", "DestroySnapshot", wmi.Params{"AffectedSnapshot": l.checkpointOf(crmID, name).Path})
	l.Eventually(func() int { return len(l.listing("crm")) }).WithTimeout(10 * time.Second).Should(BeNumerically("<", files))
}

func (l *lab) applyAndStart(name string) {
	l.Helper()
	l.apply(crmID, name)
	l.turn(2)
}

// I3, reference 2.6 (b): a disk that was taken back to a checkpoint is read in full, even of a host that goes on answering its ids. Checkpoints that are only made
// or deleted cost no increment.
func TestIncrementsStandOnTheirOwnBranch(t *testing.T) {
	for name, c := range map[string]struct {
		before, after func(*lab)
		lost          bool
	}{
		"nothing happened":               {before: func(*lab) {}, after: func(*lab) {}},
		"a checkpoint was made":          {before: func(*lab) {}, after: func(l *lab) { l.grow("a") }},
		"another checkpoint was made":    {before: func(l *lab) { l.grow("a") }, after: func(l *lab) { l.grow("b") }},
		"the latest one was deleted":     {before: func(l *lab) { l.grow("a") }, after: func(l *lab) { l.remove("a") }},
		"the one before was deleted":     {before: func(l *lab) { l.grow("a"); l.grow("b") }, after: func(l *lab) { l.remove("a") }},
		"both were deleted":              {before: func(l *lab) { l.grow("a"); l.grow("b") }, after: func(l *lab) { l.remove("b"); l.remove("a") }},
		"one made since was applied":     {before: func(*lab) {}, after: func(l *lab) { l.grow("a"); l.applyAndStart("a") }},
		"the latest one was applied":     {before: func(l *lab) { l.grow("a") }, after: func(l *lab) { l.applyAndStart("a") }, lost: true},
		"it was applied once more":       {before: func(l *lab) { l.grow("a"); l.applyAndStart("a") }, after: func(l *lab) { l.applyAndStart("a") }, lost: true},
		"the one before was applied":     {before: func(l *lab) { l.grow("a"); l.grow("b") }, after: func(l *lab) { l.applyAndStart("a") }, lost: true},
		"another branch was gone on":     {before: func(l *lab) { l.grow("a"); l.grow("b"); l.applyAndStart("a") }, after: func(l *lab) { l.applyAndStart("b") }, lost: true},
		"the branch was deleted, too":    {before: func(l *lab) { l.grow("a"); l.grow("b") }, after: func(l *lab) { l.applyAndStart("a"); l.remove("b") }, lost: true},
		"a new one covers what happened": {before: func(l *lab) { l.grow("a") }, after: func(l *lab) { l.applyAndStart("a"); l.grow("c") }, lost: true},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, oneVM())
			l.trouble("trackingKept", true)
			c.before(l)
			base := l.base().Disks[0].Tracked()
			c.after(l)
			l.write("crm/system.vhdx", 5*mib, filled(4096, 'z'))
			disk := l.frozen(l.mustCheckpoint("task-1", hyperv.Crash))[0]
			if c.lost {
				_, err := l.Changes(t.Context(), disk, base)
				lost, _ := errors.AsType[*hyperv.TrackingLostError](err)
				l.Expect(lost).To(HaveValue(HaveField("Reason", hyperv.AnotherFile)), "%v", err)
				base.Lineage = hyperv.Lineage{} // of an agent that did not record it: the host has the last word
			}
			changed := l.changes(disk, base)
			l.Expect(extent.List{{Offset: 5 * mib, Length: 4096}}.Subtract(changed)).To(BeEmpty())
		})
	}
}
