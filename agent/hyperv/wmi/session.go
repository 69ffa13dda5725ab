// Package wmi is the seam between what the agent knows about Hyper-V and the host's WMI service. Everything above it is portable.
//
// A Session queries, gets and invokes; it knows nothing of Hyper-V. There are two kinds: the host's own WMI service on Windows, and the
// emulated Hyper-V host everywhere. Both pass the contract suite in wmitest.
package wmi

import "context"

// Namespaces that the agent uses.
const (
	NamespaceVirtualization = `root\virtualization\v2`
	NamespaceCIMv2          = `root\cimv2`
	NamespaceCluster        = `root\MSCluster`
)

// Session is a connection to one WMI namespace. It is safe for concurrent use.
//
// Every call returns ErrDisconnected when the service went away (its restart, an emulator that was killed); the session
// reconnects by itself at the next call, so the caller retries later and drops nothing but the paths of running jobs.
type Session interface {
	// Query runs a WQL SELECT over one class and returns the matching instances. No match is an empty result, not an error.
	// ErrInvalidClass and ErrInvalidQuery mean a mistake of ours, ErrInvalidNamespace a feature that the host lacks.
	Query(ctx context.Context, wql string) ([]Instance, error)

	// Get returns the instance at an object path. ErrNotFound when there is none (any more).
	Get(ctx context.Context, path string) (Instance, error)

	// Associators returns the instances of resultClass that assocClass ties to the instance at path.
	Associators(ctx context.Context, path, assocClass, resultClass string) ([]Instance, error)

	// Invoke calls a method of the instance at path, with parameters by name. A parameter that the method lacks, or of a wrong type, is
	// ErrInvalidParameter and nothing was called. A method that ran and refused is no error here: see Result.ReturnValue and Call.
	// Invoke may be repeated only where the method may.
	Invoke(ctx context.Context, path, method string, in Params) (Result, error)

	// Close ends the session. A second call does nothing.
	Close() error
}

// Params are a method's input parameters by name. Values are string, bool, int64 (integers of every width), []string, []int64, Object (an
// embedded instance, which Hyper-V takes as text) and []Object. Parameters that are left out are NULL.
type Params map[string]any

// Object is an embedded instance that goes into a method. With an empty Path it is a new instance of Class; with a Path it is the instance
// that lives there, its other properties unchanged. Only the properties named are set.
type Object struct {
	Class      string         `json:"class"`
	Path       string         `json:"path,omitempty"`
	Properties map[string]any `json:"properties,omitempty"`
}

// Result is what a method answered.
type Result struct {
	// ReturnValue is the method's own: 0 done, 4096 a job was started, anything else refused.
	ReturnValue uint32 `json:"returnValue"`
	// Out has the output parameters by name. References are object paths, embedded instances their XML text.
	Out map[string]any `json:"out,omitempty"`
}
