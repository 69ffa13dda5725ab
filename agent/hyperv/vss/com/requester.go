//go:build windows

package com

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/windows"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/hostfs"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/vss"
)

// Slots of IVssBackupComponents (vsbackup.h, counted from IUnknown).
const (
	slotInitializeForBackup    = 5
	slotSetBackupState         = 6
	slotGatherWriterMetadata   = 9
	slotGetWriterMetadataCount = 10
	slotGetWriterMetadata      = 11
	slotFreeWriterMetadata     = 12
	slotAddComponent           = 13
	slotPrepareForBackup       = 14
	slotAbortBackup            = 15
	slotGatherWriterStatus     = 16
	slotGetWriterStatusCount   = 17
	slotFreeWriterStatus       = 18
	slotGetWriterStatus        = 19
	slotSetBackupSucceeded     = 20
	slotBackupComplete         = 27
	slotSetContext             = 35
	slotStartSnapshotSet       = 36
	slotAddToSnapshotSet       = 37
	slotDoSnapshotSet          = 38
	slotDeleteSnapshots        = 39
	slotGetSnapshotProperties  = 42
	slotEnableWriterClasses    = 46

	slotSaveAsXML = 12 // IVssExamineWriterMetadata
)

// Values of vss.h.
const (
	contextBackup     = 0  // VSS_CTX_BACKUP: the shadow copies end with the object
	contextAll        = -1 // VSS_CTX_ALL
	objectSnapshotSet = 2  // VSS_OBJECT_SNAPSHOT_SET
)

// sharedVolumeWriter is the class of the writer that coordinates the snapshots of cluster shared volumes.
const sharedVolumeWriter = "1072AE1C-E5A7-4EA1-9E4A-6F7964656570"

// requester is one IVssBackupComponents.
type requester struct {
	backup    *unknown
	request   vss.Request
	set       windows.GUID
	snapshots map[string]windows.GUID // by volume
	prepared  bool                    // PrepareForBackup was called, so the writers must hear how it ends
	made      bool                    // the shadow copies exist
}

// Components implements vss.Requester.
func (r *requester) Components(ctx context.Context) ([]vss.Component, error) {
	classes := make([]windows.GUID, 2)
	for i, class := range []string{vss.WriterID, sharedVolumeWriter} {
		var err error
		if classes[i], err = guid(class); err != nil {
			return nil, err
		}
	}
	if err := r.backup.call(slotEnableWriterClasses, unsafe.Pointer(&classes[0]), len(classes)); err != nil {
		return nil, fmt.Errorf("EnableWriterClasses: %w", err)
	}
	if err := r.async(ctx, "GatherWriterMetadata", slotGatherWriterMetadata); err != nil {
		return nil, err
	}
	components, err := r.metadata()
	if free := r.backup.call(slotFreeWriterMetadata); err == nil && free != nil {
		err = fmt.Errorf("FreeWriterMetadata: %w", free)
	}
	return components, err
}

// metadata reads what the Hyper-V writer said.
func (r *requester) metadata() ([]vss.Component, error) {
	var count uint32
	if err := r.backup.call(slotGetWriterMetadataCount, unsafe.Pointer(&count)); err != nil {
		return nil, fmt.Errorf("GetWriterMetadataCount: %w", err)
	}
	for i := range int(count) {
		document, err := r.document(i)
		if err != nil {
			return nil, err
		}
		components, ok, err := vss.ParseMetadata(document)
		if ok && err == nil {
			err = findVolumes(components)
		}
		if ok || err != nil {
			return components, err
		}
	}
	return nil, vss.ErrNoWriter
}

// findVolumes asks which folders volumes are mounted in.
func findVolumes(components []vss.Component) error {
	for _, c := range components {
		for i := range c.Files {
			file := &c.Files[i]
			if file.Volume == "" {
				continue // a path on none
			}
			var err error
			if file.Volume, err = hostfs.NativeVolume(file.Path); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *requester) document(i int) (string, error) {
	var instance windows.GUID
	var examined *unknown
	if err := r.backup.call(slotGetWriterMetadata, i, unsafe.Pointer(&instance), unsafe.Pointer(&examined)); err != nil {
		return "", fmt.Errorf("GetWriterMetadata: %w", err)
	}
	defer examined.release()
	var document *uint16
	if err := examined.call(slotSaveAsXML, unsafe.Pointer(&document)); err != nil {
		return "", fmt.Errorf("SaveAsXML: %w", err)
	}
	return takeText(document), nil
}

// Begin implements vss.Requester.
func (r *requester) Begin(ctx context.Context, request vss.Request) (string, error) {
	provider, err := guid(request.Provider)
	if err = errors.Join(err, ctx.Err()); err != nil {
		return "", err
	}
	r.request = request
	if !request.Uninvolved {
		if err := r.componentCall(slotAddComponent); err != nil {
			return "", fmt.Errorf("AddComponent %s: %w", request.Component.Name, err)
		}
	}
	if err := r.backup.call(slotStartSnapshotSet, unsafe.Pointer(&r.set)); err != nil {
		return "", fmt.Errorf("StartSnapshotSet: %w", err)
	}
	for _, volume := range request.Volumes {
		var snapshot windows.GUID
		if err := r.backup.call(slotAddToSnapshotSet, volume, provider, unsafe.Pointer(&snapshot)); err != nil {
			return "", fmt.Errorf("AddToSnapshotSet %s: %w", volume, err)
		}
		r.snapshots[volume] = snapshot
	}
	return strings.Trim(r.set.String(), "{}"), nil
}

// componentCall calls a method with what identifies the component, and more.
func (r *requester) componentCall(slot int, more ...any) error {
	c := r.request.Component
	instance, err := guid(c.Writer)
	if err != nil {
		return err
	}
	writer, err := guid(vss.WriterID)
	if err != nil {
		return err
	}
	return r.backup.call(slot, append([]any{instance, writer, int(c.Type), c.LogicalPath, c.Name}, more...)...)
}

// Snapshot implements vss.Requester.
func (r *requester) Snapshot(ctx context.Context) (vss.Snapshot, error) {
	r.prepared = true
	for _, step := range []struct {
		name string
		slot int
	}{{"PrepareForBackup", slotPrepareForBackup}, {"DoSnapshotSet", slotDoSnapshotSet}} {
		err := r.async(ctx, step.name, step.slot)
		if err == nil {
			err = r.writerFailure(ctx)
		}
		if err != nil {
			return vss.Snapshot{}, err
		}
	}
	r.made = true
	snapshot := vss.Snapshot{Devices: map[string]string{}}
	for volume, id := range r.snapshots {
		var err error
		if snapshot.Devices[volume], snapshot.Taken, err = r.properties(id); err != nil {
			return vss.Snapshot{}, err
		}
	}
	return snapshot, nil
}

// writerFailure asks how the writers fared: a failure of theirs does not fail the call in which it happened.
func (r *requester) writerFailure(ctx context.Context) error {
	if err := r.async(ctx, "GatherWriterStatus", slotGatherWriterStatus); err != nil {
		return err
	}
	var count uint32
	err := r.backup.call(slotGetWriterStatusCount, unsafe.Pointer(&count))
	for i := 0; err == nil && i < int(count); i++ {
		var instance, writer windows.GUID
		var name *uint16
		var state, failure uint32
		err = r.backup.call(slotGetWriterStatus, i, unsafe.Pointer(&instance), unsafe.Pointer(&writer), unsafe.Pointer(&name), unsafe.Pointer(&state), unsafe.Pointer(&failure))
		if err != nil {
			break
		}
		takeText(name)
		if vss.WriterState(state).Failed() {
			err = &vss.WriterError{State: vss.WriterState(state), Code: vss.Code(failure)}
		}
	}
	if free := r.backup.call(slotFreeWriterStatus); err == nil && free != nil {
		err = free
	}
	return err
}

// snapshotProperties is VSS_SNAPSHOT_PROP.
type snapshotProperties struct {
	SnapshotID, SetID               windows.GUID
	Count                           int32
	Device, Volume, Origin, Service *uint16
	ExposedName, ExposedPath        *uint16
	Provider                        windows.GUID
	Attributes                      int32
	Created                         int64 // VSS_TIMESTAMP: as a FILETIME
	Status                          int32
}

// properties tells where a shadow copy is, and when it was taken.
func (r *requester) properties(id windows.GUID) (device string, taken time.Time, err error) {
	p := &snapshotProperties{}
	if err := r.backup.call(slotGetSnapshotProperties, id, unsafe.Pointer(p)); err != nil {
		return "", time.Time{}, fmt.Errorf("GetSnapshotProperties: %w", err)
	}
	device = windows.UTF16PtrToString(p.Device)
	created := windows.Filetime{LowDateTime: uint32(p.Created), HighDateTime: uint32(p.Created >> 32)}
	taken = time.Unix(0, created.Nanoseconds()).UTC()
	_, _, _ = freeProperties.Call(uintptr(unsafe.Pointer(p))) // returns nothing
	return device, taken, nil
}

// Complete implements vss.Requester.
func (r *requester) Complete(ctx context.Context, succeeded bool) error {
	if !r.made {
		return fmt.Errorf("complete a backup that was not made: %w", vss.BadState)
	}
	if !r.request.Uninvolved {
		if err := r.componentCall(slotSetBackupSucceeded, succeeded); err != nil {
			return fmt.Errorf("SetBackupSucceeded: %w", err)
		}
	}
	if err := r.async(ctx, "BackupComplete", slotBackupComplete); err != nil {
		return err
	}
	r.prepared, r.made = false, false
	return deleteSet(r.backup, r.set)
}

// Close implements vss.Requester.
func (r *requester) Close() error {
	if r.backup == nil {
		return nil
	}
	if r.prepared {
		_ = r.backup.call(slotAbortBackup) // releasing the object aborts as well
	}
	r.backup.release()
	r.backup = nil
	return nil
}
