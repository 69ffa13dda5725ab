package wmi

import "errors"

// What a session can answer besides instances.
var (
	ErrDisconnected     = errors.New("the WMI service is not reachable")
	ErrNotFound         = errors.New("no such WMI object")
	ErrInvalidNamespace = errors.New("no such WMI namespace")
	ErrInvalidClass     = errors.New("no such WMI class")
	ErrInvalidQuery     = errors.New("invalid WQL query")
	ErrInvalidMethod    = errors.New("no such WMI method")
	ErrInvalidParameter = errors.New("invalid WMI method parameter")
	ErrAccessDenied     = errors.New("access to WMI denied")
)
