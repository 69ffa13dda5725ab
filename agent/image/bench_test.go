package image_test

import (
	"fmt"
	"testing"

	"github.com/hyperkeep/hyperkeep/agent/extent"
	"github.com/hyperkeep/hyperkeep/agent/image"
)

// halfCompressible is a disk of which every other 64 KiB are text-like.
func halfCompressible(n int) []byte {
	b := random(7, n)
	for at := 0; at < n; at += 128 << 10 {
		for i := at; i < min(at+64<<10, n); i++ {
			b[i] = "the quick brown fox "[b[i]%20]
		}
	}
	return b
}

func BenchmarkFull(b *testing.B) {
	content := allocated(halfCompressible(512 * mib))
	for _, c := range []image.Compression{image.CompressionBalanced, image.CompressionFast, image.CompressionNone} {
		b.Run(fmt.Sprintf("compression=%s", c), func(b *testing.B) {
			b.SetBytes(content.Size())
			for b.Loop() {
				b.StopTimer()
				r := create(b, directory(b), image.Options{Compression: c})
				b.StartTimer()
				backup(b, r, "full", disk("d0"), content)
			}
		})
	}
}

func BenchmarkIncremental(b *testing.B) {
	content := allocated(halfCompressible(512 * mib))
	r := create(b, directory(b), image.Options{})
	backup(b, r, "0", disk("d0"), content)
	var changed []extent.Extent
	for at := int64(0); at < content.Size(); at += 64 * mib {
		changed = append(changed, extent.Extent{Offset: at, Length: 64 << 10})
	}
	b.ResetTimer()
	n := 0
	for b.Loop() {
		for _, e := range changed {
			copy(content.bytes[e.Offset:e.End()], random(uint64(n)<<8|uint64(e.Offset>>26), int(e.Length)))
		}
		backup(b, r, fmt.Sprint(n+1), increment("d0", fmt.Sprint(n), changed...), content)
		n++
	}
}

func BenchmarkRead(b *testing.B) {
	content := allocated(halfCompressible(256 * mib))
	r := create(b, directory(b), image.Options{})
	backup(b, r, "full", disk("d0"), content)
	b.SetBytes(content.Size())
	for b.Loop() {
		if v, err := r.Verify(b.Context(), "full", nil); err != nil || !v.Sound() {
			b.Fatal(v, err)
		}
	}
}

// BenchmarkIncrementBySize has the same changes on disks of any size: what an increment costs follows the changed bytes.
func BenchmarkIncrementBySize(b *testing.B) {
	for _, size := range []int64{64 << 30, 1 << 40, 16 << 40} {
		b.Run(fmt.Sprintf("%dGiB", size>>30), func(b *testing.B) {
			src := &sparse{size: size, fill: func(int64) byte { return 1 }}
			for i := range int64(32) {
				src.data = append(src.data, extent.Extent{Offset: i * (size / 32), Length: mib})
			}
			r := create(b, directory(b), image.Options{})
			backup(b, r, "0", disk("d0"), src)
			n := 0
			b.ResetTimer()
			for b.Loop() {
				src.fill = func(int64) byte { return byte(n + 2) }
				backup(b, r, fmt.Sprint(n+1), increment("d0", fmt.Sprint(n), src.data[:8]...), src)
				n++
			}
		})
	}
}
