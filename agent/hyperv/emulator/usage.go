package emulator

import (
	"maps"
	"sync"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/emulator/internal/wire"
)

// Usage counts what was done with a host, for tests that must know which calls were made, and whether all was given back. It is safe for
// concurrent use.
type Usage struct {
	mu     sync.Mutex
	counts wire.Usage
}

// UsageCounts is a state of a Usage.
type UsageCounts = wire.Usage

// Count counts a call, such as "Msvm_ComputerSystem.RequestStateChange", that returned a code. A call whose job failed counts once more, with the
// error code of the job.
func (u *Usage) Count(call string, code uint32) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.counts.Calls == nil {
		u.counts.Calls = make(map[string]map[uint32]int)
	}
	if u.counts.Calls[call] == nil {
		u.counts.Calls[call] = make(map[uint32]int)
	}
	u.counts.Calls[call][code]++
}

// Hold counts n more automation objects that a program holds; n may be negative.
func (u *Usage) Hold(n int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.counts.Objects += n
}

// Leak counts n automation objects that a program held when it ended. Those of a program that was killed are among them.
func (u *Usage) Leak(n int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.counts.Objects -= n
	u.counts.Leaked += n
}

// Counts returns what was counted up to now.
func (u *Usage) Counts() UsageCounts {
	u.mu.Lock()
	defer u.mu.Unlock()
	out := u.counts
	out.Calls = make(map[string]map[uint32]int, len(u.counts.Calls))
	for call, codes := range u.counts.Calls {
		out.Calls[call] = maps.Clone(codes)
	}
	return out
}
