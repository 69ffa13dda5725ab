package storage

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kopia/kopia/repo/blob"
	kopiafs "github.com/kopia/kopia/repo/blob/filesystem"
)

// content is a blob in memory, with what kopia asks of a buffer.
type content struct{ bytes.Buffer }

func data(s string) *content {
	var c content
	c.WriteString(s)
	return &c
}

func (c *content) Length() int { return c.Len() }

func (c *content) Reader() io.ReadSeekCloser {
	return struct {
		io.ReadSeeker
		io.Closer
	}{bytes.NewReader(c.Bytes()), io.NopCloser(nil)}
}

// WriteTo writes in pieces and keeps the content, as kopia's buffers do.
func (c *content) WriteTo(w io.Writer) (int64, error) {
	var n int64
	for piece := range slices.Chunk(c.Bytes(), 3) {
		m, err := w.Write(piece)
		n += int64(m)
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

const blobID = blob.ID("p0123456789abcdef0123456789abcdef")

func create(t *testing.T) (blob.Storage, *files, string) {
	t.Helper()
	root := filepath.Join(t.TempDir(), "repository")
	st, err := openFilesystem(context.Background(), FilesystemLocation{Path: root + "/"}, Creating)
	if err != nil {
		t.Fatal(err)
	}
	return st, st.(*directory).Impl.(*files), root
}

// recorder notes what happens to a file, and fails at one step.
type recorder struct {
	file
	name  string
	steps *[]string
	fail  string // the step that fails
	err   error
}

func (r *recorder) at(step string) error {
	*r.steps = append(*r.steps, step)
	if r.fail == step {
		return &os.PathError{Op: step, Path: r.name, Err: r.err}
	}
	return nil
}

func (r *recorder) Write(p []byte) (int, error) {
	if err := r.at("write"); err != nil {
		return 0, err
	}
	return r.file.Write(p)
}

func (r *recorder) Sync() error { return errors.Join(r.at("sync"), r.file.Sync()) }

func (r *recorder) Close() error {
	_, err := os.Stat(strings.Split(r.name, ".tmp.")[0])
	if err == nil {
		*r.steps = append(*r.steps, "was renamed before it was closed")
	}
	return errors.Join(r.at("close"), r.file.Close())
}

func record(steps *[]string, fail string, err error) func(string) (file, error) {
	return func(name string) (file, error) {
		if fail == "create" {
			return nil, &os.PathError{Op: "open", Path: name, Err: err}
		}
		f, openErr := createFile(name)
		return &recorder{file: f, name: name, steps: steps, fail: fail, err: err}, openErr
	}
}

func TestABlobIsSyncedBeforeItHasItsName(t *testing.T) { // R1 of the measurements: stock kopia never syncs
	st, impl, root := create(t)
	var steps []string
	impl.create = record(&steps, "", nil)
	if err := st.PutBlob(context.Background(), "short", data("abcdef"), blob.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	steps = steps[len(steps)-4:] // what came before is the file of the layout
	if want := []string{"write", "write", "sync", "close"}; !slices.Equal(steps, want) {
		t.Errorf("%q", steps)
	}
	if b, err := os.ReadFile(filepath.Join(root, "short.f")); err != nil || string(b) != "abcdef" {
		t.Errorf("%q, %v", b, err)
	}
}

func TestAWriteThatFailsLeavesNothing(t *testing.T) {
	for name, test := range map[string]struct {
		err  error
		want error
	}{
		"no space":           {syscall.ENOSPC, ErrFull},
		"no quota":           {syscall.EDQUOT, ErrFull},
		"no permission":      {syscall.EACCES, ErrAccessDenied},
		"a read-only volume": {syscall.EROFS, ErrAccessDenied},
		"a broken disk":      {syscall.EIO, ErrUnreachable},
	} {
		for _, step := range []string{"create", "write", "sync", "close"} {
			t.Run(name+" at "+step, func(t *testing.T) {
				st, impl, root := create(t)
				if err := st.PutBlob(context.Background(), "first", data("x"), blob.PutOptions{}); err != nil {
					t.Fatal(err)
				}
				var steps []string
				impl.create = record(&steps, step, test.err)
				s := &Storage{inner: st, uploads: unbounded()}
				if err := s.PutBlob(context.Background(), blobID, data("abcdef"), blob.PutOptions{}); !errors.Is(err, test.want) {
					t.Errorf("got %v, want %v", err, test.want)
				}
				for _, f := range tree(t, root) {
					if strings.Contains(f, ".tmp.") || strings.Contains(f, "abcdef") {
						t.Errorf("%s is left", f)
					}
				}
				if s.Written() != 0 {
					t.Errorf("%d bytes are counted as written", s.Written())
				}
				impl.create = createFile
				if err := s.PutBlob(context.Background(), blobID, data("abcdef"), blob.PutOptions{}); err != nil || s.Written() != 6 {
					t.Errorf("once the fault is gone: %v, %d bytes", err, s.Written())
				}
			})
		}
	}
}

func tree(t *testing.T, root string) []string {
	t.Helper()
	var names []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			names = append(names, strings.TrimPrefix(path, root))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestARootThatVanishedIsNotMadeAgain(t *testing.T) { // it was a mount
	st, _, root := create(t)
	if err := st.PutBlob(context.Background(), "first", data("x"), blob.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(root); err != nil {
		t.Fatal(err)
	}
	if err := translate("put", st.PutBlob(context.Background(), blobID, data("x"), blob.PutOptions{})); !errors.Is(err, ErrNotUsable) {
		t.Error(err)
	}
	if _, err := os.Stat(root); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the root is there again: %v", err)
	}
}

// The layout is kopia's: what one provider writes, the other finds.
func TestTheLayoutIsThatOfStockKopia(t *testing.T) {
	ctx := context.Background()
	ours, _, root := create(t)
	if err := ours.PutBlob(ctx, blobID, data("ours"), blob.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	stock, err := kopiafs.New(ctx, &kopiafs.Options{Path: root}, false)
	if err != nil {
		t.Fatal(err)
	}
	const other = blob.ID("q0123456789abcdef0123456789abcdef-s0")
	if err := stock.PutBlob(ctx, other, data("theirs"), blob.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	for name, st := range map[string]blob.Storage{"ours": ours, "stock": stock} {
		listed, err := blob.ListAllBlobs(ctx, st, "")
		if err != nil || len(listed) != 2 {
			t.Errorf("%s lists %v, %v", name, listed, err)
		}
		for id, want := range map[blob.ID]string{blobID: "ours", other: "theirs"} {
			var got target
			if err := st.GetBlob(ctx, id, 0, -1, &got); err != nil || got.String() != want {
				t.Errorf("%s reads %q of %s, %v", name, got.String(), id, err)
			}
			if err := st.GetBlob(ctx, id, 1, 2, &got); err != nil || got.String() != want[1:3] {
				t.Errorf("%s reads %q of a part of %s, %v", name, got.String(), id, err)
			}
		}
	}
	var got target
	if err := ours.GetBlob(ctx, blobID, 2, 100, &got); !errors.Is(err, blob.ErrInvalidRange) {
		t.Errorf("behind the end: %v", err)
	}
	if err := ours.GetBlob(ctx, "missing", 0, -1, &got); !errors.Is(err, blob.ErrBlobNotFound) {
		t.Error(err)
	}
	if _, err := ours.GetMetadata(ctx, "missing"); !errors.Is(err, blob.ErrBlobNotFound) {
		t.Error(err)
	}
	if err := errors.Join(ours.DeleteBlob(ctx, blobID), ours.DeleteBlob(ctx, blobID)); err != nil {
		t.Errorf("deleting twice: %v", err)
	}
	past := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	var told time.Time
	if err := ours.PutBlob(ctx, blobID, data("x"), blob.PutOptions{SetModTime: past, GetModTime: &told}); err != nil || !told.Equal(past) {
		t.Errorf("the time is %v, %v", told, err)
	}
	if err := ours.PutBlob(ctx, blobID, data("x"), blob.PutOptions{RetentionPeriod: time.Hour}); !errors.Is(err, blob.ErrUnsupportedPutBlobOption) {
		t.Errorf("a lock that does not lock: %v", err)
	}
}

// target is what a blob is read into.
type target struct{ bytes.Buffer }

func (c *target) Length() int { return c.Len() }
