package runner

import (
	"fmt"

	"github.com/hyperkeep/hyperkeep/agent/hyperv"
	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
)

// copyOnly tells whether the guest's applications are to leave their logs alone. Where the policy leaves it open they are if the host can.
func (r *backupRun) copyOnly() bool {
	if wanted := r.spec.Consistency.GuestBackupType; wanted != "" {
		return wanted == v1alpha1.GuestBackupCopy
	}
	return r.method.name == v1alpha1.MethodVSS || hyperv.CopiesGuests(r.info)
}

// guardLogs refuses to ask the guest for a checkpoint that could truncate logs which the policy wants left alone, and warns of one that may where the policy
// leaves it open.
func (r *backupRun) guardLogs() error {
	if r.vm.State != hyperv.Running || hyperv.CopiesGuests(r.info) {
		return nil
	}
	switch r.spec.Consistency.GuestBackupType {
	case v1alpha1.GuestBackupCopy:
		return fmt.Errorf("%w: that came after Windows Server 2016", hyperv.ErrNoCopy)
	case "":
		r.report.Warn("GuestLogsTruncated", "The guest's applications may have truncated their logs, which Windows Server 2016 cannot keep them from. "+
			"Set consistency.guestBackupType to Full if they should, to Copy if they must not.")
	}
	return nil
}
