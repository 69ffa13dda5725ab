package emulator

import (
	"context"
	"errors"
	"fmt"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

// Return values of methods, also the error codes of jobs.
const (
	codeDone             = 0
	codeJobStarted       = 4096
	codeFailed           = 32768
	codeNotSupported     = 32770
	codeInvalidParameter = 32773
	codeInUse            = 32774
	codeInvalidState     = 32775
	codeFileNotFound     = 32779
)

// call is one method call. Its parameters are those of the schema.
type call struct {
	host   *Host
	target object
	method string
	in     wmi.Params
}

// methods run the calls that are not refused by the schema.
var methods map[string]func(call) (wmi.Result, error)

func init() { // not a literal: the methods lead back to this map
	methods = map[string]func(call) (wmi.Result, error){
		"Msvm_ComputerSystem.RequestStateChange":                        call.requestStateChange,
		"Msvm_ConcreteJob.RequestStateChange":                           call.cancelJob,
		"Msvm_ConcreteJob.GetErrorEx":                                   call.jobErrors,
		"Msvm_VirtualSystemSnapshotService.CreateSnapshot":              call.createSnapshot,
		"Msvm_VirtualSystemSnapshotService.DestroySnapshot":             call.destroySnapshot,
		"Msvm_VirtualSystemSnapshotService.ApplySnapshot":               call.applySnapshot,
		"Msvm_VirtualSystemSnapshotService.ClearSnapshotState":          call.clearSnapshotState,
		"Msvm_VirtualSystemReferencePointService.CreateReferencePoint":  call.createReferencePoint,
		"Msvm_ImageManagementService.GetVirtualDiskChanges":             call.diskChanges,
		"Msvm_VirtualSystemSnapshotService.DestroySnapshotTree":         call.destroySnapshotTree,
		"Msvm_VirtualSystemSnapshotService.ConvertToReferencePoint":     call.convert,
		"Msvm_VirtualSystemReferencePointService.DestroyReferencePoint": call.destroyReferencePoint,
		"Msvm_VirtualSystemManagementService.DefineSystem":              call.defineSystem,
		"Msvm_VirtualSystemManagementService.DestroySystem":             call.destroySystem,
		"Msvm_VirtualSystemManagementService.ModifySystemSettings":      call.modifySystemSettings,
		"Msvm_VirtualSystemManagementService.AddResourceSettings":       call.addResources,
		"Msvm_VirtualSystemManagementService.ModifyResourceSettings":    call.modifyResources,
		"Msvm_VirtualSystemManagementService.RemoveResourceSettings":    call.removeResources,
		"Msvm_VirtualSystemManagementService.ImportSystemDefinition":    call.importSystem,
		"Msvm_VirtualSystemManagementService.ImportSnapshotDefinitions": call.importSnapshots,
		"Msvm_VirtualSystemManagementService.ValidatePlannedSystem":     call.validatePlanned,
		"Msvm_VirtualSystemManagementService.RealizePlannedSystem":      call.realizePlanned,
		"Msvm_VirtualSystemManagementService.FormatError":               call.formatError,
		"Msvm_ImageManagementService.GetVirtualHardDiskSettingData":     call.diskSettingData,
		"Msvm_ImageManagementService.GetVirtualHardDiskState":           call.diskState,
		"MSCluster_ResourceGroup.MoveToNewNode":                         call.moveGroup,
		"Win32_Service.StartService":                                    call.startService,
		"Win32_Service.StopService":                                     call.stopService,
	}
}

func refuse(code uint32) (wmi.Result, error) { return wmi.Result{ReturnValue: code}, nil }

// object resolves a reference parameter. The caller holds Host.mu.
func (c call) object(parameter string) (object, bool) {
	path, _ := c.in[parameter].(string)
	if path == "" {
		return object{}, false
	}
	return c.host.find(path)
}

// claim reserves a VM for an operation, or says why it cannot be had: 0 is success. The caller holds Host.mu.
func (v *vm) claim(o operation) uint32 {
	switch {
	case v.problem != nil:
		return codeInvalidState
	case v.busy != opNone:
		return codeInvalidState
	}
	v.busy = o
	return codeDone
}

func (v *vm) unclaim() {
	v.host.mu.Lock()
	defer v.host.mu.Unlock()
	v.busy = opNone
}

// job starts a job on a VM that was claimed. prepare runs before the VM is held for the operation itself, and may be nil.
func (c call) job(kind int64, v *vm, prepare func(context.Context) error, w work) (wmi.Result, error) {
	name := fmt.Sprintf("%s of %s", c.method, v.folder)
	vmPath := c.host.vmPath(v)
	j, err := c.host.jobs.start(kind, name, vmPath, c.counted(func(ctx context.Context) ([]string, error) {
		if fault := c.host.faults.jobFault(ctx, c.method); fault != nil {
			return nil, fault
		}
		if prepare != nil {
			if err := prepare(ctx); err != nil {
				return nil, err
			}
		}
		v.op.Lock()
		defer v.op.Unlock()
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		return w(ctx)
	}), v.unclaim)
	if err != nil {
		v.unclaim()
		return wmi.Result{}, err
	}
	return c.started(j), nil
}

// jobWithout starts a job on no VM.
func (c call) jobWithout(kind int64, name string, w work) (wmi.Result, error) {
	j, err := c.host.jobs.start(kind, name, "", c.counted(func(ctx context.Context) ([]string, error) {
		if fault := c.host.faults.jobFault(ctx, c.method); fault != nil {
			return nil, fault
		}
		return w(ctx)
	}), func() {})
	if err != nil {
		return wmi.Result{}, err
	}
	return c.started(j), nil
}

// counted counts work that fails, with its error code.
func (c call) counted(w work) work {
	return func(ctx context.Context) ([]string, error) {
		results, err := w(ctx)
		var warned *jobWarnings
		if err != nil && !errors.As(err, &warned) {
			code := int64(codeFailed)
			var failure *jobError
			if errors.As(err, &failure) {
				code = failure.code
			}
			c.host.usage.Count(c.target.class+"."+c.method, uint32(code))
		}
		return results, err
	}
}

func (c call) started(j *job) wmi.Result {
	path := c.host.path("Msvm_ConcreteJob", map[string]any{"InstanceID": j.id})
	return wmi.Result{ReturnValue: codeJobStarted, Out: map[string]any{"Job": path}}
}

func (h *Host) vmPath(v *vm) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	class := "Msvm_ComputerSystem"
	if v.planned {
		class = "Msvm_PlannedComputerSystem"
	}
	return h.path(class, map[string]any{"CreationClassName": class, "Name": v.record.ID})
}
