package vhdx_test

import (
	"io"
	"math/rand/v2"
	"sync"
)

const pageSize = 16 << 10

// memory is sparse storage in memory.
type memory struct {
	mu    sync.RWMutex
	pages map[int64]*[pageSize]byte
	size  int64
}

func newMemory() *memory { return &memory{pages: make(map[int64]*[pageSize]byte)} }

func (m *memory) Size() int64 {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.size
}

func (m *memory) ReadAt(p []byte, off int64) (int, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	want := len(p)
	p = p[:max(0, min(int64(len(p)), m.size-off))]
	for done := 0; done < len(p); {
		at := off + int64(done)
		n := min(len(p)-done, int(pageSize-at%pageSize))
		if page := m.pages[at/pageSize]; page != nil {
			copy(p[done:done+n], page[at%pageSize:])
		} else {
			clear(p[done : done+n])
		}
		done += n
	}
	if len(p) < want {
		return len(p), io.EOF
	}
	return want, nil
}

func (m *memory) WriteAt(p []byte, off int64) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for done := 0; done < len(p); {
		at := off + int64(done)
		page := m.pages[at/pageSize]
		if page == nil {
			page = new([pageSize]byte)
			m.pages[at/pageSize] = page
		}
		done += copy(page[at%pageSize:], p[done:])
	}
	m.size = max(m.size, off+int64(len(p)))
	return len(p), nil
}

func (m *memory) Truncate(size int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for number, page := range m.pages {
		if start := number * pageSize; start >= size {
			delete(m.pages, number)
		} else if start+pageSize > size {
			clear(page[size-start:])
		}
	}
	m.size = size
	return nil
}

func (m *memory) Sync() error { return nil }

func (m *memory) clone() *memory {
	c := newMemory()
	c.size = m.size
	for number, page := range m.pages {
		dup := *page
		c.pages[number] = &dup
	}
	return c
}

// operation is one call that changed a storage. Neither data nor truncated means Sync.
type operation struct {
	file      string
	data      []byte
	offset    int64
	truncated bool
	mark      int // calls of the owner that had returned when this one was made
}

// journal records the operations on several storages in one order.
type journal struct {
	mu         sync.Mutex
	operations []operation
	mark       int
}

func (j *journal) add(o operation) {
	j.mu.Lock()
	defer j.mu.Unlock()
	o.mark = j.mark
	j.operations = append(j.operations, o)
}

// recorder is storage that writes a journal.
type recorder struct {
	*memory
	name    string
	journal *journal
}

func (r recorder) WriteAt(p []byte, off int64) (int, error) {
	r.journal.add(operation{file: r.name, data: append([]byte(nil), p...), offset: off})
	return r.memory.WriteAt(p, off)
}

func (r recorder) Truncate(size int64) error {
	r.journal.add(operation{file: r.name, offset: size, truncated: true})
	return r.memory.Truncate(size)
}

func (r recorder) Sync() error {
	r.journal.add(operation{file: r.name})
	return nil
}

func (o operation) isSync() bool { return !o.truncated && o.data == nil }

func apply(files map[string]*memory, o operation) {
	m := files[o.file]
	if m == nil {
		m = newMemory()
		files[o.file] = m
	}
	switch {
	case o.truncated:
		_ = m.Truncate(o.offset)
	case o.data != nil:
		_, _ = m.WriteAt(o.data, o.offset)
	}
}

// afterKill builds the storages as a killed process leaves them: all operations before n, and of the next one, if it is a write, the
// first few whole sectors.
func afterKill(operations []operation, n int, random *rand.Rand) map[string]*memory {
	files := make(map[string]*memory)
	for _, o := range operations[:n] {
		apply(files, o)
	}
	if n < len(operations) && operations[n].data != nil {
		o := operations[n]
		sectors := (len(o.data) + 511) / 512
		if keep := random.IntN(sectors); keep > 0 {
			o.data = o.data[:keep*512]
			apply(files, o)
		}
	}
	return files
}

// anyPoint picks a place to crash from an operation on: mostly next to a store to a table, where an order matters.
func (j *journal) anyPoint(start int, random *rand.Rand) int {
	var tables []int
	for n := start; n < len(j.operations); n++ {
		if size := len(j.operations[n].data); size > 0 && size <= 512 {
			tables = append(tables, n, n+1)
		}
	}
	if len(tables) == 0 || random.IntN(4) == 0 {
		return start + random.IntN(len(j.operations)-start+1)
	}
	return tables[random.IntN(len(tables))]
}

// afterPowerLoss builds the storages as a loss of power leaves them: everything before the last Sync of each, and of what came later any
// sectors, and sizes up to any point, because file systems keep sizes in a journal.
func afterPowerLoss(operations []operation, random *rand.Rand) map[string]*memory {
	synced := make(map[string]int)
	for i, o := range operations {
		if o.isSync() {
			synced[o.file] = i
		}
	}
	files, sizes, sizesEnd := make(map[string]*memory), make(map[string]int64), make(map[string]bool)
	for i, o := range operations {
		durable := i < synced[o.file]
		if o.truncated {
			apply(files, o)
			sizesEnd[o.file] = sizesEnd[o.file] || !durable && random.IntN(2) == 0
			if !sizesEnd[o.file] {
				sizes[o.file] = o.offset
			}
			continue
		}
		if durable {
			apply(files, o)
			continue
		}
		for at := 0; at < len(o.data); {
			n := min(len(o.data)-at, 512-int((o.offset+int64(at))%512))
			if random.IntN(2) == 0 {
				apply(files, operation{file: o.file, data: o.data[at : at+n], offset: o.offset + int64(at)})
			}
			at += n
		}
	}
	for name, size := range sizes {
		_ = files[name].Truncate(size)
	}
	return files
}
