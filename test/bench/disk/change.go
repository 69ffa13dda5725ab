package disk

import (
	"math/rand/v2"
	"slices"

	"github.com/hyperkeep/hyperkeep/agent/extent"
)

// Pattern is how writes are spread.
type Pattern string

const (
	// Clustered writes come in runs of 8 to 64 pieces, as from installing and copying files.
	Clustered Pattern = "runs of 512 KiB to 4 MiB"
	// Uniform writes are single pieces anywhere, as from a busy database.
	Uniform Pattern = "single 64 KiB anywhere"
	// Hot writes are single pieces anywhere within one eighth of the disk.
	Hot Pattern = "single 64 KiB in one eighth of the disk"
)

// Change writes to share of the disk's pieces, where there is data already. generation starts at 1 and differs from call to call. It
// returns what was written.
func (d *Disk) Change(pattern Pattern, share float64, generation uint32) extent.List {
	random := rand.New(rand.NewPCG(2, uint64(generation)))
	total := int64(len(d.kinds))
	within := total
	if pattern == Hot {
		within = total / 8
	}
	var changed []extent.Extent
	for left := int64(share * float64(total)); left > 0; {
		length := int64(1)
		if pattern == Clustered {
			length = min(8+random.Int64N(57), left)
		}
		first := random.Int64N(within - length)
		if d.kinds[first] == hole || d.changes[first] == generation {
			continue
		}
		end := first
		for ; end < first+length && d.kinds[end] != hole; end++ {
			d.changes[end] = generation
		}
		changed = append(changed, extent.Extent{Offset: first * Piece, Length: (end - first) * Piece})
		left -= end - first
	}
	return extent.Normalize(changed)
}

// Changes writes count runs of 1 MiB, evenly spread over the disk and with any share of it as good as any other.
func (d *Disk) Changes(count int, generation uint32) extent.List {
	const length = 1 << 20 / Piece
	var changed []extent.Extent
	stride := int64(len(d.kinds)) / int64(count)
	for first := int64(0); len(changed) < count; first += stride {
		for i := first; i < first+length; i++ {
			d.changes[i] = generation
		}
		changed = append(changed, extent.Extent{Offset: first * Piece, Length: length * Piece})
	}
	return extent.Normalize(changed)
}

// Snapshot remembers the state of the disk. Calling the result brings it back.
func (d *Disk) Snapshot() (restore func()) {
	changes := slices.Clone(d.changes)
	return func() { copy(d.changes, changes) }
}
