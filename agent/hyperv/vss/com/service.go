//go:build windows

package com

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/windows"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/vss"
)

var (
	ole32                = windows.NewLazySystemDLL("ole32.dll")
	coInitializeSecurity = ole32.NewProc("CoInitializeSecurity")

	vssapi         = windows.NewLazySystemDLL("vssapi.dll")
	createBackup   = vssapi.NewProc("CreateVssBackupComponentsInternal")
	freeProperties = vssapi.NewProc("VssFreeSnapshotPropertiesInternal")
)

// Values of CoInitializeSecurity: writers must be able to call back into this process, which a null security descriptor lets them. RPC_E_TOO_LATE says that
// somebody called it before.
const (
	authnLevelPacketPrivacy = 6
	impersonate             = 3
	staticCloaking          = 0x20
	tooLate                 = 0x80010119
)

// Service makes requesters in this process. All of it runs on one thread: that of Initialize.
type Service struct{}

var _ vss.Service = Service{}

// Initialize sets COM up for requesters. The calling goroutine keeps its thread from now on, and alone uses the service. It is called once in a process.
func Initialize() (Service, error) {
	runtime.LockOSThread()
	if err := windows.CoInitializeEx(0, windows.COINIT_MULTITHREADED); err != nil && !errors.Is(err, windows.Errno(windows.S_FALSE)) {
		return Service{}, fmt.Errorf("initialize COM: %w", err)
	}
	all := ^uintptr(0) // -1: COM chooses the authentication services
	result, _, _ := coInitializeSecurity.Call(0, all, 0, 0, authnLevelPacketPrivacy, impersonate, 0, staticCloaking, 0)
	if err := failed(result); err != nil && !errors.Is(err, vss.Code(tooLate)) {
		return Service{}, fmt.Errorf("initialize COM security: %w", err)
	}
	return Service{}, nil
}

// open makes an IVssBackupComponents in a context, for a backup of a type.
func open(context int, kind vss.BackupType) (*unknown, error) {
	if err := createBackup.Find(); err != nil {
		return nil, fmt.Errorf("load vssapi.dll: %w", err)
	}
	var backup *unknown
	var pinned runtime.Pinner
	defer pinned.Unpin()
	pinned.Pin(&backup)
	result, _, _ := createBackup.Call(uintptr(unsafe.Pointer(&backup)))
	if err := failed(result); err != nil {
		return nil, fmt.Errorf("CreateVssBackupComponents: %w", err)
	}
	for _, step := range []struct {
		name string
		slot int
		args []any
	}{
		{"InitializeForBackup", slotInitializeForBackup, []any{""}},
		{"SetBackupState", slotSetBackupState, []any{true, false, int(kind), false}},
		{"SetContext", slotSetContext, []any{context}},
	} {
		if err := backup.call(step.slot, step.args...); err != nil {
			backup.release()
			return nil, fmt.Errorf("%s: %w", step.name, err)
		}
	}
	return backup, nil
}

// Open implements vss.Service.
func (Service) Open(ctx context.Context, kind vss.BackupType) (vss.Requester, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	backup, err := open(contextBackup, kind)
	if err != nil {
		return nil, err
	}
	return &requester{backup: backup, snapshots: map[string]windows.GUID{}}, nil
}

// Delete implements vss.Service.
func (Service) Delete(ctx context.Context, setID string) error {
	id, err := guid(setID)
	if err = errors.Join(err, ctx.Err()); err != nil {
		return err
	}
	backup, err := open(contextAll, vss.Copy)
	if err != nil {
		return err
	}
	defer backup.release()
	if err := deleteSet(backup, id); !errors.Is(err, vss.ObjectNotFound) {
		return err
	}
	return nil
}

func deleteSet(backup *unknown, id windows.GUID) error {
	var deleted int32
	var remaining windows.GUID
	err := backup.call(slotDeleteSnapshots, id, objectSnapshotSet, true, unsafe.Pointer(&deleted), unsafe.Pointer(&remaining))
	if err != nil {
		return fmt.Errorf("DeleteSnapshots: %w", err)
	}
	return nil
}
