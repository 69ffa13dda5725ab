package vss

import (
	"errors"
	"fmt"
)

// Code is an HRESULT of VSS. It is an error, so that errors.Is finds it.
type Code uint32

// The codes that VSS and its writers answer (vss.h, vswriter.h).
const (
	BadState                Code = 0x80042301
	Unexpected              Code = 0x80042302
	ProviderNotRegistered   Code = 0x80042304
	ProviderVeto            Code = 0x80042306
	ObjectNotFound          Code = 0x80042308
	VolumeNotSupported      Code = 0x8004230C
	UnexpectedProviderError Code = 0x8004230F
	TooManyVolumes          Code = 0x80042312
	FlushWritesTimeout      Code = 0x80042313
	HoldWritesTimeout       Code = 0x80042314
	SnapshotSetInProgress   Code = 0x80042316
	TooManySnapshots        Code = 0x80042317
	WriterInfrastructure    Code = 0x80042318
	WriterNotResponding     Code = 0x80042319
	VolumeInUse             Code = 0x8004231D
	InsufficientStorage     Code = 0x8004231F
	RebootRequired          Code = 0x80042327
	FreezeTimeout           Code = 0x80042328
	ThawTimeout             Code = 0x80042329
	NestedVolumeLimit       Code = 0x8004232C
	VolumeNotLocal          Code = 0x8004232D
	ClusterTimeout          Code = 0x8004232E
	WriterPartialFailure    Code = 0x80042336
	WriterInconsistent      Code = 0x800423F0
	WriterOutOfResources    Code = 0x800423F1
	WriterTimeout           Code = 0x800423F2
	WriterRetryable         Code = 0x800423F3
	WriterNonRetryable      Code = 0x800423F4
	WriterRecoveryFailed    Code = 0x800423F5
	AutoRecoveryFailed      Code = 0x800423FB
	ClusterError            Code = 0x80042400
	WriterStatusMissing     Code = 0x80042409
	AccessDenied            Code = 0x80070005 // E_ACCESSDENIED
	InvalidArgument         Code = 0x80070057 // E_INVALIDARG
)

// meanings are what a person reads: the name that searching finds, and what it means.
var meanings = map[Code]string{
	BadState:                "VSS_E_BAD_STATE: called in the wrong order",
	Unexpected:              "VSS_E_UNEXPECTED: see the host's application event log",
	ProviderNotRegistered:   "VSS_E_PROVIDER_NOT_REGISTERED: the host does not have the VSS provider",
	ProviderVeto:            "VSS_E_PROVIDER_VETO: the VSS provider refused",
	ObjectNotFound:          "VSS_E_OBJECT_NOT_FOUND",
	VolumeNotSupported:      "VSS_E_VOLUME_NOT_SUPPORTED: no VSS provider supports the volume",
	UnexpectedProviderError: "VSS_E_UNEXPECTED_PROVIDER_ERROR: the VSS provider failed",
	TooManyVolumes:          "VSS_E_MAXIMUM_NUMBER_OF_VOLUMES_REACHED",
	FlushWritesTimeout:      "VSS_E_FLUSH_WRITES_TIMEOUT: flushing the volume took too long",
	HoldWritesTimeout:       "VSS_E_HOLD_WRITES_TIMEOUT: the volume could not be held still",
	SnapshotSetInProgress:   "VSS_E_SNAPSHOT_SET_IN_PROGRESS: another backup makes a shadow copy",
	TooManySnapshots:        "VSS_E_MAXIMUM_NUMBER_OF_SNAPSHOTS_REACHED: delete old shadow copies of the volume",
	WriterInfrastructure:    "VSS_E_WRITER_INFRASTRUCTURE: the VSS writers do not work; see vssadmin list writers",
	WriterNotResponding:     "VSS_E_WRITER_NOT_RESPONDING",
	VolumeInUse:             "VSS_E_VOLUME_IN_USE",
	InsufficientStorage:     "VSS_E_INSUFFICIENT_STORAGE: the volume has no room for shadow copies",
	RebootRequired:          "VSS_E_REBOOT_REQUIRED",
	FreezeTimeout:           "VSS_E_TRANSACTION_FREEZE_TIMEOUT",
	ThawTimeout:             "VSS_E_TRANSACTION_THAW_TIMEOUT",
	NestedVolumeLimit:       "VSS_E_NESTED_VOLUME_LIMIT",
	VolumeNotLocal:          "VSS_E_VOLUME_NOT_LOCAL: the volume is on another computer",
	ClusterTimeout:          "VSS_E_CLUSTER_TIMEOUT: another node of the cluster did not answer",
	WriterPartialFailure:    "VSS_E_WRITERERROR_PARTIAL_FAILURE",
	WriterInconsistent:      "VSS_E_WRITERERROR_INCONSISTENTSNAPSHOT",
	WriterOutOfResources:    "VSS_E_WRITERERROR_OUTOFRESOURCES",
	WriterTimeout:           "VSS_E_WRITERERROR_TIMEOUT: the virtual machine took too long to quiesce",
	WriterRetryable:         "VSS_E_WRITERERROR_RETRYABLE",
	WriterNonRetryable:      "VSS_E_WRITERERROR_NONRETRYABLE: see the Hyper-V event log of the host",
	WriterRecoveryFailed:    "VSS_E_WRITERERROR_RECOVERY_FAILED",
	AutoRecoveryFailed:      "VSS_E_AUTORECOVERY_FAILED",
	ClusterError:            "VSS_E_CLUSTER_ERROR",
	WriterStatusMissing:     "VSS_E_WRITER_STATUS_NOT_AVAILABLE",
	AccessDenied:            "E_ACCESSDENIED: the agent needs the rights of an administrator or backup operator",
	InvalidArgument:         "E_INVALIDARG",
}

// Error implements error.
func (c Code) Error() string {
	if meaning := meanings[c]; meaning != "" {
		return fmt.Sprintf("%s (0x%08X)", meaning, uint32(c))
	}
	return fmt.Sprintf("HRESULT 0x%08X", uint32(c))
}

// Retryable tells whether the same may succeed later (documented for DoSnapshotSet and for the writers' own errors).
func (c Code) Retryable() bool {
	switch c {
	case ProviderVeto, UnexpectedProviderError, FlushWritesTimeout, HoldWritesTimeout, SnapshotSetInProgress, WriterTimeout, WriterRetryable:
		return true
	}
	return false
}

// Retryable tells whether an error holds a Code that is.
func Retryable(err error) bool {
	var code Code
	return errors.As(err, &code) && code.Retryable()
}

// WriterState is VSS_WRITER_STATE.
type WriterState int

// The states from which on a writer has failed, at the step that the name says. Those below are a writer at work.
const (
	FailedAtIdentify        WriterState = 6
	FailedAtPrepareBackup   WriterState = 7
	FailedAtPrepareSnapshot WriterState = 8
	FailedAtFreeze          WriterState = 9
	FailedAtThaw            WriterState = 10
	FailedAtPostSnapshot    WriterState = 11
	FailedAtBackupComplete  WriterState = 12
)

// Failed tells a state that is a failure.
func (s WriterState) Failed() bool { return s >= FailedAtIdentify }

func (s WriterState) String() string {
	steps := map[WriterState]string{
		FailedAtIdentify: "identify", FailedAtPrepareBackup: "prepare backup", FailedAtPrepareSnapshot: "prepare snapshot", FailedAtFreeze: "freeze",
		FailedAtThaw: "thaw", FailedAtPostSnapshot: "post snapshot", FailedAtBackupComplete: "backup complete",
	}
	if step := steps[s]; step != "" {
		return step
	}
	return fmt.Sprintf("state %d", int(s))
}

// WriterError is a failure of the Hyper-V writer, or of the guest that it asked.
type WriterError struct {
	State WriterState
	Code  Code
}

func (e *WriterError) Error() string {
	return fmt.Sprintf("the Hyper-V writer failed at %s: %v", e.State, e.Code)
}

// Unwrap gives the writer's code.
func (e *WriterError) Unwrap() error { return e.Code }
