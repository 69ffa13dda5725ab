package recovery

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/uuid"

	"github.com/hyperkeep/hyperkeep/agent/extent"
)

// half is a disk of which every other 64 KiB compress to nearly nothing, with a hole of a quarter of it.
func half(n int64) *memory {
	m := &memory{bytes: make([]byte, n)}
	m.fill(7, extent.Extent{Length: n / 2}, extent.Extent{Offset: n / 4 * 3, Length: n / 4})
	for at := int64(0); at < n; at += 128 << 10 {
		for i := at; i < min(at+64<<10, n); i++ {
			if m.bytes[i] != 0 {
				m.bytes[i] = "the quick brown fox "[m.bytes[i]%20]
			}
		}
	}
	return m
}

// BenchmarkRestore restores a disk from a directory that the system has cached. Beside it, cp copies what was restored: the goal is 1.2 times its time.
func BenchmarkRestore(b *testing.B) {
	content := half(768 * mib)
	source := openDisk(b, backedUp(b, map[string]*memory{"d0": content}), "d0")
	path := filepath.Join(b.TempDir(), "disk")
	for _, format := range []Format{Raw, VHDX} {
		b.Run(string(format), func(b *testing.B) {
			b.SetBytes(content.data.Bytes())
			for b.Loop() {
				restoreTo(b, path, &Copy{Source: source}, format)
			}
		})
	}
	restoreTo(b, path, &Copy{Source: source}, Raw)
	b.Run("cp", func(b *testing.B) {
		b.SetBytes(content.data.Bytes())
		for b.Loop() {
			if out, err := exec.CommandContext(b.Context(), "cp", "--sparse=always", path, path+".copy").CombinedOutput(); err != nil {
				b.Fatal(err, string(out))
			}
		}
	})
}

func restoreTo(b *testing.B, path string, job *Copy, format Format) {
	file, err := os.Create(path)
	if err != nil {
		b.Fatal(err)
	}
	defer file.Close()
	if job.Target, err = Create(file, format, job.Source.Record(), uuid.New()); err != nil {
		b.Fatal(err)
	}
	if err := job.Run(b.Context()); err != nil {
		b.Fatal(err)
	}
	if err := job.Target.Close(); err != nil {
		b.Fatal(err)
	}
}
