package emulator

import (
	"context"
	"errors"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

// Types of CreateSnapshot.
const (
	snapshotFull     = 2
	snapshotRecovery = 32768
)

// Msvm_VirtualSystemSnapshotSettingData.ConsistencyLevel.
const (
	consistencyUnknown     = 0
	consistencyApplication = 1
	consistencyCrash       = 2
)

// guestBackupCopy is the GuestBackupType that has the guest's applications leave their logs alone. With every other they may truncate them.
const guestBackupCopy = 2

func (c call) createSnapshot() (wmi.Result, error) {
	c.host.mu.Lock()
	target, ok := c.object("AffectedSystem")
	if !ok || !target.isVM() || target.vm.planned {
		c.host.mu.Unlock()
		return refuse(codeInvalidParameter)
	}
	v := target.vm
	request, code := c.snapshotRequest(v)
	if code == codeDone {
		code = v.claim(opCreatingSnapshot)
	}
	c.host.mu.Unlock()
	if code != codeDone {
		return refuse(code)
	}
	return c.job(jobTypeNewSnapshot, v,
		func(ctx context.Context) error { return v.quiesce(ctx, request.consistency, request.copyOnly) },
		func(ctx context.Context) ([]string, error) {
			if err := v.checkSnapshot(request); err != nil {
				return nil, err
			}
			s, err := v.createSnapshot(ctx, request.kind, v.config.Name, request.consistency)
			if err != nil {
				return nil, err
			}
			return []string{c.host.settingsPath(s.ID)}, nil
		})
}

// snapshotRequest is what CreateSnapshot was asked for.
type snapshotRequest struct {
	kind        string
	consistency int64
	skip        bool // leave disks out that cannot be in a checkpoint
	copyOnly    bool // applications leave their logs alone
}

// snapshotRequest reads the parameters and refuses what cannot work. The caller holds Host.mu.
func (c call) snapshotRequest(v *vm) (snapshotRequest, uint32) {
	r := snapshotRequest{kind: typeSnapshot, consistency: consistencyCrash}
	switch c.in["SnapshotType"] {
	case int64(snapshotFull):
	case int64(snapshotRecovery):
		r.kind = typeRecoverySnapshot
		if !c.host.config.backsUpByWMI() {
			return r, codeNotSupported
		}
	default:
		return r, codeInvalidParameter
	}
	if o, ok := c.in["SnapshotSettings"].(wmi.Object); ok {
		if level, ok := o.Properties["ConsistencyLevel"].(int64); ok && level != consistencyUnknown {
			r.consistency = level
		}
		r.skip, _ = o.Properties["IgnoreNonSnapshottableDisks"].(bool)
		r.copyOnly = o.Properties["GuestBackupType"] == int64(guestBackupCopy)
	}
	if r.consistency != consistencyApplication && r.consistency != consistencyCrash {
		return r, codeInvalidParameter
	}
	if v.has(troubleReplicating) || v.config.ReplicationState.excludesBackup() {
		return r, codeInvalidState
	}
	if r.kind != typeRecoverySnapshot {
		return r, codeDone
	}
	for _, s := range v.record.Snapshots {
		if s.Type == typeRecoverySnapshot { // one backup of a VM at a time
			return r, codeInvalidState
		}
	}
	return r, codeDone
}

func (c call) destroySnapshot() (wmi.Result, error) {
	return c.removeSnapshots("AffectedSnapshot", (*vmRecord).removable, func(_ *vmRecord, s *snapshotRecord) []*snapshotRecord { return []*snapshotRecord{s} })
}

func (c call) destroySnapshotTree() (wmi.Result, error) {
	return c.removeSnapshots("SnapshotSettingData", func(*vmRecord, *snapshotRecord) bool { return true }, (*vmRecord).below)
}

func (c call) removeSnapshots(parameter string, possible func(*vmRecord, *snapshotRecord) bool, choose func(*vmRecord, *snapshotRecord) []*snapshotRecord) (wmi.Result, error) {
	v, s, code := c.snapshot(parameter, opDeletingSnapshot)
	if code != codeDone {
		return refuse(code)
	}
	if !possible(v.record, s) {
		v.unclaim()
		return refuse(codeInvalidState)
	}
	return c.job(jobTypeDeleteSnapshot, v, nil, func(context.Context) ([]string, error) {
		return nil, v.removeSnapshots(choose(v.record, s), nil)
	})
}

// snapshot resolves a checkpoint and claims its VM.
func (c call) snapshot(parameter string, o operation) (*vm, *snapshotRecord, uint32) {
	c.host.mu.Lock()
	defer c.host.mu.Unlock()
	target, ok := c.object(parameter)
	if !ok || !target.isSettings() || target.settings.snapshot == nil {
		return nil, nil, codeInvalidParameter
	}
	return target.vm, target.settings.snapshot, target.vm.claim(o)
}

func (c call) convert() (wmi.Result, error) {
	v, s, code := c.snapshot("AffectedSnapshot", opDeletingSnapshot)
	if code != codeDone {
		return refuse(code)
	}
	if s.Type != typeRecoverySnapshot {
		v.unclaim()
		return refuse(codeInvalidState)
	}
	return c.job(jobTypeConvert, v, nil, func(context.Context) ([]string, error) {
		p := v.referencePointOf(s)
		if o, ok := c.in["ReferencePointSettings"].(wmi.Object); ok {
			if level, ok := o.Properties["ConsistencyLevel"].(int64); ok {
				p.Consistency = level
			}
		}
		if err := v.removeSnapshots([]*snapshotRecord{s}, p); err != nil {
			return nil, err
		}
		return []string{c.host.path("Msvm_VirtualSystemReferencePoint", map[string]any{"InstanceID": p.ID, "VirtualSystemIdentifier": v.record.ID})}, nil
	})
}

// referencePointOf names the moment of a checkpoint on each of its disks. The caller holds op.
func (v *vm) referencePointOf(s *snapshotRecord) *referencePoint {
	p := &referencePoint{ID: newGUID(), Consistency: s.Consistency, Created: v.host.now().UTC()}
	current := settings{vm: v, config: v.config}
	for _, d := range v.config.Disks {
		if d.Path == "" {
			continue
		}
		path := v.diskPath(d)
		frozen, record := s.disk(path), v.record.disk(path)
		a, err := parseAddress(d.Controller)
		if err != nil || frozen == nil || record == nil || record.Tracking == nil || frozen.Seal == 0 {
			continue
		}
		p.Disks = append(p.Disks, referenceDisk{InstanceID: current.diskID(a, "L"), TrackingID: record.Tracking.trackingID(frozen.Seal)})
	}
	if len(p.Disks) > 0 && v.has(troubleUnequalArrays) {
		p.Disks[0].TrackingID = ""
	}
	return p
}

func (c call) destroyReferencePoint() (wmi.Result, error) {
	c.host.mu.Lock()
	target, ok := c.object("AffectedReferencePoint")
	if !ok || target.class != "Msvm_VirtualSystemReferencePoint" {
		c.host.mu.Unlock()
		return refuse(codeInvalidParameter)
	}
	v := target.vm
	code := v.claim(opOther)
	c.host.mu.Unlock()
	if code != codeDone {
		return refuse(code)
	}
	id, _ := target.properties["InstanceID"].(string)
	return c.job(jobTypeDestroyReference, v, nil, func(context.Context) ([]string, error) {
		return nil, v.removeReferencePoint(id)
	})
}

var errNoReferencePoint = errors.New("the reference point is gone")

// removeReferencePoint makes its tracking ids unusable. The caller holds op.
func (v *vm) removeReferencePoint(id string) error {
	found := false
	err := v.commit(func(r *vmRecord) {
		for i, p := range r.ReferencePoints {
			if p.ID == id {
				r.ReferencePoints = append(r.ReferencePoints[:i:i], r.ReferencePoints[i+1:]...)
				found = true
				break
			}
		}
		r.expireSeals()
	})
	if err == nil && !found {
		err = errNoReferencePoint
	}
	v.dropBitmaps()
	return err
}
