package recording

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"
	"time"

	"github.com/hyperkeep/hyperkeep/agent/extent"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/emulator/internal/wire"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/hostfs"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/virtdisk"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

// ErrNotRecorded means that a recording was asked something that its host was not.
var ErrNotRecorded = errors.New("not in the recording")

// Recording answers as its host did. The same call gets the recorded answers in their order, and the last one from then on. It is safe for
// concurrent use.
type Recording struct {
	Header Header

	mu      sync.Mutex
	entries []entry
	answers map[string][]entry
}

// Load reads a recording. ErrFormat.
func Load(r io.Reader) (*Recording, error) {
	rec := &Recording{answers: map[string][]entry{}}
	var err error
	rec.Header, err = readEntries(r, func(e entry) error {
		key, err := e.key()
		if err != nil {
			return err
		}
		rec.entries = append(rec.entries, e)
		rec.answers[key] = append(rec.answers[key], e)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("load a recording: %w", err)
	}
	return rec, nil
}

// Session answers for a namespace. It is a wmi.Describer.
func (r *Recording) Session(namespace string) wmi.Session { return replayedSession{r, namespace} }

// Disks answers for the virtual-disk service.
func (r *Recording) Disks() virtdisk.Service { return replayedDisks{r} }

// Files answers for the host's files. Their contents are ErrNotRecorded.
func (r *Recording) Files() hostfs.FS { return replayedFiles{r} }

// Noted is the answer of a call that was recorded by Note.
func Noted[Out any](r *Recording, name string) (Out, error) { return replay[Out](r, name, struct{}{}) }

// replay finds the answer to a call.
func replay[Out any](r *Recording, call string, in any) (Out, error) {
	var out Out
	text, err := json.Marshal(in)
	if err != nil {
		return out, err
	}
	key, err := entry{Call: call, In: text}.key()
	if err != nil {
		return out, err
	}
	e, found := r.next(key)
	if !found {
		return out, fmt.Errorf("%w: %s", ErrNotRecorded, key)
	}
	if e.Error != nil {
		return out, e.Error
	}
	if err := json.Unmarshal(e.Out, &out); err != nil {
		return out, fmt.Errorf("%w: the answer to %s: %w", ErrFormat, key, err)
	}
	return out, nil
}

func (r *Recording) next(key string) (entry, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	answers := r.answers[key]
	if len(answers) == 0 {
		return entry{}, false
	}
	if len(answers) > 1 {
		r.answers[key] = answers[1:]
	}
	return answers[0], true
}

type replayedSession struct {
	recording *Recording
	namespace string
}

func (s replayedSession) Query(_ context.Context, wql string) ([]wmi.Instance, error) {
	return s.instances(callQuery, wire.WMI{Namespace: s.namespace, Query: wql})
}

func (s replayedSession) Associators(_ context.Context, path, assocClass, resultClass string) ([]wmi.Instance, error) {
	return s.instances(callAssociators, wire.WMI{Namespace: s.namespace, Path: path, AssocClass: assocClass, ResultClass: resultClass})
}

func (s replayedSession) instances(call string, in wire.WMI) ([]wmi.Instance, error) {
	all, err := replay[[]wire.Instance](s.recording, call, in)
	if err != nil {
		return nil, err
	}
	out := make([]wmi.Instance, 0, len(all))
	for _, i := range all {
		out = append(out, i.WMI())
	}
	return out, nil
}

func (s replayedSession) Get(_ context.Context, path string) (wmi.Instance, error) {
	i, err := replay[wire.Instance](s.recording, callGet, wire.WMI{Namespace: s.namespace, Path: path})
	return i.WMI(), err
}

func (s replayedSession) Invoke(_ context.Context, path, method string, in wmi.Params) (wmi.Result, error) {
	r, err := replay[wire.Result](s.recording, callInvoke, wire.WMI{Namespace: s.namespace, Path: path, Method: method, Params: wire.Values(in)})
	return wmi.Result{ReturnValue: r.ReturnValue, Out: r.Out}, err
}

func (s replayedSession) Describe(_ context.Context, class string) (wmi.Class, error) {
	return replay[wmi.Class](s.recording, callDescribe, wire.WMI{Namespace: s.namespace, Class: class})
}

func (s replayedSession) Close() error { return nil }

type replayedDisks struct{ recording *Recording }

func (d replayedDisks) Info(_ context.Context, path string) (virtdisk.Info, error) {
	return replay[virtdisk.Info](d.recording, callInfo, wire.Disk{Path: path})
}

func (d replayedDisks) EnableChangeTracking(_ context.Context, path string) error {
	_, err := replay[struct{}](d.recording, callTrack, wire.Disk{Path: path})
	return err
}

func (d replayedDisks) Changes(_ context.Context, path, trackingID string, window extent.Extent) ([]extent.Extent, int64, error) {
	out, err := replay[wire.Changes](d.recording, callChanges, wire.Disk{Path: path, TrackingID: trackingID, Window: window})
	return out.Changed, out.Processed, err
}

// file is what is known of a file. It is its own fs.FileInfo.
type file struct {
	Base     string    `json:"name"`
	Bytes    int64     `json:"size"`
	Modified time.Time `json:"modified"`
	Folder   bool      `json:"folder,omitempty"`
}

func fileOf(i fs.FileInfo) file {
	return file{Base: i.Name(), Bytes: i.Size(), Modified: i.ModTime(), Folder: i.IsDir()}
}

func (f file) Name() string       { return f.Base }
func (f file) Size() int64        { return f.Bytes }
func (f file) ModTime() time.Time { return f.Modified }
func (f file) IsDir() bool        { return f.Folder }
func (f file) Sys() any           { return nil }
func (f file) Mode() fs.FileMode {
	if f.Folder {
		return fs.ModeDir | 0o755
	}
	return 0o644
}

type replayedFiles struct{ recording *Recording }

func (f replayedFiles) Stat(_ context.Context, path string) (fs.FileInfo, error) {
	out, err := replay[file](f.recording, callStat, wire.Disk{Path: path})
	if err != nil {
		return nil, err
	}
	return out, nil
}

func (f replayedFiles) ReadDir(_ context.Context, path string) ([]fs.FileInfo, error) {
	all, err := replay[[]file](f.recording, callReadDir, wire.Disk{Path: path})
	var out []fs.FileInfo
	for _, i := range all {
		out = append(out, i)
	}
	return out, err
}

func (f replayedFiles) Space(_ context.Context, path string) (hostfs.Space, error) {
	return replay[hostfs.Space](f.recording, callSpace, wire.Disk{Path: path})
}

func contents(path string) error {
	return fmt.Errorf("%w: the contents and changes of files: %s", ErrNotRecorded, path)
}

func (replayedFiles) Open(_ context.Context, path string) (hostfs.File, error) {
	return nil, contents(path)
}

func (replayedFiles) OpenWrite(_ context.Context, path string) (hostfs.File, error) {
	return nil, contents(path)
}

func (replayedFiles) Create(_ context.Context, path string) (hostfs.File, error) {
	return nil, contents(path)
}

func (replayedFiles) Rename(_ context.Context, from, _ string) error { return contents(from) }

func (replayedFiles) Remove(_ context.Context, path string) error { return contents(path) }
