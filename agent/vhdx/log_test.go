package vhdx_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"testing"

	"github.com/google/uuid"

	"github.com/hyperkeep/hyperkeep/agent/extent"
	"github.com/hyperkeep/hyperkeep/agent/vhdx"
)

var (
	le         = binary.LittleEndian
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

const (
	logAt     = 1 << 20 // where Create puts the log
	logSize   = 1 << 20
	metaAt    = 2 << 20
	batAt     = 3 << 20
	payloadAt = 4 << 20
)

// logID is in binary the same in both byte orders.
var logID = uuid.UUID(bytes.Repeat([]byte{0xAB}, 16))

// change is one descriptor of a log entry: a sector of data, or zeros.
type change struct {
	offset int64
	data   []byte // 4096 bytes
	zeros  int64
}

// entry builds log entries as [MS-VHDX] 2.3.1 has them. Fields that are zero get their regular value.
type entry struct {
	sequence uint64
	tail     int64
	flushed  int64
	last     int64
	changes  []change
	bend     func(b []byte) // before the checksum
}

func (e entry) build() []byte {
	var data []byte
	descriptors := (64 + 32*len(e.changes) + 4095) / 4096 * 4096
	b := make([]byte, descriptors)
	for i, c := range e.changes {
		d := b[64+32*i:]
		le.PutUint64(d[16:], uint64(c.offset))
		le.PutUint64(d[24:], e.sequence)
		if c.data == nil {
			copy(d, "zero")
			le.PutUint64(d[8:], uint64(c.zeros))
			continue
		}
		copy(d, "desc")
		copy(d[4:8], c.data[4092:])
		copy(d[8:16], c.data[:8])
		sector := append([]byte("data"), make([]byte, 4092)...)
		le.PutUint32(sector[4:], uint32(e.sequence>>32))
		copy(sector[8:4092], c.data[8:4092])
		le.PutUint32(sector[4092:], uint32(e.sequence))
		data = append(data, sector...)
	}
	b = append(b, data...)
	copy(b, "loge")
	le.PutUint32(b[8:], uint32(len(b)))
	le.PutUint32(b[12:], uint32(e.tail))
	le.PutUint64(b[16:], e.sequence)
	le.PutUint32(b[24:], uint32(len(e.changes)))
	copy(b[32:48], logID[:])
	le.PutUint64(b[48:], uint64(e.flushed))
	le.PutUint64(b[56:], uint64(e.last))
	if e.bend != nil {
		e.bend(b)
	}
	seal(b)
	return b
}

func seal(b []byte) {
	clear(b[4:8])
	le.PutUint32(b[4:], crc32.Checksum(b, castagnoli))
}

// putLog writes entries one after the other from a place of the ring on and marks the file as not closed.
func putLog(m *memory, at int64, entries ...entry) {
	for _, e := range entries {
		b := e.build()
		first := min(int64(len(b)), logSize-at)
		_, _ = m.WriteAt(b[:first], logAt+at)
		_, _ = m.WriteAt(b[first:], logAt)
		at = (at + int64(len(b))) % logSize
	}
	for _, header := range []int64{64 << 10, 128 << 10} {
		bend(m, header, 4096, func(b []byte) { copy(b[48:], logID[:]) })
	}
}

// bend changes a structure with a checksum and seals it again.
func bend(m *memory, offset, length int64, f func(b []byte)) {
	b := make([]byte, length)
	_, _ = m.ReadAt(b, offset)
	f(b)
	seal(b)
	_, _ = m.WriteAt(b, offset)
}

func patterned(b byte) []byte { return bytes.Repeat([]byte{b}, 4096) }

// dirtyFile has a virtual disk of 4 blocks of 1 MiB. Its log holds the BAT entries of blocks 0 and 1, which the file itself lacks.
func dirtyFile(t tester) (*memory, []byte) {
	m := newMemory()
	size, err := vhdx.Create(m, vhdx.Options{VirtualSize: 4 << 20, BlockSize: 1 << 20})
	must(t, err)
	must(t, m.Truncate(size+2<<20))
	for i := range int64(2) {
		_, _ = m.WriteAt(bytes.Repeat([]byte{byte(i + 1)}, 1<<20), payloadAt+i<<20)
	}
	bat := make([]byte, 4096)
	le.PutUint64(bat[0:], payloadAt|6)
	le.PutUint64(bat[8:], (payloadAt+1<<20)|6)
	return m, bat
}

// TestDirtyLogIsReplayed opens files whose log decides what the guest reads, and lets the Writer replay it into the file.
func TestDirtyLogIsReplayed(t *testing.T) {
	sizeNow := int64(payloadAt + 2<<20)
	older := make([]byte, 4096) // a BAT in which block 0 is zero
	cases := map[string]struct {
		put  func(m *memory, bat []byte)
		want [2]byte // of blocks 0 and 1
	}{
		"one entry": {func(m *memory, bat []byte) {
			putLog(m, 0, entry{sequence: 7, flushed: sizeNow, last: sizeNow, changes: []change{{offset: batAt, data: bat}}})
		}, [2]byte{1, 2}},
		"an entry that goes around the end of the ring": {func(m *memory, bat []byte) {
			putLog(m, logSize-4096, entry{sequence: 7, tail: logSize - 4096, last: sizeNow, changes: []change{{offset: batAt, data: bat}}})
		}, [2]byte{1, 2}},
		"the newest of several entries wins": {func(m *memory, bat []byte) {
			putLog(m, 4096*3, entry{sequence: 1 << 40, tail: 4096 * 3, changes: []change{{offset: batAt, data: older}}},
				entry{sequence: 1<<40 + 1, tail: 4096 * 3, changes: []change{{offset: batAt, data: bat}}})
		}, [2]byte{1, 2}},
		"entries before the tail do not count": {func(m *memory, bat []byte) {
			must(t, writeAll(m, bat, batAt))
			putLog(m, 0, entry{sequence: 1, changes: []change{{offset: batAt, zeros: 4096}}},
				entry{sequence: 2, tail: 4096, changes: []change{{offset: batAt + 8192, data: older}}})
		}, [2]byte{1, 2}},
		"the sequence with the highest number wins over an older one behind it": {func(m *memory, bat []byte) {
			putLog(m, 8192*8, entry{sequence: 3, tail: 8192 * 8, changes: []change{{offset: batAt, data: older}}})
			putLog(m, 0, entry{sequence: 9, changes: []change{{offset: batAt, data: bat}}})
		}, [2]byte{1, 2}},
		"a torn newest entry is left out": {func(m *memory, bat []byte) {
			torn := entry{sequence: 8, tail: 0, changes: []change{{offset: batAt, data: older}}}
			putLog(m, 0, entry{sequence: 7, changes: []change{{offset: batAt, data: bat}}}, torn)
			must(t, writeAll(m, []byte{1}, logAt+8192+4096+99))
		}, [2]byte{1, 2}},
		"zeros over a range and data over a part of it": {func(m *memory, bat []byte) {
			must(t, writeAll(m, bytes.Repeat(patterned(0xFF), 4), batAt))
			putLog(m, 0, entry{sequence: 1, changes: []change{{offset: batAt, zeros: 4 * 4096}, {offset: batAt, data: bat}}})
		}, [2]byte{1, 2}},
		"data and then zeros over it": {func(m *memory, bat []byte) {
			must(t, writeAll(m, bat, batAt))
			putLog(m, 0, entry{sequence: 1, changes: []change{{offset: batAt, data: bat}}}, entry{sequence: 2, changes: []change{{offset: batAt, zeros: 4096}}})
		}, [2]byte{0, 0}},
		"more descriptors than fit the first sector": {func(m *memory, bat []byte) {
			changes := []change{}
			for i := range int64(130) {
				changes = append(changes, change{offset: batAt + 4096*(1+i%200), zeros: 4096})
			}
			putLog(m, 0, entry{sequence: 1, changes: append(changes, change{offset: batAt, data: bat})})
		}, [2]byte{1, 2}},
		"a file that becomes larger": {func(m *memory, bat []byte) {
			must(t, m.Truncate(payloadAt+1<<20))
			putLog(m, 0, entry{sequence: 1, flushed: payloadAt + 1<<20, last: sizeNow, changes: []change{{offset: batAt, data: bat}}})
		}, [2]byte{1, 0}},
		"damage of the region table": {func(m *memory, bat []byte) {
			table := make([]byte, 4096)
			_, _ = m.ReadAt(table, 192<<10)
			must(t, writeAll(m, bat, batAt))
			must(t, writeAll(m, patterned(7), 192<<10))
			must(t, writeAll(m, patterned(7), 256<<10))
			putLog(m, 0, entry{sequence: 1, changes: []change{{offset: 192 << 10, data: table}}})
		}, [2]byte{1, 2}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			m, bat := dirtyFile(t)
			c.put(m, bat)
			f, err := vhdx.Open(m, m.Size())
			must(t, err)
			if !f.HasDirtyLog() || !f.Info().DirtyLog {
				t.Error("the file does not know about its log")
			}
			want := make([]byte, 4<<20)
			copy(want, bytes.Repeat(c.want[:1], 1<<20))
			copy(want[1<<20:], bytes.Repeat(c.want[1:], 1<<20))
			disk, err := vhdx.NewDisk(f)
			must(t, err)
			verify(t, disk, want)
			w, err := vhdx.OpenWriter(m, m.Size(), nil)
			must(t, err)
			verify(t, w.Disk(), want)
			if again, err := vhdx.Open(m, m.Size()); err != nil || again.HasDirtyLog() {
				t.Errorf("after the replay into the file: %v, or still dirty", err)
			}
			verify(t, openMembers(t, map[string]*memory{"": m}, []string{""}), want)
		})
	}
}

func writeAll(m *memory, p []byte, off int64) error {
	_, err := m.WriteAt(p, off)
	return err
}

// TestReplaySurvivesACrash cuts the replay into the file anywhere; the next open finishes it.
func TestReplaySurvivesACrash(t *testing.T) {
	m, bat := dirtyFile(t)
	putLog(m, 0, entry{sequence: 1, last: payloadAt + 3<<20, changes: []change{{offset: batAt, data: bat}, {offset: batAt + 4096, zeros: 8192}}})
	r := recorder{memory: m.clone(), name: "disk", journal: new(journal)}
	_, err := vhdx.OpenWriter(r, r.Size(), nil)
	must(t, err)
	want := append(bytes.Repeat([]byte{1}, 1<<20), bytes.Repeat([]byte{2}, 1<<20)...)
	for n := range len(r.journal.operations) + 1 {
		files := map[string]*memory{"disk": m.clone()}
		for _, o := range r.journal.operations[:n] {
			apply(files, o)
		}
		w, err := vhdx.OpenWriter(files["disk"], files["disk"].Size(), nil)
		if err != nil {
			t.Fatalf("after %d operations: %v", n, err)
		}
		verify(t, w.Disk(), append(want, make([]byte, 2<<20)...))
	}
}

// TestBrokenLogsAreRefused has one mutant for each field of the log that counts. A log that cannot be replayed leaves the file corrupt.
func TestBrokenLogsAreRefused(t *testing.T) {
	field := func(f func(b []byte)) func(*memory, []byte) {
		return func(m *memory, bat []byte) {
			putLog(m, 0, entry{sequence: 7, changes: []change{{offset: batAt, data: bat}}, bend: f})
		}
	}
	with := func(e entry) func(*memory, []byte) {
		return func(m *memory, _ []byte) { putLog(m, 0, e) }
	}
	cases := map[string]func(m *memory, bat []byte){
		"empty":                           func(m *memory, _ []byte) { putLog(m, 0) },
		"signature":                       field(func(b []byte) { b[0] = 'x' }),
		"entry length zero":               field(func(b []byte) { le.PutUint32(b[8:], 0) }),
		"entry length of half a sector":   field(func(b []byte) { le.PutUint32(b[8:], 2048) }),
		"entry longer than the log":       field(func(b []byte) { le.PutUint32(b[8:], logSize+4096) }),
		"entry without its data sector":   field(func(b []byte) { le.PutUint32(b[24:], 2) }),
		"tail inside of a sector":         field(func(b []byte) { le.PutUint32(b[12:], 12) }),
		"tail behind the log":             field(func(b []byte) { le.PutUint32(b[12:], logSize) }),
		"tail at no entry":                field(func(b []byte) { le.PutUint32(b[12:], 64<<10) }),
		"sequence number zero":            field(func(b []byte) { le.PutUint64(b[16:], 0) }),
		"descriptors beyond the entry":    field(func(b []byte) { le.PutUint32(b[24:], 1<<31) }),
		"GUID of another log":             field(func(b []byte) { b[32]++ }),
		"descriptor signature":            field(func(b []byte) { b[64] = 'x' }),
		"descriptor of another entry":     field(func(b []byte) { b[64+24]++ }),
		"data signature":                  field(func(b []byte) { b[4096] = 'x' }),
		"data of another entry, high":     field(func(b []byte) { b[4096+4]++ }),
		"data of another entry, low":      field(func(b []byte) { b[4096+4092]++ }),
		"change inside of a sector":       field(func(b []byte) { le.PutUint64(b[64+16:], batAt+8) }),
		"change behind the file":          field(func(b []byte) { le.PutUint64(b[64+16:], 1<<40) }),
		"change far behind the file":      field(func(b []byte) { le.PutUint64(b[64+16:], 1<<64-4096) }),
		"change of the headers":           field(func(b []byte) { le.PutUint64(b[64+16:], 64<<10) }),
		"change of the log":               field(func(b []byte) { le.PutUint64(b[64+16:], logAt+8192) }),
		"file that was cut off":           field(func(b []byte) { le.PutUint64(b[48:], 1<<30) }),
		"file that would become enormous": field(func(b []byte) { le.PutUint64(b[56:], 1<<60) }),
		"zeros of half a sector":          with(entry{sequence: 1, changes: []change{{offset: batAt, zeros: 100}}}),
		"zeros behind the file":           with(entry{sequence: 1, changes: []change{{offset: batAt, zeros: 1 << 40}}}),
		"zeros over the log":              with(entry{sequence: 1, changes: []change{{offset: 1<<20 - 4096, zeros: 8192}}}),
		"checksum": func(m *memory, bat []byte) {
			field(nil)(m, bat)
			must(t, writeAll(m, []byte{0xFF}, logAt+4096+17))
		},
		"log length no multiple of 1 MiB": func(m *memory, bat []byte) {
			field(nil)(m, bat)
			bendHeaders(m, func(b []byte) { le.PutUint32(b[68:], logSize+4096) })
		},
		"log length zero": func(m *memory, bat []byte) {
			field(nil)(m, bat)
			bendHeaders(m, func(b []byte) { le.PutUint32(b[68:], 0) })
		},
		"log behind the file": func(m *memory, bat []byte) {
			field(nil)(m, bat)
			bendHeaders(m, func(b []byte) { le.PutUint64(b[72:], 1<<40) })
		},
	}
	for name, put := range cases {
		t.Run(name, func(t *testing.T) {
			m, bat := dirtyFile(t)
			put(m, bat)
			before := m.clone()
			if _, err := vhdx.Open(m, m.Size()); !errors.Is(err, vhdx.ErrCorrupt) {
				t.Errorf("open: %v, want a corrupt file", err)
			}
			if _, err := vhdx.OpenWriter(m, m.Size(), nil); !errors.Is(err, vhdx.ErrCorrupt) {
				t.Errorf("open for writing: %v, want a corrupt file", err)
			}
			if m.Size() != before.Size() {
				t.Error("a file that was refused has changed")
			}
		})
	}
}

func bendHeaders(m *memory, f func(b []byte)) {
	for _, header := range []int64{64 << 10, 128 << 10} {
		bend(m, header, 4096, f)
	}
}

// TestLogsBeyondTheLimitsAreRefused bounds what a hostile log can cost (T10).
func TestLogsBeyondTheLimitsAreRefused(t *testing.T) {
	t.Run("more ranges of zeros than are kept", func(t *testing.T) {
		m, _ := dirtyFile(t)
		e := entry{sequence: 1}
		for i := range int64(9000) {
			e.changes = append(e.changes, change{offset: batAt + i%100*8192, zeros: 4096})
		}
		putLog(m, 0, e)
		if _, err := vhdx.Open(m, m.Size()); !errors.Is(err, vhdx.ErrUnsupported) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("a log of 128 MiB", func(t *testing.T) {
		m, bat := dirtyFile(t)
		putLog(m, 0, entry{sequence: 1, changes: []change{{offset: batAt, data: bat}}})
		must(t, m.Truncate(200<<20))
		bendHeaders(m, func(b []byte) { le.PutUint32(b[68:], 128<<20); le.PutUint64(b[72:], 8<<20) })
		if _, err := vhdx.Open(m, m.Size()); !errors.Is(err, vhdx.ErrUnsupported) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("entries that overlap", func(t *testing.T) {
		m, _ := dirtyFile(t)
		putLog(m, 0)
		for at := int64(0); at < logSize; at += 4096 {
			b := make([]byte, 4096)
			copy(b, "loge")
			le.PutUint32(b[8:], logSize)
			le.PutUint64(b[16:], 1)
			copy(b[32:], logID[:])
			must(t, writeAll(m, b, logAt+at))
		}
		count := &countingReader{r: m}
		if _, err := vhdx.Open(count, m.Size()); !errors.Is(err, vhdx.ErrCorrupt) || count.bytes > 16*logSize {
			t.Errorf("got %v after reading %d bytes", err, count.bytes)
		}
	})
}

// TestOverlayReadsPieces reads a replayed file at sizes and offsets that straddle patches.
func TestOverlayReadsPieces(t *testing.T) {
	m, bat := dirtyFile(t)
	putLog(m, 0, entry{sequence: 1, changes: []change{
		{offset: batAt, data: bat},
		{offset: payloadAt + 4096, zeros: 5 * 4096}, {offset: payloadAt + 8192, data: patterned(9)}, {offset: payloadAt + 4*4096, zeros: 4096},
	}})
	want := bytes.Repeat([]byte{1}, 1<<20)
	clear(want[4096 : 6*4096])
	copy(want[8192:], patterned(9))
	disk := openMembers(t, map[string]*memory{"": m}, []string{""})
	for _, window := range []extent.Extent{{Offset: 0, Length: 1 << 20}, {Offset: 4095, Length: 2}, {Offset: 8000, Length: 9000}, {Offset: 12287, Length: 2}, {Offset: 24575, Length: 4098}} {
		got := make([]byte, window.Length)
		_, err := disk.ReadAt(got, window.Offset)
		must(t, err)
		if i := firstDifference(got, want[window.Offset:window.End()]); i >= 0 {
			t.Errorf("%v: byte %d differs", window, i)
		}
	}
}
