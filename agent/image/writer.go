package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/object"
)

// ImageSpec says what an image is of.
type ImageSpec struct {
	// ID names the image in the repository. It has to be made from the task's uid alone, so that a repeated task finds the image of its
	// first run in place of writing a second.
	ID          string
	TaskUID     string
	Policy      string
	VM          VM
	TakenAt     time.Time
	Consistency string
	Method      string
	Tool        string // name and version of the program
	Annotations map[string]string
	Excluded    []ExcludedDisk
	Warnings    []string
	// Repair is set when files of an older image are damaged: as with DiskSpec.Repair, what the repository has already is read, and stored again
	// when that fails.
	Repair bool
}

// Writer puts one image together. Nothing of it is visible before Publish, and nothing at all when the process dies: maintenance removes
// what was stored. Disks and files may be added by several goroutines, which share the workers that Options.Parallelism allows. Close gives
// it back.
type Writer struct {
	repo  *Repository
	kopia repo.DirectRepositoryWriter
	spec  ImageSpec

	stored    atomic.Int64
	flushes   flusher
	reserving reserving
	closeOnce sync.Once
	// buffers are for one leaf each. Whoever works on a segment, of any disk, holds one: so many are worked on at once.
	buffers chan []byte

	mu       sync.Mutex
	names    map[string]bool // of files that stock kopia will show
	disks    []writtenDisk
	files    []FileRecord
	warnings []string
	zeros    map[object.ID]int64 // objects of zeros and their lengths
}

// writtenDisk is a disk that is in the repository but in no image yet.
type writtenDisk struct {
	record DiskRecord
	spans  []span // what was written, to look at again when publishing
}

// Begin starts an image. It does not look whether the image exists already: Find does, and Publish does again.
func (r *Repository) Begin(ctx context.Context, spec ImageSpec) (*Writer, error) {
	if err := validName(spec.ID); err != nil {
		return nil, fmt.Errorf("begin image: id: %w", err)
	}
	if spec.TaskUID == "" || spec.VM.ID == "" || spec.VM.Name == "" {
		return nil, fmt.Errorf("begin image %s: %w", spec.ID, errors.New("the task's uid and the VM's id and name are needed"))
	}
	w := &Writer{repo: r, spec: spec, names: map[string]bool{}, zeros: map[object.ID]int64{}}
	w.warnings = slices.Clone(spec.Warnings)
	w.buffers = make(chan []byte, r.opts.Parallelism)
	for range r.opts.Parallelism {
		w.buffers <- nil // made when it is first needed
	}
	_, kopia, err := r.session.NewDirectWriter(ctx, repo.WriteSessionOptions{
		Purpose:  "image " + spec.ID,
		OnUpload: func(n int64) { w.stored.Add(n) },
	})
	if err != nil {
		return nil, fmt.Errorf("begin image %s: %w", spec.ID, err)
	}
	w.kopia = kopia
	w.flushes = flusher{now: r.opts.Now, last: r.opts.Now()}
	w.reserving.since = r.opts.Now()
	return w, nil
}

// Close gives the writer back. What was not published is lost. A second call does nothing.
func (w *Writer) Close(ctx context.Context) error {
	var err error
	w.closeOnce.Do(func() { err = w.kopia.Close(context.WithoutCancel(ctx)) })
	return err
}

// Stored is how many bytes the repository's storage took so far, in compressed and encrypted form.
func (w *Writer) Stored() int64 { return w.stored.Load() }

// Warn adds a sentence to the image's warnings.
func (w *Writer) Warn(sentence string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.warnings = append(w.warnings, sentence)
}

// AddFile stores a configuration file of the VM. Names are unique within the image and have no slash or backslash in them.
func (w *Writer) AddFile(ctx context.Context, name string, content io.ReadSeeker) error {
	if err := validName(name); err != nil {
		return fmt.Errorf("add file %q: %w", name, err)
	}
	if err := w.claim("config/" + name); err != nil {
		return fmt.Errorf("add file %q: %w", name, err)
	}
	var size int64
	store := func() (id object.ID, err error) {
		if _, err := content.Seek(0, io.SeekStart); err != nil {
			return id, err
		}
		id, size, err = w.storeFile(ctx, content)
		return id, err
	}
	if w.spec.Repair {
		plain := store
		store = func() (object.ID, error) { return w.storeSound(ctx, false, plain) }
	}
	id, err := store()
	if err != nil {
		return fmt.Errorf("add file %q: %w", name, err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.files = append(w.files, FileRecord{Name: name, Size: size, Object: id.String()})
	return nil
}

func (w *Writer) storeFile(ctx context.Context, content io.Reader) (object.ID, int64, error) {
	out := w.kopia.NewObjectWriter(ctx, object.WriterOptions{Compressor: listCompressor, MetadataCompressor: listCompressor})
	defer out.Close() //nolint:errcheck // it only gives buffers back
	n, err := io.Copy(out, content)
	if err != nil {
		return object.EmptyID, n, err
	}
	id, err := out.Result()
	return id, n, err
}

func (w *Writer) claim(file string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.names[file] {
		return errors.New("the image has one of that name already")
	}
	w.names[file] = true
	return nil
}

// validName accepts what can be the name of one file on any system. Names in a repository may come from a guest's configuration.
func validName(name string) error {
	switch {
	case name == "" || len(name) > 255:
		return errors.New("a name has 1 to 255 bytes")
	case strings.HasPrefix(name, ".") || strings.HasSuffix(name, ".") || strings.ContainsAny(name, `/\<>:"|?*`):
		return errors.New("the name has a character that a file name cannot have")
	case strings.ContainsFunc(name, unicode.IsControl):
		return errors.New("the name has a control character")
	}
	return nil
}

// plainName turns any name into one that validName accepts.
func plainName(name string) string {
	plain := strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == unicode.ReplacementChar || strings.ContainsRune(`/\<>:"|?*`, r) {
			return '_'
		}
		return r
	}, name)
	plain = strings.Trim(plain, ". ")
	for len(plain) > 200 {
		plain = plain[:len(plain)-1]
	}
	if plain = strings.ToValidUTF8(plain, ""); plain == "" {
		return "unnamed"
	}
	return plain
}

// flusher says when to commit the index of a long write. A killed writer has to send again what came after the last commit; each commit
// leaves an index blob, and those slow every look-up down until maintenance merges them.
type flusher struct {
	now  func() time.Time
	mu   sync.Mutex
	last time.Time
	new  int
}

const (
	flushInterval = 8 * time.Minute
	flushContents = 128 << 10 // bounds the uncommitted index in memory: some 100 MiB
)

// due counts contents and says whether the caller has to flush now.
func (f *flusher) due(contents int) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.new += contents
	if f.new < flushContents && f.now().Sub(f.last) < flushInterval {
		return false
	}
	f.new, f.last = 0, f.now()
	return true
}
