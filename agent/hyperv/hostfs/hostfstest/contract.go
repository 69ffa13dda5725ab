// Package hostfstest has the tests that every implementation of hostfs.FS passes.
package hostfstest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"sync"
	"testing"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/hostfs"
)

// Contract tests an implementation. It works in folder, a Windows path whose last name does not exist yet, and does not leave it; elsewhere is a folder on
// another volume.
func Contract(t *testing.T, files hostfs.FS, folder, elsewhere string) {
	s := suite{files, folder, elsewhere}
	t.Run("files are made, moved and removed", s.moves)
	t.Run("the content of a file", s.content)
	t.Run("others may move and remove an open file", s.shares)
	t.Run("errors say what they are", s.errors)
	t.Run("unusable paths are refused", s.paths)
	t.Run("a path may be long", s.long)
	t.Run("a folder is listed in order", s.lists)
	t.Run("space is told where nothing is yet", s.space)
	t.Run("a context that has ended", s.ended)
}

type suite struct {
	hostfs.FS
	folder, elsewhere string
}

func (s suite) path(name string) string { return s.folder + `\` + name }

// make creates a file with a text in it.
func (s suite) make(t *testing.T, path, text string) {
	t.Helper()
	f, err := s.Create(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt([]byte(text), 0)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		t.Fatal(err)
	}
}

// read returns what a file holds.
func (s suite) read(t *testing.T, path string) string {
	t.Helper()
	f, err := s.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	size, err := f.Size()
	text := make([]byte, size)
	if err == nil {
		_, err = io.ReadFull(io.NewSectionReader(f, 0, size), text)
	}
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func (s suite) moves(t *testing.T) {
	from, to := s.path(`one\a.vhdx`), s.path(`two\three\b.vhdx`)
	s.make(t, from, "hello")
	if err := s.Rename(t.Context(), from, to); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Stat(t.Context(), from); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is still there: %v", err)
	}
	if got := s.read(t, to); got != "hello" {
		t.Errorf("moved, it has %q", got)
	}
	if err := s.Rename(t.Context(), s.path("two"), s.path("four")); err != nil {
		t.Fatal(err)
	}
	if got := s.read(t, s.path(`four\three\b.vhdx`)); got != "hello" {
		t.Errorf("in a folder that was moved, it has %q", got)
	}
	for _, path := range []string{`four\three\b.vhdx`, `four\three\b.vhdx`, `four\three`, "four", "one"} {
		if err := s.Remove(t.Context(), s.path(path)); err != nil {
			t.Errorf("remove %s: %v", path, err)
		}
	}
}

const pieces, piece = 16, 4096 // of the file in content, each with as much of a hole behind it

// together runs work for each piece at once.
func together(work func(i int) error) error {
	errs := make([]error, pieces)
	var wg sync.WaitGroup
	for i := range pieces {
		wg.Go(func() { errs[i] = work(i) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (s suite) content(t *testing.T) {
	path := s.path("content")
	f, err := s.Create(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	written := together(func(i int) error {
		_, err := f.WriteAt(bytes.Repeat([]byte{byte(i + 1)}, piece), int64(2*i*piece))
		return err
	})
	size, err := f.Size()
	if err := errors.Join(written, err, f.Truncate(1<<20), f.Sync(), f.Close()); err != nil || size != (2*pieces-1)*piece {
		t.Fatalf("%d bytes, %v", size, err)
	}
	f, err = s.OpenWrite(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // read only from here on
	if _, err := f.WriteAt([]byte("x"), 3); err != nil {
		t.Fatal(err)
	}
	readPieces(t, f)
}

func readPieces(t *testing.T, f hostfs.File) {
	t.Helper()
	if err := together(func(i int) error {
		got := make([]byte, 2*piece)
		want := append(bytes.Repeat([]byte{byte(i + 1)}, piece), make([]byte, piece)...)
		if i == 0 {
			want[3] = 'x'
		}
		if _, err := f.ReadAt(got, int64(2*i*piece)); err != nil || !bytes.Equal(got, want) {
			return fmt.Errorf("piece %d is wrong: %w", i, err)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	if n, err := f.ReadAt(make([]byte, 10), 1<<20-4); n != 4 || !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %d bytes, %v", n, err)
	}
	if n, err := f.ReadAt(make([]byte, 10), 2<<20); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("behind the end: %d bytes, %v", n, err)
	}
}

func (s suite) shares(t *testing.T) {
	path := s.path("shared")
	s.make(t, path, "hello")
	f, err := s.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // read only
	w, err := s.OpenWrite(t.Context(), path)
	if err == nil {
		_, err = w.WriteAt([]byte("J"), 0)
		err = errors.Join(err, w.Close())
	}
	if err := errors.Join(err, s.Rename(t.Context(), path, s.path("moved")), s.Remove(t.Context(), s.path("moved"))); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 5)
	if _, err := f.ReadAt(got, 0); err != nil || string(got) != "Jello" {
		t.Errorf("the open file has %q, %v", got, err)
	}
}

func (s suite) errors(t *testing.T) {
	there, gone := s.path(`errors\there`), s.path(`errors\gone`)
	s.make(t, there, "")
	s.make(t, s.path(`errors\second`), "")
	for name, c := range map[string]struct{ err, want error }{
		"a file that is there is not made again":    {second(s.Create(t.Context(), there)), fs.ErrExist},
		"a file that is not there is not read":      {second(s.Open(t.Context(), gone)), fs.ErrNotExist},
		"a file that is not there is not written":   {second(s.OpenWrite(t.Context(), gone)), fs.ErrNotExist},
		"a file that is not there is not described": {second(s.Stat(t.Context(), gone)), fs.ErrNotExist},
		"a folder that is not there is not listed":  {second(s.ReadDir(t.Context(), gone)), fs.ErrNotExist},
		"what is not there is not moved":            {s.Rename(t.Context(), gone, s.path(`errors\new`)), fs.ErrNotExist},
		"a file does not replace another":           {s.Rename(t.Context(), there, s.path(`errors\second`)), fs.ErrExist},
		"a file stays on its volume":                {s.Rename(t.Context(), there, s.elsewhere+`\a`), hostfs.ErrPath},
		"a folder is no file":                       {second(s.Open(t.Context(), s.path("errors"))), fs.ErrInvalid},
	} {
		if !errors.Is(c.err, c.want) {
			t.Errorf("%s: %v", name, c.err)
		}
	}
	if err := s.Remove(t.Context(), s.path("errors")); err == nil {
		t.Error("a folder was removed with what is in it")
	}
}

func second[T any](_ T, err error) error { return err }

func (s suite) paths(t *testing.T) {
	for _, path := range []string{
		"", "x", `\x`, `x\y`, `D:x`, `\\server\share\x`, `\\?\D:\VMs\x`, `\\.\PhysicalDrive0`, s.path(`..\x`), s.path(`.\x`), s.folder + `\\x`,
		s.path("a:stream"), s.path("a*"), s.path("b\x00b"), s.path("c\nb"), s.path("d."), s.path(`e \b`), `/etc/passwd`, `1:\x`,
	} {
		for operation, err := range map[string]error{
			"open": second(s.Open(t.Context(), path)), "create": second(s.Create(t.Context(), path)), "remove": s.Remove(t.Context(), path),
			"rename": s.Rename(t.Context(), path, s.path("x")), "rename to": s.Rename(t.Context(), s.path("x"), path),
			"list": second(s.ReadDir(t.Context(), path)), "stat": second(s.Stat(t.Context(), path)),
		} {
			if !errors.Is(err, hostfs.ErrPath) {
				t.Errorf("%s %q: %v", operation, path, err)
			}
		}
	}
}

func (s suite) long(t *testing.T) {
	folder := s.path("long" + strings.Repeat(`\`+strings.Repeat("n", 100), 4)) // MAX_PATH is 260
	s.make(t, folder+`\a`, "far away")
	if err := s.Rename(t.Context(), folder+`\a`, folder+`\b`); err != nil {
		t.Fatal(err)
	}
	if got := s.read(t, folder+`\b`); got != "far away" {
		t.Errorf("it has %q", got)
	}
	if infos, err := s.ReadDir(t.Context(), folder); err != nil || len(infos) != 1 {
		t.Errorf("%v, %v", infos, err)
	}
}

func (s suite) lists(t *testing.T) {
	for _, name := range []string{"c", "a", "ä", `b\d`} {
		s.make(t, s.path(`list\`+name), name)
	}
	infos, err := s.ReadDir(t.Context(), s.path("list"))
	var got []string
	for _, info := range infos {
		got = append(got, fmt.Sprintf("%s %t", info.Name(), info.IsDir()))
	}
	if want := "a false,b true,c false,ä false"; err != nil || strings.Join(got, ",") != want {
		t.Errorf("%q, %v", got, err)
	}
	info, err := s.Stat(t.Context(), s.path(`LIST\C`))
	if err == nil && info.Size() != 1 { // a file system may tell names apart that differ in case
		t.Errorf("%d bytes", info.Size())
	}
}

func (s suite) space(t *testing.T) {
	space, err := s.Space(t.Context(), s.path(`not\yet\there`))
	if err != nil || space.Free <= 0 || space.Total < space.Free {
		t.Errorf("%+v, %v", space, err)
	}
	if drive := strings.ToUpper(s.folder[:1]) + `:\`; space.Volume != drive {
		t.Errorf("the volume is %q, not %q", space.Volume, drive)
	}
}

func (s suite) ended(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := second(s.Open(ctx, s.path("x"))); !errors.Is(err, context.Canceled) {
		t.Errorf("open: %v", err)
	}
	if err := s.Remove(ctx, s.path("x")); !errors.Is(err, context.Canceled) {
		t.Errorf("remove: %v", err)
	}
	if err := second(s.Stat(ctx, s.path("x"))); !errors.Is(err, context.Canceled) {
		t.Errorf("stat: %v", err)
	}
}
