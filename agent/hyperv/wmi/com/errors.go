//go:build windows

package com

import (
	"errors"
	"fmt"
	"strings"

	"github.com/go-ole/go-ole"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

var errClosed = fmt.Errorf("%w: the session is closed", wmi.ErrDisconnected)

// HRESULTs (winerror.h, wbemcli.h).
const (
	hrFalse       = 0x00000001 // S_FALSE: the end of an enumeration
	hrException   = 0x80020009 // DISP_E_EXCEPTION: the code is in EXCEPINFO
	hrTimedOut    = 0x80043001 // wbemErrTimedout: no event came
	hrNotFound    = 0x80041002 // WBEM_E_NOT_FOUND
	hrTypeMatch   = 0x80041005 // WBEM_E_TYPE_MISMATCH
	hrOutOfRange  = 0x8004102B // WBEM_E_VALUE_OUT_OF_RANGE
	hrDispType    = 0x80020005 // DISP_E_TYPEMISMATCH
	hrDispRange   = 0x8002000A // DISP_E_OVERFLOW
	hrUnknownName = 0x80020006 // DISP_E_UNKNOWNNAME
)

// meanings are the codes that callers tell apart. Those of a service that goes away or comes up are many.
var meanings = map[uint32]error{
	hrNotFound: wmi.ErrNotFound,
	0x8004103A: wmi.ErrNotFound, // WBEM_E_INVALID_OBJECT_PATH

	0x80041003: wmi.ErrAccessDenied, // WBEM_E_ACCESS_DENIED
	0x80041062: wmi.ErrAccessDenied, // WBEM_E_PRIVILEGE_NOT_HELD
	0x80041064: wmi.ErrAccessDenied, // WBEM_E_LOCAL_CREDENTIALS
	0x80070005: wmi.ErrAccessDenied, // E_ACCESSDENIED

	0x8004100E: wmi.ErrInvalidNamespace, // WBEM_E_INVALID_NAMESPACE
	0x80041010: wmi.ErrInvalidClass,     // WBEM_E_INVALID_CLASS
	0x80041017: wmi.ErrInvalidQuery,     // WBEM_E_INVALID_QUERY
	0x80041018: wmi.ErrInvalidQuery,     // WBEM_E_INVALID_QUERY_TYPE
	0x80041058: wmi.ErrInvalidQuery,     // WBEM_E_UNPARSABLE_QUERY
	0x80041059: wmi.ErrInvalidClass,     // WBEM_E_NOT_EVENT_CLASS
	0x8004105A: wmi.ErrInvalidQuery,     // WBEM_E_MISSING_GROUP_WITHIN
	0x80042001: wmi.ErrInvalidQuery,     // WBEMESS_E_REGISTRATION_TOO_BROAD
	0x80042002: wmi.ErrInvalidQuery,     // WBEMESS_E_REGISTRATION_TOO_PRECISE
	0x8004102E: wmi.ErrInvalidMethod,    // WBEM_E_INVALID_METHOD
	0x80041055: wmi.ErrInvalidMethod,    // WBEM_E_METHOD_NOT_IMPLEMENTED
	0x80041056: wmi.ErrInvalidMethod,    // WBEM_E_METHOD_DISABLED
	0x8004102F: wmi.ErrInvalidParameter, // WBEM_E_INVALID_METHOD_PARAMETERS
	0x80041008: wmi.ErrInvalidParameter, // WBEM_E_INVALID_PARAMETER

	0x80041014: wmi.ErrDisconnected, // WBEM_E_INITIALIZATION_FAILURE
	0x80041015: wmi.ErrDisconnected, // WBEM_E_TRANSPORT_FAILURE
	0x80041032: wmi.ErrDisconnected, // WBEM_E_CALL_CANCELLED: by the service, as it stops
	0x80041033: wmi.ErrDisconnected, // WBEM_E_SHUTTING_DOWN
	0x80041071: wmi.ErrDisconnected, // WBEM_E_CONNECTION_FAILED
	0x80041086: wmi.ErrDisconnected, // WBEM_E_FATAL_TRANSPORT_ERROR
	0x80041088: wmi.ErrDisconnected, // WBEM_E_PROVIDER_TIMED_OUT
	0x80010007: wmi.ErrDisconnected, // RPC_E_SERVER_DIED
	0x80010012: wmi.ErrDisconnected, // RPC_E_SERVER_DIED_DNE
	0x80010105: wmi.ErrDisconnected, // RPC_E_SERVERFAULT
	0x80010108: wmi.ErrDisconnected, // RPC_E_DISCONNECTED
	0x800401FD: wmi.ErrDisconnected, // CO_E_OBJNOTCONNECTED
	0x80080005: wmi.ErrDisconnected, // CO_E_SERVER_EXEC_FAILURE
	0x80070046: wmi.ErrDisconnected, // ERROR_SHARING_PAUSED: the cluster service starts
	0x80070422: wmi.ErrDisconnected, // ERROR_SERVICE_DISABLED
	0x8007045B: wmi.ErrDisconnected, // ERROR_SHUTDOWN_IN_PROGRESS
	0x800706BA: wmi.ErrDisconnected, // RPC_S_SERVER_UNAVAILABLE
	0x800706BE: wmi.ErrDisconnected, // RPC_S_CALL_FAILED
	0x800706BF: wmi.ErrDisconnected, // RPC_S_CALL_FAILED_DNE
	0x800706D9: wmi.ErrDisconnected, // EPT_S_NOT_REGISTERED: the cluster's provider starts
}

// Error is what COM or WMI answered.
type Error struct {
	// Op is what was done.
	Op string
	// Code is the HRESULT: that of the exception, where there was one.
	Code uint32
	// Text is the host's explanation, in the host's language; it may be "".
	Text string
}

// Error implements error.
func (e *Error) Error() string {
	if e.Text == "" {
		return fmt.Sprintf("%s: error %#x", e.Op, e.Code)
	}
	return fmt.Sprintf("%s: %s (error %#x)", e.Op, e.Text, e.Code)
}

// Unwrap returns the meaning of the code, an error of package wmi.
func (e *Error) Unwrap() error { return meanings[e.Code] }

// explain converts an error of the OLE library; nil stays nil.
func explain(op string, err error) error {
	var failed *ole.OleError
	if !errors.As(err, &failed) {
		if err == nil {
			return nil
		}
		return fmt.Errorf("%s: %w", op, err)
	}
	e := &Error{Op: op, Code: uint32(failed.Code())}
	var exception ole.EXCEPINFO
	if errors.As(failed.SubError(), &exception) {
		e.Text = strings.TrimSuffix(strings.TrimSpace(exception.Error()), ".")
		if e.Code == hrException && exception.SCODE() != 0 {
			e.Code = exception.SCODE()
		}
	}
	return e
}

// hasCode says whether an error is one of these HRESULTs.
func hasCode(err error, codes ...uint32) bool {
	var failed *Error
	if !errors.As(err, &failed) {
		return false
	}
	for _, code := range codes {
		if failed.Code == code {
			return true
		}
	}
	return false
}
