package wine

import (
	"context"
	"errors"
	"os/exec"
	"testing"
	"time"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/emulator"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/vss"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/vss/child"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/vss/vsstest"
)

// providerError is VSS_E_UNEXPECTED_PROVIDER_ERROR, which the emulated host returns for no reason of its own.
const providerError vss.Code = 0x8004230F

// shadowBackup is a backup by shadow copies that reads nothing. What it began is gone when it returns.
func shadowBackup(ctx context.Context, service vss.Service) (err error) {
	r, err := service.Open(ctx, vss.Full)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	all, err := r.Components(ctx)
	if err != nil {
		return err
	}
	c, _ := vss.Find(all, vsstest.MachineID)
	if _, err := r.Begin(ctx, vss.Request{Component: c, Volumes: []string{`D:\`}}); err != nil {
		return err
	}
	if _, err := r.Snapshot(ctx); err != nil {
		return err
	}
	return r.Complete(ctx, true)
}

// shadowLab is a host with the requesters of the Windows adapter.
type shadowLab struct {
	*shadowHost
	service vss.Service
}

func newShadowLab(t *testing.T) shadowLab {
	t.Helper()
	Require(t)
	exe := Build(t, "test/wine/internal/requester")
	h := newShadowHost(t, t.TempDir(), vsstest.Options{})
	p := NewPrefix(t, h.dir, h.address)
	return shadowLab{h, child.Service(func() *exec.Cmd { return p.Command(context.Background(), exe) })}
}

func (l shadowLab) failNext(function string) {
	l.Faults().FailNext(emulator.Fault{Method: function, ReturnValue: uint32(providerError)})
}

// expectClean checks that a failure was met and left nothing, and that the next backup works (NV-12).
func (l shadowLab) expectClean(t *testing.T, failed string) {
	t.Helper()
	if l.Faults().Hits(failed) != 1 {
		t.Errorf("%s did not fail", failed)
	}
	if n, state := l.ShadowCopies(), l.state(t); n != 0 || state != "running" {
		t.Errorf("%d shadow copies remain, and the virtual machine is %s", n, state)
	}
	if err := shadowBackup(t.Context(), l.service); err != nil {
		t.Errorf("the next backup: %v", err)
	}
}

// TestEachFunctionOfVSSFails has every function of vssapi.dll that can fail do so once.
func TestEachFunctionOfVSSFails(t *testing.T) {
	l := newShadowLab(t)
	for _, function := range []string{
		"CreateVssBackupComponentsInternal", "InitializeForBackup", "SetBackupState", "SetContext", "EnableWriterClasses",
		"GatherWriterMetadata", "GetWriterMetadataCount", "GetWriterMetadata", "SaveAsXML", "FreeWriterMetadata", "Wait", "QueryStatus",
		"AddComponent", "StartSnapshotSet", "AddToSnapshotSet", "PrepareForBackup", "DoSnapshotSet",
		"GatherWriterStatus", "GetWriterStatusCount", "GetWriterStatus", "FreeWriterStatus", "GetSnapshotProperties",
		"SetBackupSucceeded", "BackupComplete", "DeleteSnapshots",
	} {
		t.Run(function, func(t *testing.T) {
			l.failNext(function)
			if err := shadowBackup(t.Context(), l.service); !errors.Is(err, providerError) {
				t.Errorf("%v is not %v", err, providerError)
			}
			l.expectClean(t, function)
		})
	}
	t.Run("AbortBackup, which changes nothing about the failure before it", func(t *testing.T) {
		l.failNext("AbortBackup")
		l.Faults().FailNext(emulator.Fault{Method: "HyperVWriter.Freeze", ReturnValue: uint32(vss.WriterTimeout)})
		if err := shadowBackup(t.Context(), l.service); !errors.Is(err, vss.WriterTimeout) || errors.Is(err, providerError) {
			t.Errorf("%v is not %v", err, vss.WriterTimeout)
		}
		l.expectClean(t, "AbortBackup")
	})
}

// TestVSSThatCannotBeCanceled: what goes on all the same is waited for, and undone.
func TestVSSThatCannotBeCanceled(t *testing.T) {
	l := newShadowLab(t)
	l.failNext("Cancel")
	pause := l.Faults().PauseAt("vss.frozen")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		<-pause.Reached
		cancel()
		for l.Faults().Hits("Cancel") == 0 && t.Context().Err() == nil {
			time.Sleep(time.Millisecond)
		}
		pause.Resume()
	}()
	if err := shadowBackup(ctx, l.service); !errors.Is(err, context.Canceled) {
		t.Errorf("%v is not %v", err, context.Canceled)
	}
	l.expectClean(t, "Cancel")
	if codes := l.Usage().Counts().Calls["Cancel"]; codes[uint32(providerError)] != 1 {
		t.Errorf("Cancel returned %v", codes)
	}
}
