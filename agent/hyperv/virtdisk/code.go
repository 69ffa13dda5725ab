package virtdisk

import (
	"errors"
	"fmt"
)

// Error is a function of virtdisk.dll, or a read of an attached disk, that failed. errors.Is finds what its code stands for among the errors of this package.
type Error struct {
	// Function is the name of the Windows function.
	Function string
	// Code is what it returned: a Win32 error, or one of the virtual disk service's own, which start at 0xC03A0000 (winerror.h).
	Code uint32
}

// The codes that this package knows, as winerror.h names them.
const (
	CodeFileNotFound       uint32 = 2          // ERROR_FILE_NOT_FOUND
	CodePathNotFound       uint32 = 3          // ERROR_PATH_NOT_FOUND
	CodeAccessDenied       uint32 = 5          // ERROR_ACCESS_DENIED
	CodeInvalidHandle      uint32 = 6          // ERROR_INVALID_HANDLE
	CodeGeneralFailure     uint32 = 31         // ERROR_GEN_FAILURE
	CodeSharingViolation   uint32 = 32         // ERROR_SHARING_VIOLATION
	CodeLockViolation      uint32 = 33         // ERROR_LOCK_VIOLATION
	CodeNotSupported       uint32 = 50         // ERROR_NOT_SUPPORTED
	CodeInvalidParameter   uint32 = 87         // ERROR_INVALID_PARAMETER
	CodeInsufficientBuffer uint32 = 122        // ERROR_INSUFFICIENT_BUFFER
	CodeProcNotFound       uint32 = 127        // ERROR_PROC_NOT_FOUND
	CodeMoreData           uint32 = 234        // ERROR_MORE_DATA
	CodeLimitation         uint32 = 665        // ERROR_FILE_SYSTEM_LIMITATION
	CodeNotReady           uint32 = 21         // ERROR_NOT_READY
	CodePrivilegeNotHeld   uint32 = 1314       // ERROR_PRIVILEGE_NOT_HELD
	CodeServerUnavailable  uint32 = 1722       // RPC_S_SERVER_UNAVAILABLE
	CodeInvalidType        uint32 = 0xC03A001B // ERROR_VHD_INVALID_TYPE: no parent where one was asked for
	CodeTrackingIDInvalid  uint32 = 0xC03A0029 // ERROR_VHD_INVALID_CHANGE_TRACKING_ID
	CodeTrackingDisabled   uint32 = 0xC03A002A // ERROR_VHD_CHANGE_TRACKING_DISABLED
	CodeTrackingMissing    uint32 = 0xC03A0030 // ERROR_VHD_MISSING_CHANGE_TRACKING_INFORMATION

	codeCorruptFirst   uint32 = 0xC03A0001 // ERROR_VHD_DRIVE_FOOTER_MISSING
	codeFormatUnknown  uint32 = 0xC03A0004 // ERROR_VHD_FORMAT_UNKNOWN
	codeNotVirtualDisk uint32 = 0xC03A0015 // ERROR_VIRTDISK_NOT_VIRTUAL_DISK
	codeCorruptLast    uint32 = 0xC03A0019 // ERROR_VHD_DIFFERENCING_CHAIN_ERROR_IN_PARENT
	codeDiskLimitation uint32 = 0xC03A001A // ERROR_VIRTUAL_DISK_LIMITATION
)

// meanings are the codes' errors. Where several codes mean the same, the first is what Code answers.
var meanings = []struct {
	code uint32
	err  error
}{
	{CodeFileNotFound, ErrFileNotFound}, {CodePathNotFound, ErrFileNotFound},
	{CodeSharingViolation, ErrInUse}, {CodeLockViolation, ErrInUse},
	{CodeAccessDenied, ErrAccessDenied}, {CodePrivilegeNotHeld, ErrAccessDenied},
	{CodeNotSupported, ErrTrackingUnsupported},
	{CodeTrackingIDInvalid, ErrTrackingLost}, {CodeTrackingDisabled, ErrTrackingLost}, {CodeTrackingMissing, ErrTrackingLost},
	{CodeServerUnavailable, ErrDisconnected},
	{CodeLimitation, ErrLimitation}, {codeDiskLimitation, ErrLimitation},
	{codeFormatUnknown, ErrNotVirtualDisk},
}

// Error names the function and the code, and says in words what the code means where this package knows.
func (e *Error) Error() string {
	if meaning := e.Unwrap(); meaning != nil {
		return fmt.Sprintf("%s: %v (error %s)", e.Function, meaning, codeText(e.Code))
	}
	return fmt.Sprintf("%s: error %s", e.Function, codeText(e.Code))
}

// codeText is how Windows' documents write a code.
func codeText(code uint32) string {
	if code > 0xFFFF {
		return fmt.Sprintf("0x%08X", code)
	}
	return fmt.Sprint(code)
}

// Unwrap is what the code stands for, nil when it has no error of its own here.
func (e *Error) Unwrap() error {
	if e.Code == CodeNotSupported && !e.tracking() {
		return nil
	}
	for _, m := range meanings {
		if m.code == e.Code {
			return m.err
		}
	}
	if e.Code >= codeCorruptFirst && e.Code <= codeCorruptLast {
		return ErrNotVirtualDisk
	}
	return nil
}

// tracking says whether the function is about change tracking.
func (e *Error) tracking() bool {
	return e.Function == "QueryChangesVirtualDisk" || e.Function == "SetVirtualDiskInformation"
}

// Code is the number by which Windows would tell an error: that of an *Error, else one that stands for it, else CodeGeneralFailure. Zero for nil.
func Code(err error) uint32 {
	if err == nil {
		return 0
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	for _, m := range meanings {
		if errors.Is(err, m.err) {
			return m.code
		}
	}
	return CodeGeneralFailure
}
