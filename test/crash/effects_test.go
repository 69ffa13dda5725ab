package crash

import (
	"fmt"
	"slices"
	"strings"
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

// pass does an effect, unless the process is killed before it. It says whether the process lives to hear of it.
func (e *effects) pass(name string, do func()) bool {
	number := e.begin(name)
	if e.strike(point{name, number, before}) {
		return false
	}
	do()
	return !e.strike(point{name, number, after})
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

// tap is where the effects of a process pass on their way to one place.
type tap struct {
	mu   sync.Mutex
	told *effects // nil while nobody counts
	only []string
}

// tell has the tap tell effects to e from now on; nil ends that.
func (t *tap) tell(e *effects) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.told = e
}

// limit has the tap tell only effects on what has one of the parts in its name.
func (t *tap) limit(parts ...string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.only = parts
}

// listener is who is told of an effect on something, nil for nobody.
func (t *tap) listener(something string) *effects {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.only == nil || slices.ContainsFunc(t.only, func(part string) bool { return strings.Contains(something, part) }) {
		return t.told
	}
	return nil
}
