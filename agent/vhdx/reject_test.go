package vhdx_test

import (
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/hyperkeep/hyperkeep/agent/extent"
	"github.com/hyperkeep/hyperkeep/agent/vhdx"
)

// bendRegions changes both region tables.
func bendRegions(m *memory, f func(b []byte)) {
	bend(m, 192<<10, 64<<10, f)
	bend(m, 256<<10, 64<<10, f)
}

// put32 and put64 change a field that no checksum covers.
func put32(m *memory, at int64, v uint32) { _, _ = m.WriteAt(le.AppendUint32(nil, v), at) }
func put64(m *memory, at int64, v uint64) { _, _ = m.WriteAt(le.AppendUint64(nil, v), at) }

// The metadata items of files that Create makes, in their order in the table and in the region.
const (
	params       = metaAt + 64<<10
	virtualSize  = params + 8
	logicalSize  = virtualSize + 8 + 16
	physicalSize = logicalSize + 4
	locatorItem  = physicalSize + 4
	tableEntry   = metaAt + 32 // 32 bytes each
)

// TestBrokenFilesAreRefused has one mutant for each field of the headers, region tables, metadata and BAT that counts.
func TestBrokenFilesAreRefused(t *testing.T) {
	alien := uuid.MustParse("12345678-1234-1234-1234-123456789abc")
	corrupt, unsupported := vhdx.ErrCorrupt, vhdx.ErrUnsupported
	cases := map[string]struct {
		file int // of specimens: 0 dynamic, 1 differencing
		bend func(m *memory)
		want error
		says string
	}{
		"an empty file":              {0, func(m *memory) { must(t, m.Truncate(0)) }, unsupported, "vhdxfile"},
		"a file of 100 bytes":        {0, func(m *memory) { must(t, m.Truncate(100)) }, corrupt, "100 bytes"},
		"a file cut in the headers":  {0, func(m *memory) { must(t, m.Truncate(300<<10)) }, corrupt, "1 MiB"},
		"a file cut in the metadata": {0, func(m *memory) { must(t, m.Truncate(metaAt+4096)) }, corrupt, "end of the file"},
		"another signature":          {0, func(m *memory) { put32(m, 0, 1) }, unsupported, "no VHDX"},
		"a dynamic VHD":              {0, func(m *memory) { must(t, writeAll(m, []byte("conectix"), 0)) }, unsupported, "Convert-VHD"},
		"a VHD header":               {0, func(m *memory) { must(t, writeAll(m, []byte("cxsparse"), 0)) }, unsupported, "Convert-VHD"},
		"a fixed VHD":                {0, func(m *memory) { must(t, writeAll(m, []byte("conectix"), m.size-512)) }, unsupported, "Convert-VHD"},
		"both header signatures":     {0, func(m *memory) { bendHeaders(m, func(b []byte) { b[0] = 'x' }) }, corrupt, "headers"},
		"both header checksums":      {0, func(m *memory) { put32(m, 64<<10+8, 1); put32(m, 128<<10+8, 1) }, corrupt, "headers"},
		"a header version":           {0, func(m *memory) { bendHeaders(m, func(b []byte) { b[66] = 2 }) }, unsupported, "version 2"},
		"a log version":              {0, func(m *memory) { bendHeaders(m, func(b []byte) { b[64] = 1 }) }, unsupported, "version 1"},
		"headers that differ in one number": {0, func(m *memory) {
			bendHeaders(m, func(b []byte) { put(b[8:], 5) })
			bend(m, 64<<10, 4096, func(b []byte) { b[16]++ })
		}, corrupt, "sequence number 5"},
		"a log offset inside of a MiB": {0, func(m *memory) { bendHeaders(m, func(b []byte) { put(b[72:], 1<<20+4096) }) }, corrupt, "log"},
		"a log over the headers":       {0, func(m *memory) { bendHeaders(m, func(b []byte) { put(b[72:], 0) }) }, corrupt, "log"},
		"a log over the metadata":      {0, func(m *memory) { bendHeaders(m, func(b []byte) { put(b[72:], metaAt) }) }, corrupt, "overlap"},
		"a log behind the file":        {0, func(m *memory) { bendHeaders(m, func(b []byte) { put(b[72:], 1<<50) }) }, corrupt, "behind the end"},

		"both region signatures":         {0, func(m *memory) { bendRegions(m, func(b []byte) { b[0] = 'x' }) }, corrupt, "region tables"},
		"both region checksums":          {0, func(m *memory) { put32(m, 192<<10+16, 1); put32(m, 256<<10+16, 1) }, corrupt, "region tables"},
		"too many regions":               {0, func(m *memory) { bendRegions(m, func(b []byte) { b[9] = 8 }) }, corrupt, "2050 entries"},
		"no BAT":                         {0, func(m *memory) { bendRegions(m, func(b []byte) { b[44] = 0; copy(b[16:], alien[:]) }) }, corrupt, "block allocation table"},
		"no metadata":                    {0, func(m *memory) { bendRegions(m, func(b []byte) { b[8] = 1 }) }, corrupt, "metadata region"},
		"one region twice":               {0, func(m *memory) { bendRegions(m, func(b []byte) { copy(b[48:64], b[16:32]) }) }, corrupt, "twice"},
		"an unknown required region":     {0, func(m *memory) { addRegion(m, alien, 1) }, unsupported, "needs region"},
		"a region inside of a MiB":       {0, func(m *memory) { bendRegions(m, func(b []byte) { put(b[32:], batAt+4096) }) }, corrupt, "whole MiB"},
		"a region of half a MiB":         {0, func(m *memory) { bendRegions(m, func(b []byte) { le.PutUint32(b[40:], 1<<19) }) }, corrupt, "whole MiB"},
		"a region over the headers":      {0, func(m *memory) { bendRegions(m, func(b []byte) { put(b[32:], 0) }) }, corrupt, "behind the headers"},
		"a region behind the file":       {0, func(m *memory) { bendRegions(m, func(b []byte) { put(b[32:], 1<<63) }) }, corrupt, "behind the end"},
		"a region longer than the file":  {0, func(m *memory) { bendRegions(m, func(b []byte) { le.PutUint32(b[40:], 4<<30-1<<20) }) }, corrupt, "behind the end"},
		"a BAT over the metadata":        {0, func(m *memory) { bendRegions(m, func(b []byte) { put(b[32:], metaAt) }) }, corrupt, "overlap"},
		"a BAT too short for the disk":   {0, func(m *memory) { put64(m, virtualSize, 1<<40) }, corrupt, "needs"},
		"a metadata signature":           {0, func(m *memory) { put32(m, metaAt, 0) }, corrupt, "signature"},
		"too many metadata items":        {0, func(m *memory) { put32(m, metaAt+8, 3000<<16) }, corrupt, "3000 entries"},
		"an unknown required item":       {0, func(m *memory) { addItem(m, alien, 4) }, unsupported, "metadata item"},
		"an unknown required user item":  {0, func(m *memory) { addItem(m, alien, 5) }, unsupported, "metadata item"},
		"one item twice":                 {0, func(m *memory) { copyBytes(m, tableEntry+32, tableEntry, 16) }, corrupt, "twice"},
		"an item in the table":           {0, func(m *memory) { put32(m, tableEntry+16, 4096) }, corrupt, "outside"},
		"an item behind the region":      {0, func(m *memory) { put32(m, tableEntry+16, 1<<20-4) }, corrupt, "outside"},
		"an item of no length":           {0, func(m *memory) { put32(m, tableEntry+20, 0) }, corrupt, "outside"},
		"an item of enormous length":     {0, func(m *memory) { put32(m, tableEntry+20, 1<<31) }, corrupt, "outside"},
		"an item of the wrong length":    {0, func(m *memory) { put32(m, tableEntry+20, 7) }, corrupt, "7 bytes instead of 8"},
		"a missing item":                 {0, func(m *memory) { put32(m, tableEntry+32, 0); put32(m, tableEntry+32+24, 0) }, corrupt, "0 bytes instead"},
		"blocks of 3 MiB":                {0, func(m *memory) { put32(m, params, 3<<20) }, corrupt, "power of two"},
		"blocks of 512 KiB":              {0, func(m *memory) { put32(m, params, 1<<19) }, corrupt, "power of two"},
		"blocks of 512 MiB":              {0, func(m *memory) { put32(m, params, 1<<29) }, corrupt, "power of two"},
		"blocks of no size":              {0, func(m *memory) { put32(m, params, 0) }, corrupt, "power of two"},
		"a disk of no size":              {0, func(m *memory) { put64(m, virtualSize, 0) }, corrupt, "0 bytes"},
		"a disk of half a sector":        {0, func(m *memory) { put64(m, virtualSize, 8<<20+256) }, corrupt, "multiple"},
		"a disk of more than 64 TiB":     {0, func(m *memory) { put64(m, virtualSize, 64<<40+512) }, corrupt, "64 TiB"},
		"a disk of a negative size":      {0, func(m *memory) { put64(m, virtualSize, 1<<63) }, corrupt, "64 TiB"},
		"logical sectors of 1024 bytes":  {0, func(m *memory) { put32(m, logicalSize, 1024) }, corrupt, "logical"},
		"physical sectors of 1024 bytes": {0, func(m *memory) { put32(m, physicalSize, 1024) }, corrupt, "physical"},

		"a parent that is not named":          {0, func(m *memory) { put32(m, params+4, 2) }, corrupt, "names no parent"},
		"a locator of another type":           {1, func(m *memory) { put32(m, locatorItem, 0) }, unsupported, "type"},
		"a locator with too many entries":     {1, func(m *memory) { put32(m, locatorItem+16, 65<<16) }, corrupt, "65 entries"},
		"a locator key outside of the item":   {1, func(m *memory) { put32(m, locatorItem+20, 1<<30) }, corrupt, "outside of the locator"},
		"a locator value outside of the item": {1, func(m *memory) { put32(m, locatorItem+24, 1<<32-2) }, corrupt, "outside of the locator"},
		"a locator key of odd length":         {1, func(m *memory) { put32(m, locatorItem+28, 3) }, corrupt, "outside of the locator"},
		"a locator with one key twice":        {1, func(m *memory) { copyBytes(m, locatorItem+32, locatorItem+20, 12) }, corrupt, "twice"},
		"a locator without linkage":           {1, func(m *memory) { put32(m, locatorItem+16, 0) }, corrupt, "parent_linkage"},
		"a locator that is too short":         {1, func(m *memory) { put32(m, tableEntry+5*32+20, 12) }, corrupt, "12 bytes"},

		"a block state that does not exist":        {0, func(m *memory) { put64(m, batAt, payloadAt|4) }, corrupt, "state 4"},
		"a partial block without a parent":         {0, func(m *memory) { put64(m, batAt, payloadAt|7) }, corrupt, "state 7"},
		"a block behind the file":                  {0, func(m *memory) { put64(m, batAt, 1<<40|6) }, corrupt, "places a block"},
		"a block far behind the file":              {0, func(m *memory) { put64(m, batAt, 1<<64-1<<20|6) }, corrupt, "places a block"},
		"a block across the end":                   {0, func(m *memory) { put64(m, batAt, uint64(m.size)&^(1<<20-1)|6); must(t, m.Truncate(m.size+4096)) }, corrupt, "places a block"},
		"a block over the headers":                 {0, func(m *memory) { put64(m, batAt, 6) }, corrupt, "places a block"},
		"a block over the BAT":                     {0, func(m *memory) { put64(m, batAt, batAt|6) }, corrupt, "over its tables"},
		"a block over the log":                     {0, func(m *memory) { put64(m, batAt, logAt|6) }, corrupt, "over its tables"},
		"a block over the metadata":                {0, func(m *memory) { put64(m, batAt, metaAt|6) }, corrupt, "over its tables"},
		"two blocks at one place":                  {0, func(m *memory) { copyBytes(m, batAt+24, batAt, 8) }, corrupt, "two blocks"},
		"a sector bitmap over a block":             {1, func(m *memory) { put64(m, batAt+8*2048, 5<<20|6) }, corrupt, "two blocks"},
		"a sector bitmap of an unknown state":      {1, func(m *memory) { put64(m, batAt+8*2048, 3) }, corrupt, "sector bitmap"},
		"a partial block without a sector bitmap":  {1, func(m *memory) { put64(m, batAt+8*2048, 0) }, corrupt, "sector bitmap"},
		"a sector bitmap behind the end of a file": {1, func(m *memory) { put64(m, batAt+8*2048, 1<<40|6) }, corrupt, "places a block"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			m := specimens(t)[c.file]
			must(t, readWhole(m))
			c.bend(m)
			err := readWhole(m)
			if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want %v with %q", err, c.want, c.says)
			}
		})
	}
}

func put(b []byte, v uint64) { le.PutUint64(b, v) }

func copyBytes(m *memory, to, from, n int64) {
	b := make([]byte, n)
	_, _ = m.ReadAt(b, from)
	_, _ = m.WriteAt(b, to)
}

func addRegion(m *memory, id uuid.UUID, flags uint32) {
	bendRegions(m, func(b []byte) {
		b[8] = 3
		copy(b[80:], id[:])
		put(b[96:], uint64(m.size)&^(1<<20-1)-1<<20)
		le.PutUint32(b[104:], 1<<20)
		le.PutUint32(b[108:], flags)
	})
}

func addItem(m *memory, id uuid.UUID, flags uint32) {
	b := make([]byte, 4096)
	_, _ = m.ReadAt(b, metaAt)
	n := le.Uint16(b[10:])
	entry := b[32+32*int(n):]
	copy(entry, id[:])
	le.PutUint32(entry[24:], flags)
	le.PutUint16(b[10:], n+1)
	_, _ = m.WriteAt(b, metaAt)
}

// A table of 2 MiB is read in parts: an entry of the second part is held against one of the first.
func TestCheckReadsALongTableToItsEnd(t *testing.T) {
	m := newMemory()
	size, err := vhdx.Create(m, vhdx.Options{VirtualSize: 512 << 30, BlockSize: 2 << 20})
	must(t, err)
	w, err := vhdx.OpenWriter(m, size, nil)
	must(t, err)
	_, err = w.WriteAt(patterned(1), 0)
	must(t, err)
	must(t, w.Close())
	must(t, readWhole(m))
	const last = 256<<10 - 1 // block; every 2048 of them are followed by the entry of a sector bitmap
	copyBytes(m, batAt+8*(last+last/2048), batAt, 8)
	if err := readWhole(m); !errors.Is(err, vhdx.ErrCorrupt) || !strings.Contains(err.Error(), "two blocks") {
		t.Errorf("got %v, want %v", err, vhdx.ErrCorrupt)
	}
}

// readWhole opens a file and walks all of its tables.
func readWhole(m *memory) error {
	f, err := vhdx.Open(m, m.Size())
	if err != nil {
		return err
	}
	if err := f.Check(); err != nil {
		return err
	}
	_, err = extent.Collect(f.Present(extent.Extent{Length: f.VirtualSize()}))
	return err
}

// TestToleratedFiles opens what other programs make, or what one bad sector leaves, and what the format lets a reader ignore.
func TestToleratedFiles(t *testing.T) {
	alien := uuid.MustParse("12345678-1234-1234-1234-123456789abc")
	cases := map[string]func(m *memory){
		"identical headers, as Disk2VHD writes them": func(m *memory) { copyBytes(m, 64<<10, 128<<10, 4096) },
		"a damaged first header":                     func(m *memory) { put32(m, 64<<10, 0) },
		"a damaged second header":                    func(m *memory) { put32(m, 128<<10, 0) },
		"a damaged first region table":               func(m *memory) { put32(m, 192<<10, 0) },
		"a damaged second region table":              func(m *memory) { put32(m, 256<<10, 0) },
		"an unknown optional region":                 func(m *memory) { must(t, m.Truncate(m.size+2<<20)); addRegion(m, alien, 0) },
		"an unknown optional item":                   func(m *memory) { addItem(m, alien, 0) },
		"an unknown user item":                       func(m *memory) { addItem(m, alien, 1) },
		"reserved bits in the BAT":                   func(m *memory) { put32(m, batAt, 4<<20|6|1<<10) },
		"the unmapped state of drafts before 1.0":    func(m *memory) { put64(m, batAt+16, 5) },
		"an undefined block that points anywhere":    func(m *memory) { put64(m, batAt+16, 1<<60|1) },
		"no log": func(m *memory) { bendHeaders(m, func(b []byte) { clear(b[68:80]) }) },
		"a sector bitmap entry that no one looks at":  func(m *memory) { put64(m, batAt+8*4096, 1<<60|7) },
		"a file with something behind its last block": func(m *memory) { must(t, m.Truncate(m.size+12345)) },
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			m := specimens(t)[0]
			want := make([]byte, 8<<20)
			copy(want[1<<20-2048:], patterned(5))
			c(m)
			verify(t, openMembers(t, map[string]*memory{"": m}, []string{""}), want)
			w, err := vhdx.OpenWriter(m, m.Size(), nil)
			must(t, err)
			for _, at := range []int64{0, 2<<20 + 512, 7 << 20} {
				_, err := w.WriteAt(patterned(3), at)
				must(t, err)
				copy(want[at:], patterned(3))
			}
			must(t, w.Close())
			verify(t, openMembers(t, map[string]*memory{"": m}, []string{""}), want)
		})
	}
}

// failing is a storage that breaks.
type failing struct{ err error }

func (f failing) ReadAt([]byte, int64) (int, error) { return 0, f.err }

// TestErrorsOfTheStorageAreNotCorruption keeps an I/O error what it is.
func TestErrorsOfTheStorageAreNotCorruption(t *testing.T) {
	if _, err := vhdx.Open(failing{io.ErrClosedPipe}, 8<<20); !errors.Is(err, io.ErrClosedPipe) || errors.Is(err, vhdx.ErrCorrupt) {
		t.Errorf("got %v", err)
	}
}
