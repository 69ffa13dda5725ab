package recovery

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/google/uuid"

	"github.com/hyperkeep/hyperkeep/agent/extent"
	"github.com/hyperkeep/hyperkeep/agent/image"
	"github.com/hyperkeep/hyperkeep/agent/statefile"
)

// unfinished is a disk on its way to a file. Until it is complete its file has another name, beside which a note says what the file is and how much
// of it is durable. The note is written before the file is made and removed after the file has its name.
type unfinished struct {
	path    string // in the end
	source  *image.DiskReader
	note    note
	resumed int64
	done    bool // an earlier call completed it
}

type note struct {
	Image    string      `json:"image"`
	Digest   string      `json:"digest"`
	Disk     string      `json:"disk"`
	Root     string      `json:"root"`
	Format   Format      `json:"format"`
	Finished extent.List `json:"finished,omitempty"`
}

func newUnfinished(path string, source *image.DiskReader, of image.Manifest, format Format) *unfinished {
	record := source.Record()
	return &unfinished{path: path, source: source, note: note{
		Image: of.ID, Digest: of.Digest, Disk: record.Key, Root: record.Root, Format: format,
	}}
}

func (u *unfinished) partial() string  { return u.path + ".partial" }
func (u *unfinished) noteFile() string { return u.path + ".partial.json" }

// look finds out what an earlier call left, and whether anything else is in the way.
func (u *unfinished) look(force bool) error {
	earlier, err := readNote(u.noteFile())
	if err != nil {
		return err
	}
	if earlier != nil && earlier.sameAs(u.note) {
		u.note.Finished = earlier.Finished
		whole := extent.List{{Length: u.source.Size()}}
		u.done = len(whole.Subtract(earlier.Finished)) == 0 && exists(u.path) && !exists(u.partial())
		u.resumed = earlier.Finished.Bytes()
	}
	if force {
		return nil
	}
	switch {
	case exists(u.path) && !u.done:
		return fmt.Errorf("%w: %s", ErrTaken, u.path)
	case earlier == nil && exists(u.partial()), earlier != nil && !earlier.sameAs(u.note):
		return fmt.Errorf("%w: %s is the unfinished restore of something else", ErrTaken, u.partial())
	}
	return nil
}

// begun says whether an earlier call worked on the disk.
func (u *unfinished) begun() bool { return u.resumed > 0 }

func (u *unfinished) write(ctx context.Context, f *Folder) (err error) {
	file, target, err := u.open()
	if err != nil {
		return fmt.Errorf("%s: %w", u.partial(), err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	job := Copy{
		Source: u.source, Target: target, Finished: u.note.Finished, Written: &f.Written, Parallelism: f.Parallelism, Checkpoint: u.save,
	}
	if err := job.Run(ctx); err != nil {
		return err
	}
	if err := target.Close(); err != nil {
		return fmt.Errorf("%s: %w", u.partial(), err)
	}
	return u.save(extent.List{{Length: u.source.Size()}})
}

// open goes on with the file of an earlier call, or makes a new one.
func (u *unfinished) open() (*os.File, Target, error) {
	path := u.partial()
	if u.done {
		path = u.path
	}
	if len(u.note.Finished) > 0 {
		if file, target := u.reopen(path); file != nil {
			return file, target, nil
		}
	}
	u.note.Finished, u.resumed, u.done = nil, 0, false
	if err := u.save(nil); err != nil {
		return nil, nil, err
	}
	file, err := os.OpenFile(u.partial(), os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600)
	if err != nil {
		return nil, nil, err
	}
	target, err := Create(file, u.note.Format, u.source.Record(), uuid.New())
	if err != nil {
		return nil, nil, errors.Join(err, file.Close())
	}
	return file, target, nil
}

// reopen opens what an earlier call wrote. It returns none when that cannot be gone on with.
func (u *unfinished) reopen(path string) (*os.File, Target) {
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, nil
	}
	stat, err := file.Stat()
	if err == nil {
		var target Target
		if target, err = Reopen(file, stat.Size(), u.note.Format, u.source.Record()); err == nil {
			return file, target
		}
	}
	_ = file.Close() // it is made anew
	return nil, nil
}

// save notes what is durable.
func (u *unfinished) save(finished extent.List) error {
	u.note.Finished = finished
	text, err := json.Marshal(u.note)
	if err == nil {
		err = statefile.Write(u.noteFile(), text)
	}
	if err != nil {
		return fmt.Errorf("note how far the restore is: %w", err)
	}
	return nil
}

// finish gives the complete file its name.
func (u *unfinished) finish() error {
	if !u.done {
		if err := os.Rename(u.partial(), u.path); err != nil {
			return err
		}
	}
	return os.Remove(u.noteFile())
}

// readNote reads a note. There is none when the file is missing; one that cannot be understood is that of something else.
func readNote(path string) (*note, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	found := &note{}
	_ = json.Unmarshal(text, found) // what it then says fits no image
	return found, nil
}

func (n note) sameAs(other note) bool {
	return n.Image == other.Image && n.Digest == other.Digest && n.Disk == other.Disk && n.Root == other.Root && n.Format == other.Format
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
