package image

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"testing"

	"github.com/kopia/kopia/repo/object"
	"pgregory.net/rapid"
)

func drawID(t *rapid.T) object.ID {
	prefix := rapid.SampledFrom([]string{"", "x", "Ix", "IIx", "Z"}).Draw(t, "prefix")
	hash := rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "hash")
	id, err := object.ParseID(fmt.Sprintf("%s%x", prefix, hash))
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// byKopia is what kopia's writer makes of a list.
func byKopia(t testing.TB, entries []entry) []byte {
	var out bytes.Buffer
	if err := json.NewEncoder(&out).Encode(struct {
		Stream  string  `json:"stream"`
		Entries []entry `json:"entries"`
	}{listStream, entries}); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestListsAreWrittenAndReadAsKopiaDoes(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		entries := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) entry {
			return entry{
				Start: rapid.Int64Range(0, 1<<62).Draw(rt, "start"), Length: rapid.Int64Range(0, 1<<62).Draw(rt, "length"), Object: drawID(rt),
			}
		}), 1, 20).Draw(rt, "entries")
		var out bytes.Buffer
		if err := encodeList(&out, slices.Values(entries)); err != nil {
			rt.Fatal(err)
		}
		want := byKopia(t, entries)
		if !bytes.Equal(out.Bytes(), want) {
			rt.Fatalf("wrote %s, kopia writes %s", out.Bytes(), want)
		}
		scanned, fast := scanList(string(want))
		if !fast || !slices.Equal(scanned, entries) {
			rt.Fatalf("read %v (%v) in place of %v", scanned, fast, entries)
		}
		spaced := bytes.ReplaceAll(want, []byte(","), []byte(" ,\n"))
		if decoded, err := decodeList(spaced); err != nil || !slices.Equal(decoded, entries) {
			rt.Fatalf("read %v, %v in place of %v", decoded, err, entries)
		}
	})
}

// FuzzScanList holds that the fast reader either agrees with encoding/json or leaves the list to it.
func FuzzScanList(f *testing.F) {
	f.Add(`{"stream":"kopia:indirect","entries":[{"l":5,"o":"Ix5e152877c3fefea10c114eb871b6cb4e"},{"s":5,"l":2,"o":"ab"}]}` + "\n")
	f.Add(`{"stream":"kopia:indirect","entries":[{"s":0,"l":05,"o":"\u0061b"}]}` + "\n")
	f.Add(`{"stream":"kopia:indirect","entries":[{"s":99999999999999999999,"o":""}]}` + "\n")
	f.Add(`{"stream":"kopia:indirect","entries":[]}` + "\n")
	f.Fuzz(func(t *testing.T, text string) {
		fast, ok := scanList(text)
		if !ok {
			return
		}
		var slow struct{ Entries []entry }
		if err := json.Unmarshal([]byte(text), &slow); err != nil {
			t.Fatalf("encoding/json: %v", err)
		}
		if len(fast) != len(slow.Entries) || len(fast) > 0 && !reflect.DeepEqual(fast, slow.Entries) {
			t.Fatalf("%v in place of %v", fast, slow.Entries)
		}
	})
}

func segmentID(t testing.TB, n int64) object.ID {
	id, err := object.ParseID(fmt.Sprintf("Ix%032x", n))
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// The place of a segment's line follows from its number, whatever the size of the disk.
func TestTheRootListIsFoundAndReplacedLineByLine(t *testing.T) {
	ctx := context.Background()
	for _, size := range []int64{1, 512, SegmentSize - 1, SegmentSize, SegmentSize + 1, 2 * SegmentSize, 15*SegmentSize + 7, 1500 * SegmentSize,
		1<<40 + 512, 16<<40 - 4096} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			ids := make([]object.ID, count(size, SegmentSize))
			for i := range ids {
				ids[i] = segmentID(t, int64(i))
			}
			l, err := newRootList(size, slices.Values(ids))
			if err != nil {
				t.Fatal(err)
			}
			for i := int64(len(ids)) - 1; i >= 0; i -= 1 + int64(len(ids))/5000 {
				start, length := segmentAt(i, size)
				if e, err := l.segment(ctx, i); err != nil || e != (entry{Start: start, Length: length, Object: ids[i]}) {
					t.Fatalf("segment %d: %v, %v", i, e, err)
				}
				ids[i] = segmentID(t, i+1<<40)
				if err := l.set(ctx, i, ids[i]); err != nil {
					t.Fatal(err)
				}
			}
			entries := make([]entry, len(ids))
			for i := range entries {
				start, length := segmentAt(int64(i), size)
				entries[i] = entry{Start: start, Length: length, Object: ids[i]}
			}
			var text []byte
			for _, p := range l.pieces {
				text = append(text, p.text...)
			}
			if !bytes.Equal(text, byKopia(t, entries)) {
				t.Error("the list is not what kopia would write")
			}
			for _, beyond := range []int64{-1, int64(len(ids))} {
				if _, err := l.segment(ctx, beyond); err == nil {
					t.Errorf("there is a segment %d", beyond)
				}
			}
		})
	}
	l, err := newRootList(3*SegmentSize, slices.Values([]object.ID{segmentID(t, 1), segmentID(t, 2), segmentID(t, 3)}))
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := object.ParseID("ab")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.set(ctx, 1, leaf); err == nil {
		t.Error("a leaf became a segment")
	}
	l.pieces[0].text[linePlace(2, l.size)+7]++ // a start that is another
	if _, err := l.segment(ctx, 2); err == nil {
		t.Error("a list with another line was believed")
	}
}

func BenchmarkRootList(b *testing.B) {
	const size = 1 << 40
	id := segmentID(b, 1)
	ids := slices.Repeat([]object.ID{id}, int(count(size, SegmentSize)))
	b.Run("write 1 TiB", func(b *testing.B) {
		for b.Loop() {
			if _, err := newRootList(size, slices.Values(ids)); err != nil {
				b.Fatal(err)
			}
		}
	})
	l, err := newRootList(size, slices.Values(ids))
	if err != nil {
		b.Fatal(err)
	}
	var text []byte
	for _, p := range l.pieces {
		text = append(text, p.text...)
	}
	b.Run("scan 1 TiB", func(b *testing.B) {
		for b.Loop() {
			if _, ok := scanList(string(text)); !ok {
				b.Fatal("not scanned")
			}
		}
	})
}
