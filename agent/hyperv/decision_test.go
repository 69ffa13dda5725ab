package hyperv

import (
	"errors"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"github.com/hyperkeep/hyperkeep/agent/extent"
)

var server2022 = HostInfo{OS: "Microsoft Windows Server 2022 Standard", Build: 20348}

func reasons(concerns []Concern) []ConcernReason {
	out := []ConcernReason{}
	for _, c := range concerns {
		out = append(out, c.Reason)
	}
	return out
}

// NW-02, EZ-02, DR-14, DR-16, DR-17, DR-18.
func TestTrackingObstaclesListsEveryUnmetCondition(t *testing.T) {
	tests := map[string]struct {
		host      HostInfo
		version   string
		want      []ConcernReason
		trackable bool
	}{
		"a current host and VM":              {server2022, "10.0", []ConcernReason{}, true},
		"Server 2016 is enough":              {HostInfo{Build: 14393}, "8.0", []ConcernReason{}, true},
		"Server 2012 R2 is not":              {HostInfo{Build: 9600}, "5.0", []ConcernReason{HostTooOld, ConfigurationVersionTooOld}, false},
		"a desktop edition":                  {HostInfo{Build: 19045, Desktop: true}, "9.0", []ConcernReason{DesktopEdition}, false},
		"version 6.2 is the first":           {server2022, "6.2", []ConcernReason{ConfigurationVersionOld}, true},
		"version 5.0 is too old":             {server2022, "5.0", []ConcernReason{ConfigurationVersionTooOld}, false},
		"12.0 is not before 6.2":             {server2022, "12.0", []ConcernReason{}, true},
		"a version that is none":             {server2022, "", []ConcernReason{ConfigurationVersionTooOld}, false},
		"a cluster in 2012 R2 mixed mode":    {HostInfo{Build: 14393, Cluster: &Cluster{Level: 8}}, "8.0", []ConcernReason{ClusterLevelTooLow}, false},
		"a cluster of the level of 2016":     {HostInfo{Build: 14393, Cluster: &Cluster{Level: 9}}, "8.0", []ConcernReason{}, true},
		"everything that is wrong is listed": {HostInfo{Build: 9600, Desktop: true, Cluster: &Cluster{Level: 8}}, "5.0", []ConcernReason{DesktopEdition, HostTooOld, ClusterLevelTooLow, ConfigurationVersionTooOld}, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			vm := VM{ConfigurationVersion: tt.version}
			g.Expect(reasons(TrackingObstacles(tt.host, vm))).To(Equal(tt.want))
			g.Expect(Trackable(tt.host, vm)).To(Equal(tt.trackable))
		})
	}
}

// NW-09, NW-10, EZ-12, EZ-17, DR-12: what decides is the services, not the guest's name.
func TestQuiescible(t *testing.T) {
	ready := VM{State: Running, BackupService: BackupServiceOK, CheckpointType: CheckpointsProduction, Replica: ReplicaNone}
	tests := map[string]struct {
		change func(*VM)
		reason string // "" means it can be quiesced
	}{
		"a running VM with integration services":    {func(*VM) {}, ""},
		"the primary of a replica":                  {func(vm *VM) { vm.Replica = ReplicaPrimary }, ""},
		"an off VM needs no guest":                  {func(vm *VM) { vm.State, vm.BackupService = Off, BackupServiceDisabled }, ""},
		"a saved VM":                                {func(vm *VM) { vm.State = Saved }, "saved"},
		"a paused VM":                               {func(vm *VM) { vm.State = Paused }, "paused"},
		"a replica":                                 {func(vm *VM) { vm.Replica, vm.State = ReplicaReplica, Off }, "replica"},
		"a test replica":                            {func(vm *VM) { vm.Replica = ReplicaTest }, "replica"},
		"the backup service is disabled":            {func(vm *VM) { vm.BackupService = BackupServiceDisabled }, "disabled"},
		"the guest has no integration services":     {func(vm *VM) { vm.BackupService = BackupServiceMissing }, "does not answer"},
		"the guest's service fails":                 {func(vm *VM) { vm.BackupService = BackupServiceFailing }, "fails"},
		"production checkpoints are off":            {func(vm *VM) { vm.CheckpointType = CheckpointsStandard }, "production checkpoints"},
		"all checkpoints are disabled in settings":  {func(vm *VM) { vm.CheckpointType = CheckpointsDisabled }, "production checkpoints"},
		"production checkpoints without a fallback": {func(vm *VM) { vm.CheckpointType = CheckpointsProductionOnly }, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			vm := ready
			tt.change(&vm)
			ok, reason := Quiescible(vm)
			g.Expect(ok).To(Equal(tt.reason == ""))
			g.Expect(reason).To(ContainSubstring(tt.reason))
		})
	}
}

// DR-06, EZ-22, EZ-24: what is wrong is known before the first backup, with a way out.
func TestConcerns(t *testing.T) {
	fine := VM{State: Running, BackupService: BackupServiceOK, CheckpointType: CheckpointsProduction, ConfigurationVersion: "9.0"}
	tests := map[string]struct {
		change  func(*VM)
		reason  ConcernReason
		message string
	}{
		"a pass-through disk":            {func(vm *VM) { vm.Disks = []Disk{{Key: "SCSI-0-3", Kind: DiskPassThrough}} }, PassThroughDisk, "SCSI-0-3 is a pass-through disk and is not backed up. Run a backup agent inside the guest, or convert the disk to a .vhdx file."},
		"a shared disk":                  {func(vm *VM) { vm.Disks = []Disk{{Key: "SCSI-0-1", Kind: DiskShared}} }, SharedDisk, "SCSI-0-1"},
		"a VHD":                          {func(vm *VM) { vm.Disks = []Disk{{Key: "IDE-0-0", Kind: DiskVHD}} }, LegacyDiskFormat, "Convert-VHD"},
		"a disk on a file server":        {func(vm *VM) { vm.Disks = []Disk{{Key: "IDE-0-0", Kind: DiskRemote}} }, RemoteDisk, "file server"},
		"a disk with a strange ending":   {func(vm *VM) { vm.Disks = []Disk{{Key: "IDE-0-0", Kind: DiskUnknown}} }, UnknownDiskFormat, ".vhdx"},
		"a disk that cannot be opened":   {func(vm *VM) { vm.Disks = []Disk{{Key: "IDE-0-0", Kind: DiskVHDX, Problem: "no such file"}} }, DiskUnreadable, "no such file"},
		"the backup service disabled":    {func(vm *VM) { vm.BackupService = BackupServiceDisabled }, BackupServiceIsDisabled, "Enable it"},
		"the backup service missing":     {func(vm *VM) { vm.BackupService = BackupServiceMissing }, BackupServiceIsMissing, "Install or start"},
		"the backup service failing":     {func(vm *VM) { vm.BackupService = BackupServiceFailing }, BackupServiceIsFailing, "restart the guest"},
		"a replica":                      {func(vm *VM) { vm.Replica = ReplicaReplica }, ReplicaSide, "primary"},
		"production checkpoints off":     {func(vm *VM) { vm.CheckpointType = CheckpointsStandard }, ProductionCheckpointsOff, "Switch them on"},
		"a critical state":               {func(vm *VM) { vm.State, vm.RawState = Other, 32785 }, CriticalState, "Restore access"},
		"another product's checkpoint":   {func(vm *VM) { vm.Checkpoints = []CheckpointNode{{Name: "Other Backup", Kind: CheckpointRecovery}} }, ForeignCheckpoint, "Other Backup"},
		"an old configuration version":   {func(vm *VM) { vm.ConfigurationVersion = "5.0" }, ConfigurationVersionTooOld, "Update-VMVersion"},
		"a version that is only not new": {func(vm *VM) { vm.ConfigurationVersion = "7.1" }, ConfigurationVersionOld, "recommended"},
	}
	NewWithT(t).Expect(concerns(server2022, fine)).To(BeEmpty(), "nothing is wrong with the VM that the others differ from")
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			vm := fine
			tt.change(&vm)
			got := concerns(server2022, vm)
			g.Expect(reasons(got)).To(Equal([]ConcernReason{tt.reason}))
			g.Expect(got[0].Message).To(ContainSubstring(tt.message))
		})
	}
}

func TestConcernsLeaveOurOwnCheckpointAlone(t *testing.T) {
	vm := VM{ConfigurationVersion: "9.0", Checkpoints: []CheckpointNode{{Kind: CheckpointRecovery, Tag: "t1"}, {Kind: CheckpointUser}}}
	NewWithT(t).Expect(reasons(concerns(server2022, vm))).NotTo(ContainElement(ForeignCheckpoint))
}

func TestDiskKind(t *testing.T) {
	g := NewWithT(t)
	for path, want := range map[string]DiskKind{
		`D:\VMs\crm\system.vhdx`: DiskVHDX, `D:\VMs\crm\SYSTEM_1.AVHDX`: DiskVHDX, `D:\VMs\old.vhd`: DiskVHD, `D:\VMs\old.avhd`: DiskVHD,
		`C:\ClusterStorage\V1\quorum.vhds`: DiskShared, `\\files\vms\a.vhdx`: DiskRemote, `D:\a.iso`: DiskUnknown, ``: DiskUnknown,
	} {
		g.Expect(diskKind(path, false)).To(Equal(want), path)
	}
	g.Expect(diskKind(`D:\a.vhdx`, true)).To(Equal(DiskShared))
}

// A disk names its parent; nothing that it names may lead anywhere else.
func TestCheckDiskPath(t *testing.T) {
	volumes := []Volume{{Name: "C:"}, {Name: "D:"}}
	tests := map[string]struct {
		path string
		ok   bool
	}{
		"a disk on a fixed volume":        {`D:\VMs\crm\system.vhdx`, true},
		"any case":                        {`d:\vms\SYSTEM.AVHDX`, true},
		"a cluster shared volume":         {`C:\ClusterStorage\Volume1\a.vhdx`, true},
		"a volume that the host lacks":    {`E:\a.vhdx`, false},
		"a file server":                   {`\\files\vms\a.vhdx`, false},
		"a device":                        {`\\.\PhysicalDrive0`, false},
		"a long path prefix":              {`\\?\D:\a.vhdx`, false},
		"climbing up":                     {`D:\VMs\..\Windows\a.vhdx`, false},
		"relative":                        {`a.vhdx`, false},
		"relative to a drive":             {`D:a.vhdx`, false},
		"a stream of another file":        {`D:\secret.txt:a.vhdx`, false},
		"forward slashes":                 {`D:\VMs/../a.vhdx`, false},
		"an empty part":                   {`D:\VMs\\a.vhdx`, false},
		"not a disk":                      {`C:\Windows\System32\config\SAM`, false},
		"the format that we do not read":  {`D:\old.vhd`, false},
		"nothing":                         {``, false},
		"a part of one dot":               {`D:\.\a.vhdx`, false},
		"a name with a character of none": {`D:\a?.vhdx`, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			err := checkDiskPath(tt.path, volumes)
			if tt.ok {
				NewWithT(t).Expect(err).NotTo(HaveOccurred())
			} else {
				NewWithT(t).Expect(err).To(MatchError(ErrPath))
			}
		})
	}
}

// AC-14, I3: the identity of a disk is compared before its tracking id is used.
func TestSameDisk(t *testing.T) {
	disk := FrozenDisk{DiskID: "ABC", VirtualSize: 1 << 30, Tracked: true}
	base := TrackedDisk{RCTID: "rctX:1", DiskID: "abc", VirtualSize: 1 << 30}
	tests := map[string]struct {
		change func(*FrozenDisk, *TrackedDisk)
		want   TrackingLostReason
	}{
		"the same disk, in any case of letters": {func(*FrozenDisk, *TrackedDisk) {}, ""},
		"a base without an id":                  {func(_ *FrozenDisk, b *TrackedDisk) { b.RCTID = "" }, NoTrackingID},
		"another disk":                          {func(d *FrozenDisk, _ *TrackedDisk) { d.DiskID = "DEF" }, DiskReplaced},
		"a base that does not know its disk":    {func(d *FrozenDisk, b *TrackedDisk) { d.DiskID, b.DiskID = "", "" }, DiskReplaced},
		"a grown disk":                          {func(d *FrozenDisk, _ *TrackedDisk) { d.VirtualSize++ }, DiskResized},
		"a shrunk disk":                         {func(d *FrozenDisk, _ *TrackedDisk) { d.VirtualSize-- }, DiskResized},
		"tracking switched off":                 {func(d *FrozenDisk, _ *TrackedDisk) { d.Tracked = false }, TrackingDisabled},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			d, b := disk, base
			tt.change(&d, &b)
			err := sameDisk(d, b)
			if tt.want == "" {
				g.Expect(err).NotTo(HaveOccurred())
				return
			}
			var lost *TrackingLostError
			g.Expect(errors.As(err, &lost)).To(BeTrue())
			g.Expect(err).To(MatchError(ErrTrackingLost))
			g.Expect(lost.Reason).To(Equal(tt.want))
		})
	}
}

func TestInSectors(t *testing.T) {
	e := func(from, to int64) extent.Extent { return extent.Extent{Offset: from, Length: to - from} }
	tests := map[string]struct {
		in   extent.List
		want extent.List
	}{
		"nothing":                              {nil, nil},
		"whole sectors stay":                   {extent.List{e(512, 1024)}, extent.List{e(512, 1024)}},
		"parts are widened":                    {extent.List{e(513, 514)}, extent.List{e(512, 1024)}},
		"those that meet are joined":           {extent.List{e(10, 20), e(500, 520), e(2048, 2049)}, extent.List{e(0, 1024), e(2048, 2560)}},
		"one within another does not cut it":   {extent.List{e(0, 1500), e(1501, 1502)}, extent.List{e(0, 1536)}},
		"the end of the disk is the last byte": {extent.List{e(9999, 10000)}, extent.List{e(9728, 10000)}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			got, err := extent.Collect(inSectors(tt.in.Seq(), 512, 10000))
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(got).To(Equal(tt.want))
		})
	}
}

func TestCheckpointNamesCarryTagAndLevel(t *testing.T) {
	g := NewWithT(t)
	for _, level := range []Level{Application, Crash, Offline} {
		tag, got, ours := parseName(checkpointName("5b0c-1", level))
		g.Expect(ours).To(BeTrue())
		g.Expect(tag).To(Equal("5b0c-1"))
		g.Expect(got).To(Equal(level))
	}
	tag, level, ours := parseName("hyperkeep 5b0c-1")
	g.Expect([]any{tag, level, ours}).To(Equal([]any{"5b0c-1", Crash, true}), "a level that is not known promises nothing")
	for _, foreign := range []string{"", "crm - backup", "hyperkeep", "hyperkeep ", "Hyperkeep 5b0c-1", "my hyperkeep 5b0c-1"} {
		_, _, ours := parseName(foreign)
		g.Expect(ours).To(BeFalse(), foreign)
	}
}

// The window between creating a checkpoint and naming it.
func TestIntentIdentifiesOnlyWhatItAskedFor(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 600e6, time.UTC)
	intent := Intent{Time: at, Level: Application, Known: []string{"old"}}
	tests := map[string]struct {
		intent Intent
		node   CheckpointNode
		want   bool
	}{
		"made a second later":                       {intent, CheckpointNode{ID: "new", Created: at.Add(time.Second)}, true},
		"made in the same second, by whole seconds": {intent, CheckpointNode{ID: "new", Created: at.Truncate(time.Second)}, true},
		"existed before":                            {intent, CheckpointNode{ID: "old", Created: at.Add(time.Second)}, false},
		"made before":                               {intent, CheckpointNode{ID: "new", Created: at.Add(-time.Second)}, false},
		"made much later":                           {intent, CheckpointNode{ID: "new", Created: at.Add(adoptionWindow)}, false},
		"named for another task":                    {intent, CheckpointNode{ID: "new", Created: at.Add(time.Second), Tag: "other"}, false},
		"without an intent nothing is adopted":      {Intent{}, CheckpointNode{ID: "new", Created: at}, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			NewWithT(t).Expect(tt.intent.identifies(tt.node)).To(Equal(tt.want))
		})
	}
}

func TestReferencedReadsKeysOfAnyPath(t *testing.T) {
	g := NewWithT(t)
	g.Expect(referenced(`\\HV01\root\virtualization\v2:Msvm_ResourceAllocationSettingData.InstanceID="Microsoft:a1\\b2\\0"`, "InstanceID")).To(Equal(`MICROSOFT:A1\B2\0`))
	g.Expect(referenced(`Msvm_VirtualEthernetSwitch.CreationClassName="x",Name="c3"`, "Name")).To(Equal("C3"))
	g.Expect(referenced(`Msvm_VirtualEthernetSwitch.Name="c3",CreationClassName="x"`, "Name")).To(Equal("C3"))
	g.Expect(referenced("", "Name")).To(BeEmpty())
}

// A reference point that is not certainly ours is none: a later one would make an increment that misses changes.
func TestSealedNeedsEveryTrackingID(t *testing.T) {
	point := ReferencePoint{Disks: []ReferenceDisk{{Place: "A", RCTID: "1"}, {Place: "B", RCTID: "2"}}}
	g := NewWithT(t)
	g.Expect(point.sealed([]FrozenDisk{{Place: "A", RCTID: "1"}, {Place: "B", RCTID: "2"}})).To(BeTrue())
	g.Expect(point.sealed([]FrozenDisk{{Place: "A", RCTID: "1"}, {Place: "C"}})).To(BeTrue(), "a disk without an id has no say")
	g.Expect(point.sealed([]FrozenDisk{{Place: "A", RCTID: "1"}, {Place: "B", RCTID: "3"}})).To(BeFalse())
	g.Expect(point.sealed([]FrozenDisk{{Place: "A"}, {Place: "B"}})).To(BeFalse(), "nothing to tell it by")
	g.Expect(point.sealed(nil)).To(BeFalse())
}

// Another product's recovery checkpoint may lie in between.
func TestCheckpointsBefore(t *testing.T) {
	vm := VM{Checkpoints: []CheckpointNode{
		{ID: "a", Kind: CheckpointUser}, {ID: "b", Kind: CheckpointRecovery, Parent: "a"}, {ID: "c", Kind: CheckpointOther, Parent: "b"},
		{ID: "d", Kind: CheckpointRecovery, Parent: "c"}, {ID: "e", Kind: CheckpointUser, Parent: "f"}, {ID: "f", Kind: CheckpointUser, Parent: "e"},
	}}
	for id, want := range map[string][]string{
		"a": nil, "B": {"a"}, "d": {"c", "a"}, "gone": nil,
		"e": {"f", "e", "f", "e", "f", "e"}, // nonsense, but an end
	} {
		NewWithT(t).Expect(vm.before(id)).To(Equal(want), id)
	}
}
