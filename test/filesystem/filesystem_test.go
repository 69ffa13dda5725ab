package filesystem

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	. "github.com/onsi/gomega"

	"github.com/hyperkeep/hyperkeep/test/tool"
)

func TestFileSystemsAreMadeChangedReadAndChecked(t *testing.T) {
	tool.Require(t, Programs...)
	for _, kind := range []Kind{Ext4, NTFS} {
		t.Run(string(kind), func(t *testing.T) {
			g := NewWithT(t)
			dir := t.TempDir()
			content := filepath.Join(dir, "content")
			g.Expect(os.Mkdir(content, 0o755)).To(Succeed())
			g.Expect(os.WriteFile(filepath.Join(content, "first.txt"), []byte("one"), 0o644)).To(Succeed())
			raw := filepath.Join(dir, "disk.raw")
			g.Expect(Make(t.Context(), kind, raw, 16<<20, content)).To(Succeed())
			g.Expect(Check(t.Context(), kind, raw)).To(Succeed())
			g.Expect(Read(t.Context(), kind, raw, "first.txt")).To(BeEquivalentTo("one"))

			second := filepath.Join(dir, "second.txt")
			for _, text := range []string{"two", "three"} {
				g.Expect(os.WriteFile(second, []byte(text), 0o644)).To(Succeed())
				g.Expect(Put(t.Context(), kind, raw, second, "second.txt")).To(Succeed())
				g.Expect(Read(t.Context(), kind, raw, "second.txt")).To(BeEquivalentTo(text))
			}
			g.Expect(Check(t.Context(), kind, raw)).To(Succeed())

			damaged := filepath.Join(dir, "damaged.raw")
			g.Expect(Copy(t.Context(), raw, damaged)).To(Succeed())
			scribble(t, damaged)
			g.Expect(Check(t.Context(), kind, damaged)).NotTo(Succeed(), "a checker that finds nothing checks nothing")
		})
	}
}

// scribble destroys the first MiB of a disk.
func scribble(t *testing.T, raw string) {
	t.Helper()
	file, err := os.OpenFile(raw, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := file.WriteAt(bytes.Repeat([]byte{0xA5}, 1<<20), 0); err != nil {
		t.Fatal(err)
	}
}

func TestReplayOfAnUntouchedJournalChangesNoFile(t *testing.T) {
	tool.Require(t, Programs...)
	g := NewWithT(t)
	dir := t.TempDir()
	raw := filepath.Join(dir, "disk.raw")
	g.Expect(os.Mkdir(filepath.Join(dir, "content"), 0o755)).To(Succeed())
	g.Expect(Make(t.Context(), Ext4, raw, 16<<20, filepath.Join(dir, "content"))).To(Succeed())
	g.Expect(Replay(t.Context(), raw)).To(Succeed())
	g.Expect(Check(t.Context(), Ext4, raw)).To(Succeed())
}
