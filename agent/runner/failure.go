package runner

import (
	"context"
	"errors"
	"fmt"

	"github.com/hyperkeep/hyperkeep/agent/hyperv"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/hostfs"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/virtdisk"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/vss"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
	"github.com/hyperkeep/hyperkeep/agent/image"
	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
)

// taskError is a failure with the words for the status. Its message holds no secret.
type taskError struct {
	failure v1alpha1.Failure
	cause   error
}

func (e *taskError) Error() string { return e.failure.Message }
func (e *taskError) Unwrap() error { return e.cause }

// retry is a failure that may go away by itself.
func retry(reason string, err error) error { return newTaskError(reason, v1alpha1.FailureRetry, err) }

// stall is a failure that needs a person or a change of the spec.
func stall(reason string, err error) error { return newTaskError(reason, v1alpha1.FailureStall, err) }

func newTaskError(reason string, action v1alpha1.FailureAction, err error) error {
	return &taskError{
		failure: v1alpha1.Failure{Reason: reason, Message: cut(err.Error(), 2048), Action: action},
		cause:   err,
	}
}

// Why a running task's context ends. They are causes, so that the verdict can tell them apart.
var (
	errCanceled = errors.New("the task was canceled")
	errDeadline = errors.New("the task's deadline has passed")
	errStopping = errors.New("the agent is stopping")
)

// known is every failure that a sentinel identifies, the most telling first.
var known = []struct {
	is     error
	reason string
	action v1alpha1.FailureAction
	advice string
}{
	{errCanceled, v1alpha1.ReasonCanceled, v1alpha1.FailureStall, ""},
	{errDeadline, v1alpha1.ReasonDeadlineExceeded, v1alpha1.FailureStall, "raise runDeadlineSeconds, or find out what is slow"},
	{ErrClaimLost, "ClaimLost", v1alpha1.FailureRetry, ""},
	{hyperv.ErrVMNotFound, v1alpha1.ReasonVirtualMachineGone, v1alpha1.FailureStall, "it was deleted or moved to another host"},
	{hyperv.ErrVSSUnavailable, v1alpha1.ReasonVSSServiceUnavailable, v1alpha1.FailureStall, ""},
	{hyperv.ErrNotInWriter, "NotInVSSWriter", v1alpha1.FailureStall, "see vssadmin list writers on the host, or use the method WMI"},
	{vss.ProviderNotRegistered, v1alpha1.ReasonVSSProviderNotFound, v1alpha1.FailureStall, "choose one that vssadmin list providers shows on the host: spec.vssProvider of its HyperVHost"},
	{vss.ErrNoWriter, "NoVSSWriter", v1alpha1.FailureStall, "check that the Hyper-V Virtual Machine Management service runs"},
	{hyperv.ErrForeignCheckpoint, "ForeignCheckpoint", v1alpha1.FailureRetry, "let the other product finish, or remove its checkpoint"},
	{hyperv.ErrUserCheckpoints, "UserCheckpoints", v1alpha1.FailureStall, ""},
	{hyperv.ErrNoCopy, "GuestBackupType", v1alpha1.FailureStall, "set consistency.guestBackupType to Full, or its level to ApplicationThenCrash"},
	{hyperv.ErrQuiesce, "QuiesceFailed", v1alpha1.FailureStall, "repair the guest's integration services, or allow ApplicationThenCrash"},
	{hyperv.ErrVMState, "VirtualMachineState", v1alpha1.FailureStall, ""},
	{hyperv.ErrBusy, v1alpha1.ReasonVirtualMachineBusy, v1alpha1.FailureRetry, ""},
	{hyperv.ErrDiskMismatch, "DiskMismatch", v1alpha1.FailureStall, ""},
	{hyperv.ErrPath, "UnusablePath", v1alpha1.FailureStall, ""},
	{hyperv.ErrNotOurs, "NotOurs", v1alpha1.FailureStall, ""},
	{hyperv.ErrNoSpace, "HostVolumeFull", v1alpha1.FailureRetry, "free space on the host"},
	{hostfs.ErrFull, "HostVolumeFull", v1alpha1.FailureRetry, "free space on the host"},
	{hostfs.ErrPath, "UnusablePath", v1alpha1.FailureStall, "name a folder on one of the host's own volumes"},
	{wmi.ErrDisconnected, "HyperVUnreachable", v1alpha1.FailureRetry, "check that the Hyper-V services of the host run"},
	{virtdisk.ErrDisconnected, "HyperVUnreachable", v1alpha1.FailureRetry, "check that the Hyper-V services of the host run"},
	{image.ErrChanging, v1alpha1.ReasonChangingPassword, v1alpha1.FailureRetry, ""},
	{image.ErrWrongPassword, v1alpha1.ReasonWrongPassword, v1alpha1.FailureStall, "put the repository's own password into its Secret"},
	{image.ErrAccessDenied, v1alpha1.ReasonAccessDenied, v1alpha1.FailureStall, "check the credential in the repository's Secret and the rights on its location"},
	{image.ErrNoLock, v1alpha1.ReasonObjectLockMissing, v1alpha1.FailureStall, ""},
	{ErrLeaseLost, "LeaseLost", v1alpha1.FailureRetry, ""},
	{image.ErrClock, v1alpha1.ReasonClockDistrusted, v1alpha1.FailureRetry, ""},
	{image.ErrLocked, v1alpha1.ReasonImageLocked, v1alpha1.FailureRetry, ""},
	{image.ErrNotUsable, v1alpha1.ReasonRepositoryUnusable, v1alpha1.FailureStall, "correct the repository's location"},
	{image.ErrNoRepository, v1alpha1.ReasonRepositoryNotFound, v1alpha1.FailureStall, "the keeper makes the repository once it is ready; if it was there before, bring its files back"},
	{image.ErrFull, v1alpha1.ReasonRepositoryFull, v1alpha1.FailureRetry, "free space at the repository, or let images expire sooner"},
	{image.ErrUnreachable, v1alpha1.ReasonRepositoryUnreachable, v1alpha1.FailureRetry, "check the network and that the location is mounted"},
	{image.ErrImageNotFound, v1alpha1.ReasonImageNotFound, v1alpha1.FailureStall, "the image is not in the repository any more; choose another one"},
	{image.ErrImageMismatch, v1alpha1.ReasonImageMismatch, v1alpha1.FailureStall, "somebody has put it there under the same id: find out who has the repository's password, and choose another image"},
	{image.ErrDamaged, v1alpha1.ReasonDamaged, v1alpha1.FailureStall, "verify the image, and choose another one"},
}

// failureOf says in the status's words what an error is.
func failureOf(err error) v1alpha1.Failure {
	var classified *taskError
	if errors.As(err, &classified) {
		return classified.failure
	}
	for _, k := range known {
		if errors.Is(err, k.is) {
			message := err.Error()
			if k.advice != "" {
				message += "; " + k.advice
			}
			return v1alpha1.Failure{Reason: k.reason, Message: cut(message, 2048), Action: k.action}
		}
	}
	return v1alpha1.Failure{Reason: v1alpha1.ReasonFailed, Message: cut(err.Error(), 2048), Action: v1alpha1.FailureRetry}
}

// causeOf replaces the bare error of an ended context by what ended it.
func causeOf(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); err != nil && cause != nil && !errors.Is(err, cause) {
		return fmt.Errorf("%w (%w)", cause, err)
	}
	return err
}
