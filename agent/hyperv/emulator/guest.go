package emulator

import (
	"context"
	"fmt"
)

// quiesce asks the guest for a moment at which its applications are consistent, if the checkpoint is to be so.
func (v *vm) quiesce(ctx context.Context, consistency int64) error {
	v.host.mu.Lock()
	state, services, replica, name := v.config.State, v.config.IntegrationServices, v.config.Replica, v.config.Name
	asks := consistency == consistencyApplication && (state == stateRunning || state == statePaused)
	if asks && state == stateRunning && services != servicesDisabled && services != servicesMissing {
		v.host.quiesced++
	}
	v.host.mu.Unlock()
	switch {
	case consistency == consistencyApplication && (replica == replicaReplica || replica == replicaTest):
		return failed(name, "A replica virtual machine can only have a crash-consistent checkpoint.")
	case !asks: // nothing of a VM that is off or saved is in memory that VSS could flush
		return nil
	case state == statePaused:
		return failed(name, "The virtual machine is paused, so the guest cannot take part.")
	}
	switch services {
	case servicesDisabled:
		return failed(name, "The Backup (volume checkpoint) integration service is disabled.")
	case servicesMissing:
		return failed(name, "The integration services in the guest cannot be contacted.")
	case servicesFailing:
		wait(ctx, v.host.config.jobTime())
		return failed(name, "The VSS writers in the guest failed to freeze: VSS_E_WRITERERROR_TIMEOUT (0x800423F2).")
	case servicesHanging:
		<-ctx.Done()
		return ctx.Err()
	}
	wait(ctx, v.host.config.jobTime())
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
