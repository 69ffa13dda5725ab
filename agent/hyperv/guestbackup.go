package hyperv

import (
	"context"
	"fmt"
)

// Values of Msvm_VirtualSystemSnapshotSettingData.GuestBackupType.
const (
	guestBackupFull = 1
	guestBackupCopy = 2
)

// firstBuildWithBackupType is version 1703: Windows Server 2016 itself lacks the property, and there every backup is a full one.
const firstBuildWithBackupType = 15063

// CopiesGuests tells whether the host can take an application-consistent checkpoint of a running VM that leaves the logs of the guest's applications alone.
func CopiesGuests(host HostInfo) bool { return host.Build >= firstBuildWithBackupType }

// setBackupType tells the guest's applications whether the backup is a copy that leaves their logs alone. ErrNoCopy.
func (h *Host) setBackupType(ctx context.Context, settings map[string]any, copyOnly bool) error {
	build, err := h.build(ctx)
	if err != nil {
		return err
	}
	switch {
	case build >= firstBuildWithBackupType && copyOnly:
		settings["GuestBackupType"] = int64(guestBackupCopy)
	case build >= firstBuildWithBackupType:
		settings["GuestBackupType"] = int64(guestBackupFull)
	case copyOnly && settings["ConsistencyLevel"] == int64(consistencyApplication):
		return fmt.Errorf("%w: that came after Windows Server 2016, and this is build %d", ErrNoCopy, build)
	}
	return nil
}
