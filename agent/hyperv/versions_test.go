package hyperv_test

import (
	"testing"

	. "github.com/onsi/gomega"

	"github.com/hyperkeep/hyperkeep/agent/hyperv"
)

// Windows Server 2016 lacks GuestBackupType, and a call that names it fails.
func TestCheckpointOnWindowsServer2016(t *testing.T) {
	l := newLab(t, oneVM().on("osVersion: \"2016\"\njobMillis: 1\n"))
	_, err := l.Checkpoint(t.Context(), hyperv.CheckpointRequest{VMID: crmID, Tag: "copy", Level: hyperv.Application, CopyOnly: true})
	l.Expect(err).To(MatchError(hyperv.ErrNoCopy))
	l.Expect(l.host.LogTruncations()).To(BeZero())
	cp := l.mustCheckpoint("task-1", hyperv.Application)
	l.Expect(l.frozen(cp)).NotTo(BeEmpty())
}
