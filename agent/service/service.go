// Package service is what the agent does as a Windows service, and what only an installation has: its settings, its log, its private folder, its
// entry in the service manager and its events in the event log. It knows nothing of the agent's work.
//
// Everything lies in one folder, %ProgramData%\Hyperkeep, which SYSTEM and Administrators alone may open: config.yaml, kubeconfig, token, state and logs.
// The program is copied to %ProgramFiles%\Hyperkeep, because whoever may replace it would be SYSTEM.
package service

import (
	"context"
	"errors"
)

// Name of the service, and of its source in the event log.
const Name = "Hyperkeep"

// ErrWindowsOnly is returned by what needs Windows, elsewhere.
var ErrWindowsOnly = errors.New("this is for Windows hosts: elsewhere the agent is started as agent host or agent keeper")

// ErrNotPrivate means that others than SYSTEM and Administrators may read or change what has to be theirs alone.
var ErrNotPrivate = errors.New("others may get at it")

// Event is an id in the event log. What an id means never changes.
type Event uint32

// The events. EventCreate.exe, which formats them, knows the ids 1 to 1000.
const (
	// EventStarted says that the agent works.
	EventStarted Event = 1
	// EventStopped says that it ended because it was told to.
	EventStopped Event = 2
	// EventFailed says why it ended by itself. The service manager starts it anew.
	EventFailed Event = 3
	// EventStopOverdue says that it was ended before its tasks had let go of the host. Its next start takes them up where they stand.
	EventStopOverdue Event = 4
	// EventTokenTrouble says that the token could not be renewed, and what to do.
	EventTokenTrouble Event = 5
)

// Events takes what an administrator is to see in the event log.
type Events interface {
	// Report writes one event. It never fails: a log that is full keeps nobody from working.
	Report(event Event, message string)
}

// Work is what the service does until ctx ends.
type Work func(ctx context.Context, events Events) error
