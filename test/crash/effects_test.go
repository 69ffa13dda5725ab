package crash

import (
	"fmt"
	"sync"
)

// side is when a process is killed: before an effect takes place, or after it took place and before the process hears of it.
type side string

const (
	before side = "before"
	after  side = "after"
)

// point is a moment in the work of a process.
type point struct {
	effect string
	number int // of the effects with that name, from 1
	side   side
}

func (p point) String() string { return fmt.Sprintf("%s %s #%d", p.side, p.effect, p.number) }

// effects numbers the effects of one process and kills it at one of them.
type effects struct {
	mu    sync.Mutex
	count map[string]int
	order []point // as they came, with side before

	armed   *point
	kill    func()
	reached chan struct{}
}

// begin numbers an effect.
func (e *effects) begin(name string) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.count[name]++
	e.order = append(e.order, point{name, e.count[name], before})
	return e.count[name]
}

// strike kills the process when the point is the armed one, and says whether it did.
func (e *effects) strike(at point) bool {
	e.mu.Lock()
	hit := e.armed != nil && *e.armed == at
	if hit {
		e.armed = nil
	}
	e.mu.Unlock()
	if !hit {
		return false
	}
	e.kill()
	close(e.reached)
	return true
}

// counting returns effects that only count.
func counting() *effects { return &effects{count: map[string]int{}} }

// killing returns effects that kill at a point.
func killing(at point, kill func()) *effects {
	return &effects{count: map[string]int{}, armed: &at, kill: kill, reached: make(chan struct{})}
}

// seen returns the effects so far, in order.
func (e *effects) seen() []point {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]point(nil), e.order...)
}
