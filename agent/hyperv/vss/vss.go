// Package vss is the seam to the Volume Shadow Copy Service of a Hyper-V host: what the Hyper-V writer offers for backup, and shadow copies of the volumes
// that a virtual machine lies on. What is in a shadow copy is read through hostfs, by the device path that the service gives it.
//
// Shadow copies are made in the context VSS_CTX_BACKUP: they are not persistent. One ends with its requester, and the requester with its process, so an
// agent that was killed leaves none; its next session takes a new one.
package vss

import (
	"context"
	"errors"
	"strings"
	"time"
)

// WriterID is the class id of the Microsoft Hyper-V VSS Writer.
const WriterID = "66841CD4-6DED-4F4B-8F17-FD23F8DDC3DE"

// Service makes requesters on one host. It is safe for concurrent use.
type Service interface {
	// Open makes a requester of a backup of this type. ErrDisconnected when none can be started.
	Open(ctx context.Context, kind BackupType) (Requester, error)
	// Delete removes the shadow copies of a set whose requester is gone. Nil when there are none, so a second call does nothing.
	Delete(ctx context.Context, setID string) error
}

// BackupType is VSS_BACKUP_TYPE: what the backup means for the logs of the applications in the guests that the Hyper-V writer asks to quiesce.
type BackupType int

// The backup types.
const (
	// Full lets applications truncate their logs.
	Full BackupType = 1
	// Copy has them leave their logs alone.
	Copy BackupType = 5
)

// Requester is one backup of one virtual machine through VSS. Its methods are called once each and in this order, by one goroutine at a time. After an error
// of Begin or Snapshot, and when ctx ended in one of them, it is good for Close alone: the backup starts again with a new one.
type Requester interface {
	// Components lists what the Hyper-V writer offers: one component for each virtual machine. ErrNoWriter on an edition of Windows without the writer, and
	// while Hyper-V's management service is stopped.
	Components(ctx context.Context) ([]Component, error)

	// Begin starts a snapshot set and adds the volumes to it; nothing happens to the virtual machine yet. The id is what Service.Delete takes.
	// SnapshotSetInProgress while another requester makes one: try again.
	Begin(ctx context.Context, request Request) (setID string, err error)

	// Snapshot has the writer get ready and makes the shadow copies. When it returns, with an error or without, the writer may have saved the virtual machine
	// and not have resumed it. A failure of the writer is a WriterError.
	Snapshot(ctx context.Context) (Snapshot, error)

	// Complete ends the backup: the writer is told whether it succeeded, and the shadow copies are deleted.
	Complete(ctx context.Context, succeeded bool) error

	// Close aborts a backup that was not completed, and ends the requester and with it its shadow copies. A second call does nothing.
	Close() error
}

// Request says what to take a snapshot of.
type Request struct {
	// Component of the virtual machine.
	Component Component `json:"component"`
	// Uninvolved leaves the writer out: the component is not selected, nobody is asked to quiesce or saves the virtual machine, and the files are as after a
	// loss of power.
	Uninvolved bool `json:"uninvolved,omitempty"`
	// Volumes that the component's files lie on, each with a trailing backslash: `D:\`.
	Volumes []string `json:"volumes"`
	// Provider is the id of the VSS provider, "" for the one that Windows chooses.
	Provider string `json:"provider,omitempty"`
}

// Snapshot is a set of shadow copies, all of one moment.
type Snapshot struct {
	// Devices are the shadow copies by their volume as the request names it, such as `\\?\GLOBALROOT\Device\HarddiskVolumeShadowCopy7`.
	Devices map[string]string `json:"devices"`
	// Taken is the moment, by the host's clock.
	Taken time.Time `json:"taken"`
}

// Path is where a file of a volume lies in its shadow copy, "" when the set does not hold the volume.
func (s Snapshot) Path(path string) string {
	nearest := ""
	for volume := range s.Devices {
		if len(volume) > len(nearest) && len(path) >= len(volume) && strings.EqualFold(path[:len(volume)], volume) {
			nearest = volume
		}
	}
	if nearest == "" {
		return ""
	}
	return s.Devices[nearest] + `\` + path[len(nearest):]
}

var (
	// ErrNoWriter means that the host has no Hyper-V writer.
	ErrNoWriter = errors.New("the host has no Hyper-V VSS writer")
	// ErrDisconnected means that the requester is not reachable (any more), and its shadow copies are gone.
	ErrDisconnected = errors.New("the VSS requester is not reachable")
)
