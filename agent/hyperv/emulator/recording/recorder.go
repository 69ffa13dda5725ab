package recording

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"sync"

	"github.com/hyperkeep/hyperkeep/agent/extent"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/emulator/internal/wire"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/hostfs"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/virtdisk"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

// Recorder writes what a host answers. It is safe for concurrent use.
type Recorder struct {
	clock wmi.Clock

	mu     sync.Mutex
	lines  *json.Encoder
	failed error
}

// NewRecorder begins a recording. It writes the header at once; what cannot be written is told by Err and disturbs no call.
func NewRecorder(w io.Writer, agent string, clock wmi.Clock) *Recorder {
	r := &Recorder{clock: clock, lines: json.NewEncoder(w)}
	r.failed = r.lines.Encode(Header{Format: format, Version: version, Made: clock.Now().UTC(), Agent: agent})
	return r
}

// Err is the first error of writing; the recording is then of no use.
func (r *Recorder) Err() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.failed == nil {
		return nil
	}
	return fmt.Errorf("write the recording: %w", r.failed)
}

// Session records a session in a namespace. It is a wmi.Describer; where the other is none, describing is an error that is recorded, too.
func (r *Recorder) Session(namespace string, s wmi.Session) wmi.Session {
	return recordedSession{r, namespace, s}
}

// Disks records the virtual-disk service. It attaches disks where the other does; what is read from them is not recorded.
func (r *Recorder) Disks(s virtdisk.Service) virtdisk.Service {
	if attacher, able := s.(virtdisk.Attacher); able {
		return attachingDisks{recordedDisks{r, s}, attacher}
	}
	return recordedDisks{r, s}
}

// attachingDisks is recordedDisks of a service that attaches disks.
type attachingDisks struct {
	recordedDisks
	virtdisk.Attacher
}

// Files records what files there are, not what is in them.
func (r *Recorder) Files(f hostfs.FS) hostfs.FS { return recordedFiles{f, r} }

// Note runs a call of none of the seams and records it under a name. Out must be plain JSON.
func Note[Out any](r *Recorder, name string, run func() (Out, error)) (Out, error) {
	return record(r, name, struct{}{}, run)
}

// record runs a call and writes it down.
func record[In, Out any](r *Recorder, call string, in In, run func() (Out, error)) (Out, error) {
	return recordAs(r, call, in, run, func(out Out) any { return out })
}

// recordAs is record for an answer that JSON alone would not keep.
func recordAs[In, Out any](r *Recorder, call string, in In, run func() (Out, error), onWire func(Out) any) (Out, error) {
	began := r.clock.Now()
	out, err := run()
	e := entry{Call: call, Error: wire.NewError(err), Millis: r.clock.Now().Sub(began).Milliseconds()}
	e.In, _ = json.Marshal(in) // what goes in was a call, so it can be written
	if err == nil {
		var failed error
		if e.Out, failed = json.Marshal(onWire(out)); failed != nil {
			e.Error = wire.NewError(fmt.Errorf("the answer cannot be recorded: %w", failed))
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.failed == nil {
		r.failed = r.lines.Encode(e)
	}
	return out, err
}

type recordedSession struct {
	*Recorder
	namespace string
	session   wmi.Session
}

func (s recordedSession) Query(ctx context.Context, wql string) ([]wmi.Instance, error) {
	in := wire.WMI{Namespace: s.namespace, Query: wql}
	return recordAs(s.Recorder, callQuery, in, func() ([]wmi.Instance, error) { return s.session.Query(ctx, wql) }, instances)
}

func (s recordedSession) Associators(ctx context.Context, path, assocClass, resultClass string) ([]wmi.Instance, error) {
	in := wire.WMI{Namespace: s.namespace, Path: path, AssocClass: assocClass, ResultClass: resultClass}
	return recordAs(s.Recorder, callAssociators, in, func() ([]wmi.Instance, error) {
		return s.session.Associators(ctx, path, assocClass, resultClass)
	}, instances)
}

func instances(all []wmi.Instance) any { return wire.FromInstances(all) }

func (s recordedSession) Get(ctx context.Context, path string) (wmi.Instance, error) {
	in := wire.WMI{Namespace: s.namespace, Path: path}
	return recordAs(s.Recorder, callGet, in, func() (wmi.Instance, error) { return s.session.Get(ctx, path) }, func(i wmi.Instance) any {
		return wire.Instance{Path: i.Path, Class: i.Class, Properties: i.Properties}
	})
}

func (s recordedSession) Invoke(ctx context.Context, path, method string, in wmi.Params) (wmi.Result, error) {
	q := wire.WMI{Namespace: s.namespace, Path: path, Method: method, Params: wire.Values(in)}
	return recordAs(s.Recorder, callInvoke, q, func() (wmi.Result, error) { return s.session.Invoke(ctx, path, method, in) }, func(r wmi.Result) any {
		return wire.Result{ReturnValue: r.ReturnValue, Out: r.Out}
	})
}

func (s recordedSession) Describe(ctx context.Context, class string) (wmi.Class, error) {
	return record(s.Recorder, callDescribe, wire.WMI{Namespace: s.namespace, Class: class}, func() (wmi.Class, error) {
		describer, able := s.session.(wmi.Describer)
		if !able {
			return wmi.Class{}, fmt.Errorf("%w: this session cannot describe classes", wmi.ErrInvalidMethod)
		}
		return describer.Describe(ctx, class)
	})
}

func (s recordedSession) Close() error { return s.session.Close() }

type recordedDisks struct {
	*Recorder
	service virtdisk.Service
}

func (d recordedDisks) Info(ctx context.Context, path string) (virtdisk.Info, error) {
	return record(d.Recorder, callInfo, wire.Disk{Path: path}, func() (virtdisk.Info, error) { return d.service.Info(ctx, path) })
}

func (d recordedDisks) EnableChangeTracking(ctx context.Context, path string) error {
	_, err := record(d.Recorder, callTrack, wire.Disk{Path: path}, func() (struct{}, error) {
		return struct{}{}, d.service.EnableChangeTracking(ctx, path)
	})
	return err
}

func (d recordedDisks) Changes(ctx context.Context, path, trackingID string, window extent.Extent) ([]extent.Extent, int64, error) {
	in := wire.Disk{Path: path, TrackingID: trackingID, Window: window}
	out, err := record(d.Recorder, callChanges, in, func() (wire.Changes, error) {
		changed, processed, err := d.service.Changes(ctx, path, trackingID, window)
		return wire.Changes{Changed: changed, Processed: processed}, err
	})
	return out.Changed, out.Processed, err
}

// recordedFiles passes on what opens and changes files.
type recordedFiles struct {
	hostfs.FS
	recorder *Recorder
}

func (f recordedFiles) Stat(ctx context.Context, path string) (fs.FileInfo, error) {
	return recordAs(f.recorder, callStat, wire.Disk{Path: path}, func() (fs.FileInfo, error) { return f.FS.Stat(ctx, path) },
		func(i fs.FileInfo) any { return fileOf(i) })
}

func (f recordedFiles) ReadDir(ctx context.Context, path string) ([]fs.FileInfo, error) {
	return recordAs(f.recorder, callReadDir, wire.Disk{Path: path}, func() ([]fs.FileInfo, error) { return f.FS.ReadDir(ctx, path) },
		func(all []fs.FileInfo) any {
			out := make([]file, 0, len(all))
			for _, i := range all {
				out = append(out, fileOf(i))
			}
			return out
		})
}

func (f recordedFiles) Space(ctx context.Context, path string) (hostfs.Space, error) {
	return record(f.recorder, callSpace, wire.Disk{Path: path}, func() (hostfs.Space, error) { return f.FS.Space(ctx, path) })
}
