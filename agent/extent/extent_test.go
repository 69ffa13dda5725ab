package extent_test

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/hyperkeep/hyperkeep/agent/extent"
)

const diskSize = 64

// drawExtents draws any extents on a small disk, empty and overlapping ones among them.
func drawExtents(t *rapid.T, label string) []extent.Extent {
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) extent.Extent {
		offset := rapid.Int64Range(0, diskSize).Draw(t, "offset")
		return extent.Extent{Offset: offset, Length: rapid.Int64Range(0, diskSize-offset).Draw(t, "length")}
	}), 0, 8).Draw(t, label)
}

func bytesOf(extents []extent.Extent) (set [diskSize]bool) {
	for _, e := range extents {
		for i := e.Offset; i < e.End(); i++ {
			set[i] = true
		}
	}
	return set
}

func checkNormal(t *rapid.T, l extent.List) {
	for i, e := range l {
		if e.Length <= 0 || i > 0 && e.Offset <= l[i-1].End() {
			t.Fatalf("list %v is not in normal form at %d", l, i)
		}
	}
}

// TestAlgebraAgreesWithSetsOfBytes compares every operation with the same operation on sets of single bytes.
func TestAlgebraAgreesWithSetsOfBytes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := drawExtents(t, "a"), drawExtents(t, "b")
		na, nb := extent.Normalize(a), extent.Normalize(b)
		both, onlyA := na.Intersect(nb), na.Subtract(nb)
		for _, l := range []extent.List{na, nb, both, onlyA} {
			checkNormal(t, l)
		}
		inA, inB, inBoth, inOnlyA := bytesOf(a), bytesOf(b), bytesOf(both), bytesOf(onlyA)
		if bytesOf(na) != inA {
			t.Fatalf("normalize changed the set: %v to %v", a, na)
		}
		var count int64
		for i := range diskSize {
			if inBoth[i] != (inA[i] && inB[i]) || inOnlyA[i] != (inA[i] && !inB[i]) {
				t.Fatalf("byte %d: a=%v b=%v intersect=%v subtract=%v", i, na, nb, both, onlyA)
			}
			if inA[i] {
				count++
			}
		}
		if na.Bytes() != count {
			t.Fatalf("%v counts %d bytes, the set has %d", na, na.Bytes(), count)
		}
	})
}

func TestAlign(t *testing.T) {
	cases := map[string]struct {
		in          extent.Extent
		size, limit int64
		want        extent.Extent
	}{
		"widens outwards":               {extent.Extent{Offset: 5, Length: 6}, 4, 64, extent.Extent{Offset: 4, Length: 8}},
		"keeps what is aligned":         {extent.Extent{Offset: 8, Length: 8}, 4, 64, extent.Extent{Offset: 8, Length: 8}},
		"stops at the end of the disk":  {extent.Extent{Offset: 9, Length: 1}, 4, 10, extent.Extent{Offset: 8, Length: 2}},
		"is empty behind a shrunk disk": {extent.Extent{Offset: 20, Length: 4}, 4, 10, extent.Extent{Offset: 20, Length: 0}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if got := c.in.Align(c.size, c.limit); got != c.want {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

func TestCoveredCountsEachUnitOnce(t *testing.T) {
	extents := extent.Of(extent.Extent{Offset: 10, Length: 10}, extent.Extent{Offset: 50, Length: 1}, extent.Extent{Offset: 199, Length: 51})
	if got, err := extent.Covered(extents, 100, 240); got != 240 || err != nil {
		t.Errorf("got %d, %v", got, err)
	}
	if got, err := extent.Covered(extents, 1, 240); got != 52 || err != nil {
		t.Errorf("without widening: got %d, %v", got, err)
	}
}
