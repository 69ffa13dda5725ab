package hyperv

import (
	"fmt"
	"strings"
)

// guestConcerns says what will keep a checkpoint from being application consistent.
func guestConcerns(vm VM) []Concern {
	var out []Concern
	add := func(reason ConcernReason, message string) {
		out = append(out, Concern{Reason: reason, Message: message})
	}
	if vm.State == Saved || vm.State == Paused {
		add(NotQuiescibleNow, fmt.Sprintf("The virtual machine is %s: its backups are crash consistent at best, and refused where application consistency is demanded. Start or resume it.",
			strings.ToLower(string(vm.State))))
	}
	switch vm.BackupService {
	case BackupServiceDisabled:
		add(BackupServiceIsDisabled, `The integration service "Backup (volume checkpoint)" is disabled. Enable it in the virtual machine's settings for application-consistent backups.`)
	case BackupServiceMissing:
		add(BackupServiceIsMissing, "The guest's backup integration service does not answer. Install or start the integration services for application-consistent backups.")
	case BackupServiceFailing:
		add(BackupServiceIsFailing, "The guest's backup integration service fails. Update the integration services or restart the guest for application-consistent backups.")
	}
	if vm.Replica.onReplicaSide() {
		add(ReplicaSide, "This is the replica of a virtual machine, so its backups are at best crash consistent. Back up the primary for application consistency.")
	}
	if vm.Replica != ReplicaNone && vm.Replication.Health == replicationCritical {
		add(ReplicationFailing, "Hyper-V Replica reports a critical state. A checkpoint may be refused until it is resumed or resynchronized.")
	}
	switch vm.CheckpointType {
	case CheckpointsDisabled, CheckpointsStandard:
		add(ProductionCheckpointsOff, "Production checkpoints are off in the virtual machine's settings. Switch them on for application-consistent backups.")
	}
	return out
}

// replicationCritical is the ReplicationHealth of a replication that does not go on.
const replicationCritical = 3

// deviceConcerns says what the VM has that no checkpoint holds, or that checkpoints do not get along with.
func deviceConcerns(vm VM) []Concern {
	var out []Concern
	if vm.Traits.FibreChannel > 0 {
		out = append(out, Concern{Reason: FibreChannelDisks,
			Message: "The virtual machine has virtual Fibre Channel ports. Disks behind them are not seen and not backed up. Run a backup agent inside the guest."})
	}
	if vm.Traits.AssignedDevices > 0 {
		out = append(out, Concern{Reason: AssignedDevice, Message: "A device of the host, or a part of its GPU, is assigned to the virtual machine. Hyper-V may refuse its checkpoints " +
			"while it runs. If backups fail, back it up while it is off, or with an agent inside the guest."})
	}
	return out
}

// manyReferencePoints is more than we ever keep of a VM in one repository, two, and another product besides.
const manyReferencePoints = 5

// remarks are what does not narrow a backup, but surprises later.
func remarks(vm VM) []Concern {
	var out []Concern
	add := func(reason ConcernReason, format string, args ...any) {
		out = append(out, Concern{Reason: reason, Message: fmt.Sprintf(format, args...)})
	}
	if vm.ReferencePoints >= manyReferencePoints {
		add(ManyReferencePoints, "The virtual machine has %d reference points, most of them left by other backup products. They make merges slow or keep disks from merging. "+
			"Remove the products that are not used any more.", vm.ReferencePoints)
	}
	if vm.AutomaticCheckpoints {
		add(AutomaticCheckpoints, "Automatic checkpoints are on: each start makes one, and backups read through a longer chain of files. Switch them off with Set-VM -AutomaticCheckpointsEnabled $false.")
	}
	switch {
	case vm.Traits.Shielded:
		add(NeedsGuardian, "The virtual machine is shielded: it is restored complete, and starts only on hosts that its guardian trusts. Keep the guardian's keys apart from the host.")
	case vm.Traits.TPM:
		add(NeedsGuardian, "The virtual machine has a virtual TPM: a restore to another host needs the certificates of this one's guardian. Export the Shielded VM Local Certificates, and keep them apart from the host.")
	}
	return out
}
