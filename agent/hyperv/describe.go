package hyperv

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/virtdisk"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

// describe makes VMs of facts, in order of their ids, and asks the virtual-disk service about each disk file.
func (h *Host) describe(ctx context.Context, f facts) ([]VM, error) {
	var vms []VM
	for id := range f.settings {
		vm, found, err := h.describeVM(f, id)
		if err != nil {
			return nil, fmt.Errorf("read virtual machine %s: %w", id, err)
		}
		if !found {
			continue
		}
		for i := range vm.Disks {
			if err := h.inspect(ctx, &vm.Disks[i]); err != nil {
				return nil, err
			}
		}
		vms = append(vms, vm)
	}
	slices.SortFunc(vms, func(a, b VM) int { return strings.Compare(a.ID, b.ID) })
	return vms, nil
}

// inspect adds what the virtual-disk service says about a disk's file. A file that cannot be opened is the disk's problem, not an error.
func (h *Host) inspect(ctx context.Context, d *Disk) error {
	if d.Kind != DiskVHDX && d.Kind != DiskVHD {
		return nil
	}
	info, err := h.disks.Info(ctx, d.Path)
	switch {
	case err == nil:
		d.VirtualSize, d.FileSize, d.SectorSize = info.VirtualSize, info.FileSize, info.SectorSize
		d.DiskID, d.TrackingEnabled, d.parent = info.DiskID, info.TrackingEnabled, info.ParentPath
	case errors.Is(err, virtdisk.ErrDisconnected), ctx.Err() != nil:
		return fmt.Errorf("inspect %s: %w", d.Path, err)
	default:
		d.Problem = err.Error()
	}
	return nil
}

// describeVM understands the facts of one VM, and knows those of its checkpoints that are ours without saying so.
func (h *Host) describeVM(f facts, id string) (VM, bool, error) {
	vm, found, err := describeVM(f, id, f.settings[id])
	for i := range vm.Checkpoints {
		if node := &vm.Checkpoints[i]; node.Kind == CheckpointRecovery {
			cp, _ := h.claimed(node.ID, node.Name)
			node.Tag = cp.Tag
		}
	}
	return vm, found, err
}

// describeVM understands the facts of one VM. It is not found when it is only planned, or was deleted between two queries.
func describeVM(f facts, id string, settings []wmi.Instance) (VM, bool, error) {
	vm := VM{ID: id}
	system, known := f.systems[id]
	var active *reader
	for _, instance := range settings {
		r := &reader{Instance: instance}
		switch kind := r.text("VirtualSystemType"); {
		case kind == typeRealized:
			active = r
		case strings.HasPrefix(kind, typeSnapshotPrefix):
			vm.Checkpoints = append(vm.Checkpoints, checkpointNode(r, kind))
		}
		if r.err != nil {
			return VM{}, false, r.err
		}
	}
	if !known || active == nil {
		return VM{}, false, nil
	}
	vm.Current = resolveParents(vm.Checkpoints, active.text("Parent"))
	slices.SortStableFunc(vm.Checkpoints, func(a, b CheckpointNode) int { return a.Created.Compare(b.Created) })
	describeSettings(&vm, active)
	describeSystem(&vm, &reader{Instance: system}, active)
	devices := func(class string) []wmi.Instance { return f.devices[class][strings.ToUpper(vm.settingsID)] }
	describeProcessing(&vm, devices, active)
	vm.BackupService = backupService(f, vm, devices(classBackupService), active)
	vm.Traits, vm.Guest, vm.ReferencePoints = describeTraits(devices, active), f.guests[vm.ID], f.points[vm.ID]
	stored := describeStorage(devices, active)
	vm.Controllers, vm.Disks = stored.controllers, stored.disks
	vm.Networks = describeNetworks(devices, f.switches, active)
	return vm, true, active.err
}

func checkpointNode(r *reader, kind string) CheckpointNode {
	node := CheckpointNode{
		ID:      r.text("InstanceID"),
		Name:    r.text("ElementName"),
		Kind:    CheckpointOther,
		Created: r.time("CreationTime"),
		Parent:  referenced(r.text("Parent"), "InstanceID"),
		path:    r.Path,
	}
	if r.has("IsAutomaticSnapshot") { // Windows Server 2019 and later
		node.Automatic = r.flag("IsAutomaticSnapshot")
	}
	switch kind {
	case typeUserSnapshot:
		node.Kind = CheckpointUser
	case typeRecoverySnapshot:
		node.Kind = CheckpointRecovery
	}
	return node
}

// resolveParents gives parents as the IDs that the checkpoints have, not as references spell them, and so the one that the VM itself goes on from.
func resolveParents(nodes []CheckpointNode, current string) string {
	ids := map[string]string{}
	for _, node := range nodes {
		ids[strings.ToUpper(node.ID)] = node.ID
	}
	for i := range nodes {
		nodes[i].Parent = ids[nodes[i].Parent]
	}
	return ids[referenced(current, "InstanceID")]
}

func describeSettings(vm *VM, r *reader) {
	vm.settingsPath, vm.settingsID = r.Path, r.text("InstanceID")
	vm.Name = r.text("ElementName")
	vm.Created = r.time("CreationTime")
	vm.Folder = r.text("ConfigurationDataRoot")
	vm.Notes = r.texts("Notes")
	vm.CheckpointType = CheckpointsUnknown
	if r.has("UserSnapshotType") {
		vm.CheckpointType = checkpointType(r.number("UserSnapshotType"))
	}
	vm.ConfigurationVersion = r.text("Version")
	if r.has("AutomaticSnapshotsEnabled") { // Windows Server 2019 and later
		vm.AutomaticCheckpoints = r.flag("AutomaticSnapshotsEnabled")
	}
	vm.Firmware.BIOSGUID = r.text("BIOSGUID")
	vm.Generation = 1
	if r.has("VirtualSystemSubType") && r.text("VirtualSystemSubType") == subTypePrefix+"2" {
		vm.Generation = 2
		vm.Firmware.SecureBoot = r.flag("SecureBootEnabled")
		vm.Firmware.SecureBootTemplate = r.text("SecureBootTemplateId")
	}
}

// subTypePrefix and the generation are the VirtualSystemSubType.
const subTypePrefix = "Microsoft:Hyper-V:SubType:"

// checkpointTypes are the values of UserSnapshotType.
var checkpointTypes = map[int64]CheckpointType{
	2: CheckpointsDisabled, 3: CheckpointsProduction, 4: CheckpointsProductionOnly, 5: CheckpointsStandard,
}

func checkpointType(n int64) CheckpointType {
	if t, known := checkpointTypes[n]; known {
		return t
	}
	return CheckpointsUnknown
}

// value is the UserSnapshotType, 0 when unknown.
func (t CheckpointType) value() int64 {
	for n, known := range checkpointTypes {
		if known == t {
			return n
		}
	}
	return 0
}

func describeSystem(vm *VM, r, errs *reader) {
	vm.systemPath = r.Path
	vm.RawState = r.number("EnabledState")
	vm.State = powerState(vm.RawState)
	vm.Operation = operation(r.numbers("OperationalStatus"))
	vm.Replica = replicaRole(r.number("ReplicationMode"))
	vm.Replication = Replication{State: r.number("ReplicationState"), Health: r.number("ReplicationHealth")}
	if vm.Unhealthy = r.number("HealthState") >= firstFailing; vm.Unhealthy {
		vm.Problem = strings.Join(r.texts("StatusDescriptions"), " ")
	}
	vm.LastBackup = lastBackup(r)
	errs.keep(r.err)
}

// lastBackup is told for people: a host that does not tell, or tells something that is no time, was never backed up. Windows counts from 1601.
func lastBackup(r *reader) time.Time {
	if !r.has("LastSuccessfulBackupTime") { // Windows Server 2012 R2 and later
		return time.Time{}
	}
	at, err := wmi.ParseTime(r.text("LastSuccessfulBackupTime"))
	if err != nil || at.Year() <= 1601 {
		return time.Time{}
	}
	return at
}

// firstFailing is the lowest HealthState of a failure: 20 major, 25 critical (CIM_ManagedSystemElement).
const firstFailing = 20

func powerState(enabledState int64) State {
	switch enabledState {
	case 2:
		return Running
	case 3:
		return Off
	case 6:
		return Saved
	case 9:
		return Paused
	}
	return Other
}

func operation(status []int64) Operation {
	if len(status) < 2 || status[1] == 0 {
		return ""
	}
	switch status[1] {
	case 32768:
		return CreatingCheckpoint
	case 32769:
		return ApplyingCheckpoint
	case 32770:
		return DeletingCheckpoint
	case 32771:
		return WaitingToStart
	case 32772:
		return MergingDisks
	case 32773:
		return Exporting
	case 32774:
		return Migrating
	}
	return OtherOperation
}

func replicaRole(mode int64) ReplicaRole {
	switch mode {
	case 1:
		return ReplicaPrimary
	case 2:
		return ReplicaReplica
	case 3:
		return ReplicaTest
	case 4:
		return ReplicaExtended
	}
	return ReplicaNone
}

func describeProcessing(vm *VM, devices func(string) []wmi.Instance, errs *reader) {
	for _, instance := range devices(classProcessor) {
		r := &reader{Instance: instance}
		vm.Processors = int(r.number("VirtualQuantity"))
		errs.keep(r.err)
	}
	for _, instance := range devices(classMemory) {
		r := &reader{Instance: instance}
		vm.Memory.Startup = r.number("VirtualQuantity")
		vm.Memory.Dynamic = r.flag("DynamicMemoryEnabled")
		if vm.Memory.Dynamic {
			vm.Memory.Minimum, vm.Memory.Maximum = r.number("Reservation"), r.number("Limit")
			vm.Memory.Buffer = r.number("TargetMemoryBuffer")
		}
		errs.keep(r.err)
	}
}

// backupService judges the setting first and then, while the VM runs, its component (Msvm_VssComponent.OperationalStatus: 2 OK, 3 degraded but
// working, 12 no contact, others failing).
func backupService(f facts, vm VM, settings []wmi.Instance, errs *reader) BackupService {
	if len(settings) == 0 {
		return BackupServiceMissing
	}
	r := &reader{Instance: settings[0]}
	enabled := r.number("EnabledState") == 2
	errs.keep(r.err)
	if !enabled {
		return BackupServiceDisabled
	}
	if vm.State != Running {
		return BackupServiceOK
	}
	component, known := f.backup[vm.ID]
	if !known {
		return BackupServiceMissing
	}
	r = &reader{Instance: component}
	status := r.numbers("OperationalStatus")
	errs.keep(r.err)
	switch {
	case len(status) == 0 || status[0] == 12:
		return BackupServiceMissing
	case status[0] == 2 || status[0] == 3:
		return BackupServiceOK
	}
	return BackupServiceFailing
}

func describeNetworks(devices func(string) []wmi.Instance, switches map[string]string, errs *reader) []NetworkAdapter {
	connected := map[string]string{}
	for _, instance := range devices(classNetworkBinding) {
		r := &reader{Instance: instance}
		if r.number("EnabledState") == 2 {
			connected[referenced(r.text("Parent"), "InstanceID")] = switches[referenced(r.hostResource(), "Name")]
		}
		errs.keep(r.err)
	}
	var out []NetworkAdapter
	for _, a := range describeAdapters(devices, errs) {
		a.Switch = connected[a.id]
		out = append(out, a.NetworkAdapter)
	}
	slices.SortFunc(out, func(a, b NetworkAdapter) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.Address, b.Address))
	})
	return out
}
