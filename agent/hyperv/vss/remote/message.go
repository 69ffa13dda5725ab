package remote

import (
	"context"
	"errors"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/vss"
)

// call is one line to the requester's process. Its name is that of a method of vss.Service or vss.Requester.
type call struct {
	Name      string         `json:"name"`
	Type      vss.BackupType `json:"type,omitempty"`      // Open
	Request   *vss.Request   `json:"request,omitempty"`   // Begin
	Succeeded bool           `json:"succeeded,omitempty"` // Complete
	Set       string         `json:"set,omitempty"`       // Delete
}

// answer is the line that answers a call.
type answer struct {
	Components []vss.Component `json:"components,omitempty"`
	Set        string          `json:"set,omitempty"`
	Snapshot   vss.Snapshot    `json:"snapshot,omitzero"`
	Error      *failure        `json:"error,omitempty"`
}

// failure is an error that keeps its identity for errors.Is and errors.As on the other side.
type failure struct {
	Message string          `json:"message"`
	Code    vss.Code        `json:"code,omitempty"`
	State   vss.WriterState `json:"state,omitempty"`
	Kinds   []string        `json:"kinds,omitempty"`
}

var kinds = map[string]error{
	"ErrNoWriter": vss.ErrNoWriter, "ErrDisconnected": vss.ErrDisconnected,
	"context.Canceled": context.Canceled, "context.DeadlineExceeded": context.DeadlineExceeded,
}

func failureOf(err error) *failure {
	if err == nil {
		return nil
	}
	f := &failure{Message: err.Error()}
	_ = errors.As(err, &f.Code) // stays zero without one
	if writer, ok := errors.AsType[*vss.WriterError](err); ok {
		f.Code, f.State = writer.Code, writer.State
	}
	for name, kind := range kinds {
		if errors.Is(err, kind) {
			f.Kinds = append(f.Kinds, name)
		}
	}
	return f
}

// Error implements error.
func (f *failure) Error() string { return f.Message }

// Unwrap gives back what the error was.
func (f *failure) Unwrap() []error {
	var out []error
	switch {
	case f.State != 0:
		out = append(out, &vss.WriterError{State: f.State, Code: f.Code})
	case f.Code != 0:
		out = append(out, f.Code)
	}
	for _, name := range f.Kinds {
		if kind := kinds[name]; kind != nil {
			out = append(out, kind)
		}
	}
	return out
}
