package vhdx

import (
	"container/list"
	"io"
	"sync"
)

const (
	cachePageSize = 4 * kib
	cachePages    = 1024 // 4 MiB for each file
)

// pageCache keeps the pages of the BAT and of sector bitmaps that were used last, because whole tables can have hundreds of MiB. It
// is safe for concurrent use.
type pageCache struct {
	r     io.ReaderAt
	mu    sync.Mutex
	pages map[int64]*list.Element // by page number in the file
	used  *list.List              // of *cachePage, most recently used first
}

type cachePage struct {
	number int64
	data   [cachePageSize]byte
}

func newPageCache(r io.ReaderAt) *pageCache {
	return &pageCache{r: r, pages: make(map[int64]*list.Element), used: list.New()}
}

// read fills p from the file. Only whole pages are read, so the table at offset must be made of them.
func (c *pageCache) read(p []byte, offset int64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(p) > 0 {
		page, err := c.load(offset / cachePageSize)
		if err != nil {
			return err
		}
		n := copy(p, page.data[offset%cachePageSize:])
		p, offset = p[n:], offset+int64(n)
	}
	return nil
}

// write stores p in the file and then in the pages that are cached. The lock spans both, so no reader can load a page in between and
// keep its old content.
func (c *pageCache) write(w io.WriterAt, p []byte, offset int64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, err := w.WriteAt(p, offset); err != nil {
		return err
	}
	for len(p) > 0 {
		n := int(min(int64(len(p)), cachePageSize-offset%cachePageSize))
		if e, ok := c.pages[offset/cachePageSize]; ok {
			copy(e.Value.(*cachePage).data[offset%cachePageSize:], p[:n])
		}
		p, offset = p[n:], offset+int64(n)
	}
	return nil
}

func (c *pageCache) load(number int64) (*cachePage, error) {
	if e, ok := c.pages[number]; ok {
		c.used.MoveToFront(e)
		return e.Value.(*cachePage), nil
	}
	page := c.evict()
	if err := readFull(c.r, page.data[:], number*cachePageSize); err != nil {
		return nil, err
	}
	page.number = number
	c.pages[number] = c.used.PushFront(page)
	return page, nil
}

// evict returns a page to fill: a new one, or the least recently used one when the cache is full.
func (c *pageCache) evict() *cachePage {
	if len(c.pages) < cachePages {
		return new(cachePage)
	}
	page := c.used.Remove(c.used.Back()).(*cachePage)
	delete(c.pages, page.number)
	return page
}
