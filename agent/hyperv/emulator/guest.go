package emulator

import (
	"context"
	"fmt"
)

// quiesce asks the guest for a moment at which its applications are consistent, if the checkpoint is to be so. Unless it is for a copy, they then truncate
// their logs: at once, whatever becomes of the backup.
func (v *vm) quiesce(ctx context.Context, consistency int64, copyOnly bool) error {
	v.host.mu.Lock()
	c := v.config
	v.host.mu.Unlock()
	switch {
	case consistency != consistencyApplication:
		return nil
	case !modernVM(c.Version):
		return failed(c.Name, "The configuration version "+c.Version+" has no production checkpoints.")
	case c.Replica.onReplicaSide():
		return failed(c.Name, "A replica virtual machine can only have a crash-consistent checkpoint.")
	case c.State == stateOff || c.State == stateSaved: // the guest holds nothing back that it could flush
		return nil
	case c.State == statePaused:
		return failed(c.Name, "The virtual machine is paused, so the guest cannot take part.")
	case c.IntegrationServices == servicesDisabled:
		return failed(c.Name, "The Backup (volume checkpoint) integration service is disabled.")
	case c.IntegrationServices == servicesIncompatible:
		return failed(c.Name, "The integration services in the guest are of an incompatible version.")
	case c.IntegrationServices == servicesMissing, c.IntegrationServices == servicesLost:
		return failed(c.Name, "The integration services in the guest cannot be contacted.")
	}
	v.host.mu.Lock()
	v.host.quiesced++
	v.host.mu.Unlock()
	if c.IntegrationServices == servicesHanging {
		<-ctx.Done()
		return ctx.Err()
	}
	wait(ctx, v.host.config.jobTime())
	if c.IntegrationServices == servicesFailing {
		return failed(c.Name, "The VSS writers in the guest failed to freeze: VSS_E_WRITERERROR_TIMEOUT (0x800423F2).")
	}
	if c.IntegrationServices == servicesRefusing {
		return failed(c.Name, "The VSS writers in the guest refused: VSS_E_WRITERERROR_NONRETRYABLE (0x800423F4).")
	}
	if ctx.Err() == nil && !copyOnly {
		v.host.mu.Lock()
		v.host.truncated++
		v.host.mu.Unlock()
	}
	return ctx.Err()
}

func failed(name, reason string) error {
	return &jobError{codeFailed, fmt.Sprintf("Production checkpoints cannot be created for '%s'. %s", name, reason)}
}

// checkSnapshot refuses a checkpoint that cannot be made. The caller holds op.
func (v *vm) checkSnapshot(r snapshotRequest) error {
	name := v.config.Name
	if r.kind != typeRecoverySnapshot && v.config.Checkpoints == checkpointsDisabled {
		return &jobError{codeInvalidState, fmt.Sprintf("Checkpoints have been disabled for '%s'.", name)}
	}
	if r.skip {
		return nil
	}
	for _, d := range v.config.Disks {
		switch {
		case d.PassThrough != nil:
			return &jobError{codeFailed, fmt.Sprintf("Cannot take a checkpoint of '%s' because it has a physical disk configured at %s.", name, d.Controller)}
		case d.Shared:
			return &jobError{codeFailed, fmt.Sprintf("Cannot take a checkpoint of '%s' because its disk %s is shared.", name, d.Path)}
		}
	}
	return nil
}
