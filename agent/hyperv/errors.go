package hyperv

import (
	"errors"
	"fmt"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

// What the calls of a Host can answer, by who must act: the first group passes by itself, the second is about one VM or disk and needs another way or a
// person. wmi.ErrDisconnected and virtdisk.ErrDisconnected pass as they are.
var (
	// ErrBusy: another operation works on the VM (checkpoint, merge, migration, replication, another backup). Try again later.
	ErrBusy = errors.New("another operation works on the virtual machine")
	// ErrForeignCheckpoint: a recovery checkpoint that is not ours exists, so another product backs this VM up. We never touch it. Try again later.
	ErrForeignCheckpoint = errors.New("another backup product holds a recovery checkpoint of the virtual machine")

	// ErrVMNotFound: the host has no such VM.
	ErrVMNotFound = errors.New("no such virtual machine on this host")
	// ErrVMState: the VM is in a state, or a replica role, in which this cannot be done.
	ErrVMState = errors.New("not possible in the state of the virtual machine")
	// ErrQuiesce: the guest did not get ready for an application-consistent checkpoint. A crash-consistent one can still succeed.
	ErrQuiesce = errors.New("the guest could not be quiesced")
	// ErrNoCopy: the host's Hyper-V cannot have a guest quiesce without letting its applications truncate their logs.
	ErrNoCopy = errors.New("the host cannot have the guest's applications leave their logs alone")
	// ErrNoSpace: a volume of the host is full.
	ErrNoSpace = errors.New("no space left on a volume of the host")
	// ErrCheckpointNotFound: the checkpoint does not exist (any more).
	ErrCheckpointNotFound = errors.New("no such checkpoint")
	// ErrReferencePointNotFound: the reference point does not exist (any more), or cannot be told from others with certainty.
	ErrReferencePointNotFound = errors.New("no such reference point")
	// ErrPath: a disk file lies where we do not read or write: outside of the host's fixed volumes, or in a chain that loops or is too deep.
	ErrPath = errors.New("unusable disk path")
	// ErrUserCheckpoints: the VM has checkpoints of its user, which replacing its disks would break.
	ErrUserCheckpoints = errors.New("the virtual machine has checkpoints")
	// ErrImportRefused: Hyper-V does not take a VM's configuration files, or what they define does not work on this host. It can be defined anew instead.
	ErrImportRefused = errors.New("Hyper-V refuses to import the configuration files")
	// ErrNotOurs: the object does not carry our mark, so we do not touch it.
	ErrNotOurs = errors.New("not made by Hyperkeep")
	// ErrDiskMismatch: a disk is not at the place, or not the file, that the request names.
	ErrDiskMismatch = errors.New("the virtual machine's disk is not the expected one")
)

// ErrTrackingLost is the class of every TrackingLostError, for errors.Is.
var ErrTrackingLost = errors.New("change tracking lost")

// TrackingLostReason says why an increment cannot be trusted.
type TrackingLostReason string

// The reasons of a TrackingLostError. They become the reason of the full read in status.
const (
	// NoTrackingID: the base has no tracking id for the disk.
	NoTrackingID TrackingLostReason = "NoTrackingID"
	// DiskReplaced: the disk at this place is another one than in the base.
	DiskReplaced TrackingLostReason = "DiskReplaced"
	// DiskResized: the disk has another size than in the base.
	DiskResized TrackingLostReason = "DiskResized"
	// AnotherFile: the disk was not built on what it was at the base: a checkpoint was applied since, or its file was moved.
	AnotherFile TrackingLostReason = "AnotherFile"
	// TrackingDisabled: the disk is not tracked.
	TrackingDisabled TrackingLostReason = "TrackingDisabled"
	// TrackingIDUnknown: the host cannot resolve the base's tracking id.
	TrackingIDUnknown TrackingLostReason = "TrackingIDUnknown"
	// QueryFailed: the host failed to answer a change query, for a reason that says nothing of the tracking id.
	QueryFailed TrackingLostReason = "QueryFailed"
	// TrackingMalformed: the host answered a change query with something that no disk can have.
	TrackingMalformed TrackingLostReason = "TrackingMalformed"
)

// TrackingLostError means that what changed since a base cannot be known. The only right answer is a full read.
type TrackingLostError struct {
	Reason TrackingLostReason
	// Detail is for people.
	Detail string
}

func (e *TrackingLostError) Error() string {
	return fmt.Sprintf("change tracking lost: %s: %s", e.Reason, e.Detail)
}

// Is makes every TrackingLostError an ErrTrackingLost.
func (e *TrackingLostError) Is(target error) bool { return target == ErrTrackingLost }

// classify adds our meaning to a failed WMI call, for the classes that every operation shares.
func classify(err error) error {
	for _, c := range []struct{ is, means error }{
		{wmi.ErrFull, ErrNoSpace},
		{wmi.ErrBusy, ErrBusy},
		{wmi.ErrInvalidState, ErrBusy},
		{wmi.ErrUnavailable, ErrBusy},
	} {
		if errors.Is(err, c.is) {
			return fmt.Errorf("%w: %w", c.means, err)
		}
	}
	return err
}
