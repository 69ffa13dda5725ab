package image

import (
	"container/list"
	"sync"
)

// recent remembers the last few values that were asked for. It is safe for concurrent use.
type recent[K comparable, V any] struct {
	mu    sync.Mutex
	limit int
	order *list.List // of remembered, the latest in front
	known map[K]*list.Element
}

type remembered[K comparable, V any] struct {
	key   K
	value V
}

func newRecent[K comparable, V any](limit int) *recent[K, V] {
	return &recent[K, V]{limit: limit, order: list.New(), known: map[K]*list.Element{}}
}

func (r *recent[K, V]) get(key K) (V, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e, ok := r.known[key]
	if !ok {
		var none V
		return none, false
	}
	r.order.MoveToFront(e)
	return e.Value.(remembered[K, V]).value, true
}

func (r *recent[K, V]) put(key K, value V) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e, ok := r.known[key]; ok {
		r.order.MoveToFront(e)
		return
	}
	r.known[key] = r.order.PushFront(remembered[K, V]{key, value})
	if r.order.Len() > r.limit {
		oldest := r.order.Remove(r.order.Back()).(remembered[K, V])
		delete(r.known, oldest.key)
	}
}
