package preflight

import (
	"context"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/emulator/recording"
)

// Machine tells what no seam tells: about this process and the computer that it runs on.
type Machine interface {
	Facts(ctx context.Context) (Facts, error)
}

// Facts are about a process on Windows.
type Facts struct {
	// Platform is where the process runs, such as "windows/amd64". Elsewhere than on Windows there is nothing else to know.
	Platform string `json:"platform"`
	// Account is whom the process runs as.
	Account string `json:"account,omitempty"`
	// Elevated says that the process has all rights of its account: without them Hyper-V shows no virtual machines.
	Elevated bool `json:"elevated,omitempty"`
	// Privileges are those that the process holds, of the ones that we need, enabled or not.
	Privileges map[string]bool `json:"privileges,omitempty"`
	// Exports are the functions that we call, and whether this Windows has them, by "library!function".
	Exports map[string]bool `json:"exports,omitempty"`
}

// factsCall is the name under which facts are recorded.
const factsCall = "machine.facts"

// Recorded records what a machine tells.
func Recorded(r *recording.Recorder, m Machine) Machine { return recordedMachine{r, m} }

type recordedMachine struct {
	recorder *recording.Recorder
	machine  Machine
}

func (m recordedMachine) Facts(ctx context.Context) (Facts, error) {
	return recording.Note(m.recorder, factsCall, func() (Facts, error) { return m.machine.Facts(ctx) })
}

// Replayed tells what was recorded.
func Replayed(r *recording.Recording) Machine { return replayedMachine{r} }

type replayedMachine struct{ recording *recording.Recording }

func (m replayedMachine) Facts(context.Context) (Facts, error) {
	return recording.Noted[Facts](m.recording, factsCall)
}
