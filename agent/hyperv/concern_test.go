package hyperv

import (
	"slices"
	"testing"

	. "github.com/onsi/gomega"
)

// NW-10, DR-06, DR-12, DR-13, DR-16, DR-17, DR-18, EZ-17, EZ-22, EZ-24: everything that will narrow a backup is told before the first one, with what to do.
func TestConcernsAreToldBeforeTheFirstBackup(t *testing.T) {
	disk := func(kind DiskKind) func(*VM) {
		return func(vm *VM) { vm.Disks = []Disk{{Key: "SCSI-0-0", Path: `D:\x`, Kind: kind}} }
	}
	for name, c := range map[string]struct {
		change   func(*VM)
		want     ConcernReason
		severity Severity
		says     string // what to do, or what it is about
	}{
		"nothing is wrong":                       {func(*VM) {}, "", "", ""},
		"a pass-through disk":                    {disk(DiskPassThrough), PassThroughDisk, Warning, "agent inside the guest, or convert"},
		"a shared disk":                          {disk(DiskShared), SharedDisk, Warning, "agent inside the guest"},
		"a disk on a file server":                {disk(DiskRemote), RemoteDisk, Warning, "volume of the host"},
		"a VHD":                                  {disk(DiskVHD), LegacyDiskFormat, Warning, "Convert-VHD"},
		"a disk of an unknown kind":              {disk(DiskUnknown), UnknownDiskFormat, Warning, ".vhdx"},
		"a disk on a controller without a name":  {func(vm *VM) { vm.Disks = []Disk{{Key: "Other-0-0", Controller: OtherController, Kind: DiskUnknown}} }, UnknownController, Warning, "Attach it to a SCSI controller"},
		"a disk that does not open":              {func(vm *VM) { vm.Disks = []Disk{{Key: "SCSI-0-0", Kind: DiskVHDX, Problem: "gone"}} }, DiskUnreadable, Critical, "gone"},
		"the backup service is disabled":         {func(vm *VM) { vm.BackupService = BackupServiceDisabled }, BackupServiceIsDisabled, Warning, "Enable it"},
		"the guest has no services":              {func(vm *VM) { vm.BackupService = BackupServiceMissing }, BackupServiceIsMissing, Warning, "Install or start"},
		"the guest's service fails":              {func(vm *VM) { vm.BackupService = BackupServiceFailing }, BackupServiceIsFailing, Warning, "Update"},
		"version 5.0":                            {func(vm *VM) { vm.ConfigurationVersion = "5.0" }, ConfigurationVersionTooOld, Warning, "Update-VMVersion"},
		"version 6.2":                            {func(vm *VM) { vm.ConfigurationVersion = "6.2" }, ConfigurationVersionOld, Information, "Update-VMVersion"},
		"the replica":                            {func(vm *VM) { vm.Replica = ReplicaReplica }, ReplicaSide, Warning, "Back up the primary"},
		"a replication that stands still":        {func(vm *VM) { vm.Replica, vm.Replication.Health = ReplicaPrimary, 3 }, ReplicationFailing, Warning, "resumed"},
		"checkpoints are disabled":               {func(vm *VM) { vm.CheckpointType = CheckpointsDisabled }, ProductionCheckpointsOff, Warning, "Switch them on"},
		"checkpoints are standard":               {func(vm *VM) { vm.CheckpointType = CheckpointsStandard }, ProductionCheckpointsOff, Warning, "Switch them on"},
		"another product's recovery checkpoint":  {func(vm *VM) { vm.Checkpoints = []CheckpointNode{{Kind: CheckpointRecovery, Name: "x"}} }, ForeignCheckpoint, Critical, "another backup product"},
		"a critical state":                       {func(vm *VM) { vm.State, vm.RawState = Other, 32786 }, CriticalState, Critical, "Restore access"},
		"a failure that Hyper-V reports":         {func(vm *VM) { vm.Unhealthy, vm.Problem = true, "Worker crashed" }, Unhealthy, Warning, "Worker crashed. Look"},
		"another node of the cluster has it":     {func(vm *VM) { vm.Cluster = &Ownership{Node: "HV02"} }, OwnedElsewhere, Critical, "HV02"},
		"this node of the cluster has it":        {func(vm *VM) { vm.Cluster = &Ownership{Node: "HV01", Here: true} }, "", "", ""},
		"virtual Fibre Channel":                  {func(vm *VM) { vm.Traits.FibreChannel = 2 }, FibreChannelDisks, Warning, "agent inside the guest"},
		"an assigned device":                     {func(vm *VM) { vm.Traits.AssignedDevices = 1 }, AssignedDevice, Warning, "while it is off"},
		"a virtual TPM":                          {func(vm *VM) { vm.Traits.TPM = true }, NeedsGuardian, Information, "certificates"},
		"a shielded machine, which has one, too": {func(vm *VM) { vm.Traits.TPM, vm.Traits.Shielded = true, true }, NeedsGuardian, Information, "guardian trusts"},
		"it is saved":                            {func(vm *VM) { vm.State = Saved }, NotQuiescibleNow, Warning, "Start or resume"},
		"it is paused":                           {func(vm *VM) { vm.State = Paused }, NotQuiescibleNow, Warning, "Start or resume"},
		"it is off":                              {func(vm *VM) { vm.State = Off }, "", "", ""},
		"automatic checkpoints":                  {func(vm *VM) { vm.AutomaticCheckpoints = true }, AutomaticCheckpoints, Information, "Set-VM"},
		"reference points of two products":       {func(vm *VM) { vm.ReferencePoints = 4 }, "", "", ""},
		"reference points that others left":      {func(vm *VM) { vm.ReferencePoints = 5 }, ManyReferencePoints, Warning, "Remove the products"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			vm := VM{
				ID: "A", Name: "a", State: Running, RawState: 2, ConfigurationVersion: "10.0", BackupService: BackupServiceOK,
				CheckpointType: CheckpointsProduction, Replica: ReplicaNone, Disks: []Disk{{Key: "SCSI-0-0", Kind: DiskVHDX}},
			}
			c.change(&vm)
			got := concerns(server2022, vm)
			if c.want == "" {
				g.Expect(got).To(BeEmpty())
				return
			}
			g.Expect(reasons(got)).To(Equal([]ConcernReason{c.want}))
			g.Expect(got[0].Reason.Severity()).To(Equal(c.severity))
			g.Expect(got[0].Message).To(ContainSubstring(c.says))
		})
	}
}

func TestTheWorstConcernComesFirst(t *testing.T) {
	g := NewWithT(t)
	got := concerns(HostInfo{Build: 9600}, VM{
		State: Other, RawState: 32785, ConfigurationVersion: "5.0", BackupService: BackupServiceDisabled, Disks: []Disk{{Kind: DiskVHD}}, AutomaticCheckpoints: true,
	})
	g.Expect(reasons(got)).To(Equal([]ConcernReason{
		CriticalState, LegacyDiskFormat, BackupServiceIsDisabled, HostTooOld, ConfigurationVersionTooOld, AutomaticCheckpoints,
	}))
	g.Expect(slices.IndexFunc(got, func(c Concern) bool { return c.Reason.Severity() == Critical })).To(BeZero())
}
