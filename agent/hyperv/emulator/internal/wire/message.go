package wire

import (
	"context"
	"errors"
	"io/fs"

	"github.com/hyperkeep/hyperkeep/agent/extent"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/hostfs"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/virtdisk"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

// Paths of the emulator's HTTP interface. All take a POST with a JSON body and answer an Answer.
const (
	PathQuery       = "/wmi/query"
	PathGet         = "/wmi/get"
	PathAssociators = "/wmi/associators"
	PathInvoke      = "/wmi/invoke"
	PathDescribe    = "/wmi/describe"
	PathWatch       = "/wmi/watch" // answers a stream: an empty Event once the subscription stands, then the events
	PathInfo        = "/virtdisk/info"
	PathTrack       = "/virtdisk/track"
	PathChanges     = "/virtdisk/changes"
	PathAttach      = "/virtdisk/attach" // upgrades the connection: an Attached; at a byte from the client an empty answer, and the end
	PathMapping     = "/mapping"
	PathVSS         = "/vss" // upgrades the connection to one of vss/remote
	PathFault       = "/faults/fail"
	PathMerges      = "/faults/merges"
	PathTracking    = "/faults/tracking"
	PathTrouble     = "/faults/trouble"
	PathHappening   = "/faults/happening"
	PathJobs        = "/faults/jobs"
	PathQuiesced    = "/faults/quiesced"
	PathRestart     = "/faults/restart"
	PathUsage       = "/usage"
)

// WMI is a call of a WMI session.
type WMI struct {
	Namespace   string `json:"namespace"`
	Query       string `json:"query,omitempty"`
	Path        string `json:"path,omitempty"`
	Class       string `json:"class,omitempty"`
	AssocClass  string `json:"assocClass,omitempty"`
	ResultClass string `json:"resultClass,omitempty"`
	Method      string `json:"method,omitempty"`
	Params      Values `json:"params,omitempty"`
}

// Instance is a wmi.Instance.
type Instance struct {
	Path       string `json:"path"`
	Class      string `json:"class"`
	Properties Values `json:"properties"`
}

// FromInstances converts instances for the wire.
func FromInstances(in []wmi.Instance) []Instance {
	out := make([]Instance, 0, len(in))
	for _, i := range in {
		out = append(out, FromInstance(i))
	}
	return out
}

// FromInstance converts an instance for the wire.
func FromInstance(i wmi.Instance) Instance { return Instance{i.Path, i.Class, i.Properties} }

// WMI converts an instance back.
func (i Instance) WMI() wmi.Instance {
	return wmi.Instance{Path: i.Path, Class: i.Class, Properties: i.Properties}
}

// Event is a wmi.Event.
type Event struct {
	Class    string   `json:"class,omitempty"`
	Target   Instance `json:"target,omitzero"`
	Previous Instance `json:"previous,omitzero"`
}

// FromEvent converts an event for the wire.
func FromEvent(e wmi.Event) Event {
	return Event{e.Class, FromInstance(e.Target), FromInstance(e.Previous)}
}

// WMI converts an event back.
func (e Event) WMI() wmi.Event {
	return wmi.Event{Class: e.Class, Target: e.Target.WMI(), Previous: e.Previous.WMI()}
}

// Result is a wmi.Result.
type Result struct {
	ReturnValue uint32 `json:"returnValue"`
	Out         Values `json:"out,omitempty"`
}

// Disk is a call of the virtual-disk service, or a fault of a disk.
type Disk struct {
	Path       string        `json:"path"`
	TrackingID string        `json:"trackingID,omitempty"`
	Window     extent.Extent `json:"window,omitzero"`
}

// Attach attaches a disk.
type Attach struct {
	Path string       `json:"path"`
	Way  virtdisk.Way `json:"way"`
}

// Attached is where the content of an attached disk lies, raw.
type Attached struct {
	Path string `json:"path"` // Windows path
	Size int64  `json:"size"`
}

// Changes is the answer to a question for changes.
type Changes struct {
	Changed   []extent.Extent `json:"changed"`
	Processed int64           `json:"processed"`
}

// Merges holds all merges, or lets them go on.
type Merges struct {
	Hold bool `json:"hold"`
}

// Answer is a value or an error.
type Answer[T any] struct {
	Value T      `json:"value,omitzero"`
	Error *Error `json:"error,omitempty"`
}

// Error is an error that keeps its identity for errors.Is on the other side.
type Error struct {
	Message string   `json:"message"`
	Kinds   []string `json:"kinds,omitempty"`
}

// kinds are the errors that callers tell apart.
var kinds = map[string]error{
	"wmi.ErrDisconnected":             wmi.ErrDisconnected,
	"wmi.ErrNotFound":                 wmi.ErrNotFound,
	"wmi.ErrInvalidNamespace":         wmi.ErrInvalidNamespace,
	"wmi.ErrInvalidClass":             wmi.ErrInvalidClass,
	"wmi.ErrInvalidQuery":             wmi.ErrInvalidQuery,
	"wmi.ErrInvalidMethod":            wmi.ErrInvalidMethod,
	"wmi.ErrInvalidParameter":         wmi.ErrInvalidParameter,
	"wmi.ErrAccessDenied":             wmi.ErrAccessDenied,
	"virtdisk.ErrFileNotFound":        virtdisk.ErrFileNotFound,
	"virtdisk.ErrNotVirtualDisk":      virtdisk.ErrNotVirtualDisk,
	"virtdisk.ErrInUse":               virtdisk.ErrInUse,
	"virtdisk.ErrAccessDenied":        virtdisk.ErrAccessDenied,
	"virtdisk.ErrLimitation":          virtdisk.ErrLimitation,
	"virtdisk.ErrTrackingUnsupported": virtdisk.ErrTrackingUnsupported,
	"virtdisk.ErrTrackingLost":        virtdisk.ErrTrackingLost,
	"virtdisk.ErrDisconnected":        virtdisk.ErrDisconnected,
	"hostfs.ErrPath":                  hostfs.ErrPath,
	"hostfs.ErrFull":                  hostfs.ErrFull,
	"fs.ErrNotExist":                  fs.ErrNotExist,
	"fs.ErrPermission":                fs.ErrPermission,
	"context.Canceled":                context.Canceled,
	"context.DeadlineExceeded":        context.DeadlineExceeded,
}

// NewError converts an error for the wire; nil stays nil.
func NewError(err error) *Error {
	if err == nil {
		return nil
	}
	e := &Error{Message: err.Error()}
	for name, kind := range kinds {
		if errors.Is(err, kind) {
			e.Kinds = append(e.Kinds, name)
		}
	}
	return e
}

// Error implements error.
func (e *Error) Error() string { return e.Message }

// Unwrap lets errors.Is find what the error was on the other side.
func (e *Error) Unwrap() []error {
	var out []error
	for _, name := range e.Kinds {
		if kind := kinds[name]; kind != nil {
			out = append(out, kind)
		}
	}
	return out
}
