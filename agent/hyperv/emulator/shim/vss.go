package shim

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/emulator"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/hostfs"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/vss"
)

// vssProcess is the VSS objects of one process. Its functions are the methods of the interfaces of vsbackup.h; their first argument is the object.
type vssProcess struct {
	host *emulator.Host

	mu      sync.Mutex
	last    Object
	objects map[Object]any // *vssBackup, *vssAsync or vssMetadata
}

func newVSSProcess(h *emulator.Host) process {
	return &vssProcess{host: h, objects: make(map[Object]any)}
}

// Results of IVssAsync::QueryStatus that are no failures, and the failures that are not VSS's own.
const (
	asyncPending  = 0x00042309
	asyncFinished = 0x0004230A
	asyncCanceled = 0x0004230B

	notImplemented = 0x80004001
	unexpected     = 0x8000FFFF
	invalidHandle  = 0x80070006
)

// exit gives back what a process that ended has left: its shadow copies go with it.
func (p *vssProcess) exit() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, o := range p.objects {
		release(o)
	}
	p.objects = nil
}

func release(o any) {
	switch o := o.(type) {
	case *vssBackup:
		o.end()
		o.running.Wait()
		_ = o.requester.Close() // what stays is found by the next Delete
	case *vssAsync:
		o.cancel()
	}
}

// failsByItself are the calls whose faults the host has: at the place where each comes about, which may be long after the call returned.
var failsByItself = map[string]bool{
	"GatherWriterMetadata": true, "StartSnapshotSet": true, "AddToSnapshotSet": true, "PrepareForBackup": true, "DoSnapshotSet": true,
	"GatherWriterStatus": true, "BackupComplete": true, "DeleteSnapshots": true,
}

// call implements process.
func (p *vssProcess) call(ctx context.Context, function string, args []any) (uint32, []any) {
	run := p.run(function, &args)
	status, results := uint32(0), []any(nil)
	if !failsByItself[function] {
		status = codeOf(p.host.Faults().Take(function))
	}
	if status == 0 {
		status, results = run(ctx, function, args)
	}
	p.host.Usage().Count(function, status)
	return status, results
}

// run finds what runs a function: an object, which it takes from the arguments, or the library itself.
func (p *vssProcess) run(function string, args *[]any) func(ctx context.Context, function string, args []any) (uint32, []any) {
	switch function {
	case "CreateVssBackupComponentsInternal":
		return p.create
	case "VssFreeSnapshotPropertiesInternal":
		return succeed // the memory is the caller's
	}
	var id Object
	if len(*args) > 0 {
		id, _ = (*args)[0].(Object)
		*args = (*args)[1:]
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	o := p.objects[id]
	if function == "Release" {
		delete(p.objects, id)
	}
	switch o := o.(type) {
	case *vssBackup:
		return o.call
	case *vssAsync:
		return o.call
	case vssMetadata:
		return o.call
	}
	return func(context.Context, string, []any) (uint32, []any) { return invalidHandle, nil }
}

func succeed(context.Context, string, []any) (uint32, []any) { return 0, nil }

func (p *vssProcess) keep(o any) Object {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last++
	p.objects[p.last] = o
	return p.last
}

func (p *vssProcess) create(ctx context.Context, _ string, _ []any) (uint32, []any) {
	requester, err := p.host.VSS().Open(ctx, vss.Full) // until SetBackupState says otherwise
	if err != nil {
		return codeOf(err), nil
	}
	steps, ok := requester.(vssSteps)
	if !ok {
		return unexpected, nil
	}
	b := &vssBackup{process: p, requester: steps}
	b.life, b.end = context.WithCancel(context.WithoutCancel(ctx))
	return 0, []any{p.keep(b)}
}

// vssSteps is a requester call by call.
type vssSteps interface {
	vss.Requester
	SetBackupState(vss.BackupType)
	Select(vss.Component) error
	Start(context.Context) (string, error)
	Add(ctx context.Context, volume, provider string) error
	Prepare(context.Context) error
	Do(context.Context) (vss.Snapshot, error)
}

// vssBackup is one IVssBackupComponents.
type vssBackup struct {
	process   *vssProcess
	requester vssSteps

	life    context.Context // of what goes on after a call returned
	end     context.CancelFunc
	running sync.WaitGroup

	mu         sync.Mutex
	components []vss.Component
	set        string
	volumes    []string // the snapshots by their number
	snapshot   vss.Snapshot
	writer     *vss.WriterError // what GetWriterStatus tells
}

func (b *vssBackup) call(ctx context.Context, function string, args []any) (uint32, []any) {
	switch function {
	case "Release":
		release(b)
		return 0, nil
	case "InitializeForBackup", "SetContext", "EnableWriterClasses", "SetBackupSucceeded", "FreeWriterMetadata", "FreeWriterStatus", "AbortBackup":
		return 0, nil
	case "GatherWriterMetadata":
		return b.start(function, b.gather)
	case "GetWriterMetadataCount":
		return b.metadataCount()
	case "GetWriterMetadata":
		return b.metadata()
	case "GatherWriterStatus", "BackupComplete": // deleting is a call of its own
		return b.start(function, func(context.Context) error { return b.process.host.Faults().Take(function) })
	case "GetWriterStatusCount":
		return 0, []any{uint32(1)}
	case "GetWriterStatus":
		return b.status()
	case "PrepareForBackup":
		return b.start(function, func(ctx context.Context) error { return b.noted(b.requester.Prepare(ctx)) })
	case "DoSnapshotSet":
		return b.start(function, func(ctx context.Context) error {
			snapshot, err := b.requester.Do(ctx)
			b.mu.Lock()
			b.snapshot = snapshot
			b.mu.Unlock()
			return b.noted(err)
		})
	case "StartSnapshotSet":
		return b.startSet(ctx)
	}
	return b.callWith(ctx, function, args)
}

// callWith are the functions with arguments.
func (b *vssBackup) callWith(ctx context.Context, function string, args []any) (uint32, []any) {
	texts := make([]string, 2)
	for i, arg := range args {
		if text, ok := arg.(string); ok && i < len(texts) {
			texts[i] = text
		}
	}
	switch function {
	case "SetBackupState": // type
		return b.setState(args)
	case "AddComponent": // writer instance, component name
		return codeOf(b.requester.Select(vss.Component{Writer: strings.Trim(texts[0], "{}"), Name: texts[1]})), nil
	case "AddToSnapshotSet": // volume, provider
		provider := strings.Trim(texts[1], "{}")
		if strings.Trim(provider, "0-") == "" {
			provider = ""
		}
		if err := b.requester.Add(ctx, texts[0], provider); err != nil {
			return codeOf(err), nil
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		b.volumes = append(b.volumes, texts[0])
		return 0, []any{snapshotID(len(b.volumes))}
	case "DeleteSnapshots": // set
		return codeOf(b.process.host.VSS().Delete(ctx, strings.Trim(texts[0], "{}"))), nil
	case "GetSnapshotProperties": // snapshot
		return b.properties(texts[0])
	}
	return notImplemented, nil
}

func (b *vssBackup) setState(args []any) (uint32, []any) {
	kind, ok := uint32(0), len(args) > 0
	if ok {
		kind, ok = args[0].(uint32)
	}
	if !ok || kind != uint32(vss.Full) && kind != uint32(vss.Copy) {
		return uint32(vss.InvalidArgument), nil
	}
	b.requester.SetBackupState(vss.BackupType(kind))
	return 0, nil
}

// noted keeps a failure of the writer for GetWriterStatus. As on Windows the call itself then succeeds: the requester has to ask.
func (b *vssBackup) noted(err error) error {
	writer, failed := errors.AsType[*vss.WriterError](err)
	if !failed {
		return err
	}
	b.process.host.Usage().Count("HyperVWriter", uint32(writer.Code))
	b.mu.Lock()
	defer b.mu.Unlock()
	b.writer = writer
	return nil
}

// writerStable is VSS_WS_STABLE.
const writerStable = 1

func (b *vssBackup) status() (uint32, []any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	state, code := uint32(writerStable), uint32(0)
	if b.writer != nil {
		state, code = uint32(b.writer.State), uint32(b.writer.Code)
	}
	return 0, []any{"{" + vss.WriterID + "}", state, code}
}

func (b *vssBackup) gather(ctx context.Context) error {
	components, err := b.requester.Components(ctx)
	if errors.Is(err, vss.ErrNoWriter) {
		err = nil // there is one writer less
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.components = components
	return err
}

func (b *vssBackup) startSet(ctx context.Context) (uint32, []any) {
	set, err := b.requester.Start(ctx)
	if err != nil {
		return codeOf(err), nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.set = set
	return 0, []any{"{" + set + "}"}
}

func (b *vssBackup) properties(id string) (uint32, []any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, volume := range b.volumes {
		if strings.EqualFold(snapshotID(i+1), id) {
			// Wine has no such devices: the folder of the shadow copy is in the host's own, which is D:\VMs.
			device := strings.Replace(b.snapshot.Devices[volume], hostfs.ShadowDevice, `D:\VMs\.hyperv\shadows\`, 1)
			const epoch = 116444736000000000 // 1970 in units of 100 ns since 1601
			return 0, []any{device, volume, b.snapshot.Taken.UnixNano()/100 + epoch}
		}
	}
	return codeOf(vss.ObjectNotFound), nil
}

// snapshotID is the id of the n-th snapshot of a requester.
func snapshotID(n int) string { return fmt.Sprintf("{00000000-0000-4000-8000-%012X}", n) }

// codeOf is the HRESULT of an error.
func codeOf(err error) uint32 {
	var code vss.Code
	switch {
	case err == nil:
		return 0
	case errors.As(err, &code):
		return uint32(code)
	}
	return unexpected
}
