package runner

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/hyperkeep/hyperkeep/agent/extent"
	"github.com/hyperkeep/hyperkeep/agent/hyperv"
	"github.com/hyperkeep/hyperkeep/agent/statefile"
	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
)

// Journal is what this agent may have done to the host, in a folder on the host: one file for each task, written before the effect that it is about and
// removed when nothing of the task is left on the host; and one for each virtual machine and repository with the reference points that are ours, which
// carry no name on the host. It is safe for concurrent use.
type Journal struct {
	dir string
	mu  sync.RWMutex // Windows does not replace a file that somebody reads
}

// Entry is the journal's note on one task.
type Entry struct {
	// Tag is the uid of the task: what its checkpoint carries.
	Tag string `json:"tag"`
	// VirtualMachineID is the Hyper-V id of the virtual machine.
	VirtualMachineID string `json:"virtualMachineID"`
	// Intent is what the host looked like before the checkpoint was asked for: with it a checkpoint that has no name yet is found again.
	Intent hyperv.Intent `json:"intent,omitzero"`
	// Checkpoint and Disks are what was frozen, so that a conversion can be finished after the checkpoint is gone.
	Checkpoint *hyperv.Checkpoint  `json:"checkpoint,omitempty"`
	Disks      []hyperv.FrozenDisk `json:"disks,omitempty"`
	// Shadow is the snapshot of the method VSS: written before anything happens to the virtual machine. The shadow copies end with the session that made them,
	// so what it tells another session is only what to put right.
	Shadow *hyperv.ShadowIntent `json:"shadow,omitempty"`
	// Restore is what a restore makes. Such an entry has no checkpoint.
	Restore *RestoreEntry `json:"restore,omitempty"`

	journaled bool // found in the journal, not on the host
}

// RestoreEntry is what a restore makes on the host.
type RestoreEntry struct {
	// ID marks the virtual machine that the restore defines.
	ID string `json:"id"`
	// Folder is the new folder, "" when an original is replaced. Files are the disks in order of the image's.
	Folder string   `json:"folder,omitempty"`
	Files  []string `json:"files"`
	// Beneath are the disks of the original that files build upon, in order of Files, "" for a file that stands alone. Such a file has only what differs, and
	// is merged into the disk beneath it once the restore succeeded.
	Beneath []string `json:"beneath,omitempty"`
	// Staging is the folder with the image's configuration files that an import reads, Config those files, the definition first. NotImported says why there is
	// no import, from the moment that the virtual machine may have been defined in another way. Import is what is imported, from the moment that this may
	// have begun.
	Staging     string         `json:"staging,omitempty"`
	Config      []string       `json:"config,omitempty"`
	NotImported string         `json:"notImported,omitempty"`
	Import      *hyperv.Import `json:"import,omitempty"`
	// Tree is what becomes of the image's tree of checkpoints, nil where the image has none.
	Tree *TreeEntry `json:"tree,omitempty"`
	// Warnings say what an import takes from the virtual machine.
	Warnings []string `json:"warnings,omitempty"`
	// State is the one that the virtual machine is brought to in the end, "" for the one that it comes in.
	State hyperv.State `json:"state,omitempty"`
	// Finished is what each file holds durably, in order of Files. Written says that all files are complete.
	Finished []extent.List `json:"finished,omitempty"`
	Written  bool          `json:"written,omitempty"`
	// Exchange is how an original gives way to an imported one, Replacement how it gets other disks: from the moment that this may have begun.
	Exchange    *hyperv.Exchange    `json:"exchange,omitempty"`
	Replacement *hyperv.Replacement `json:"replacement,omitempty"`
	// Result is set when the restore succeeded: nothing is taken back any more, and nothing is done again.
	Result *v1alpha1.RestoredVirtualMachine `json:"result,omitempty"`
	// Settled is when the sweeper cleared up after a restore that succeeded. Zero before. The result stays for an attempt that follows.
	Settled time.Time `json:"settled,omitzero"`
}

// TreeEntry is what a restore makes of a tree of checkpoints.
type TreeEntry struct {
	// Checkpoints are those in the image.
	Checkpoints []hyperv.CheckpointNode `json:"checkpoints"`
	// Refused says why the tree is not restored, from the moment on that its files are not needed any more.
	Refused string `json:"refused,omitempty"`
	// Disks are the disk files, of which Done were copied. Config are the configuration files of the checkpoints, which alone lie in Folder.
	Disks  []TreeFile `json:"disks,omitempty"`
	Done   int        `json:"done,omitempty"`
	Folder string     `json:"folder,omitempty"`
	Config []TreeFile `json:"config,omitempty"`
}

// TreeFile is a file of a tree: its name in the image, and where it goes, in place of where it was.
type TreeFile struct {
	Name string `json:"name"`
	Size int64  `json:"size"`
	hyperv.MovedFile
}

const entrySuffix = ".task.json"

// OpenJournal opens the journal in dir, which it makes.
func OpenJournal(dir string) (*Journal, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	return &Journal{dir: dir}, nil
}

// Put writes an entry so that it survives a loss of power.
func (j *Journal) Put(entry Entry) error { return j.write(entry.Tag+entrySuffix, entry) }

// Get returns the entry of a task. found is false when there is none.
func (j *Journal) Get(tag string) (entry Entry, found bool, err error) {
	data, err := j.read(tag + entrySuffix)
	if err != nil {
		return Entry{}, false, err
	}
	readable := json.Unmarshal(data, &entry) == nil && entry.Tag == tag
	if !readable {
		return Entry{}, false, nil // torn or foreign: the host's own state is the truth, the journal only a hint
	}
	return entry, true, nil
}

// Delete removes the entry of a task. A second call does nothing.
func (j *Journal) Delete(tag string) error { return j.remove(tag + entrySuffix) }

// List returns all entries that can be read.
func (j *Journal) List() ([]Entry, error) {
	files, err := os.ReadDir(j.dir)
	if err != nil {
		return nil, fmt.Errorf("read journal: %w", err)
	}
	var entries []Entry
	for _, file := range files {
		tag, isEntry := strings.CutSuffix(file.Name(), entrySuffix)
		if !isEntry {
			continue
		}
		entry, found, err := j.Get(tag)
		if err != nil {
			return nil, err
		}
		if found {
			entries = append(entries, entry)
		}
	}
	return entries, nil
}

const pointsSuffix = ".reference-points.json"

// PutReferencePoints writes which reference points of ours a place has: a virtual machine and repository. None is no file.
func (j *Journal) PutReferencePoints(place string, ids []string) error {
	if len(ids) == 0 {
		return j.remove(place + pointsSuffix)
	}
	return j.write(place+pointsSuffix, ids)
}

// ReferencePoints reads what PutReferencePoints wrote. A file that cannot be understood is none.
func (j *Journal) ReferencePoints(place string) ([]string, error) {
	data, err := j.read(place + pointsSuffix)
	if err != nil {
		return nil, err
	}
	var ids []string
	readable := json.Unmarshal(data, &ids) == nil
	if !readable {
		return nil, nil
	}
	return ids, nil
}

// read returns the content of a file, none when there is no file.
func (j *Journal) read(name string) ([]byte, error) {
	j.mu.RLock()
	defer j.mu.RUnlock()
	data, err := statefile.Read(filepath.Join(j.dir, name))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read journal: %w", err)
	}
	return data, nil
}

func (j *Journal) write(name string, content any) error {
	data, err := json.Marshal(content)
	if err == nil {
		j.mu.Lock()
		defer j.mu.Unlock()
		err = statefile.Write(filepath.Join(j.dir, name), data)
	}
	if err != nil {
		return fmt.Errorf("write journal: %w", err)
	}
	return nil
}

func (j *Journal) remove(name string) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := statefile.Remove(filepath.Join(j.dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("clear journal: %w", err)
	}
	return nil
}
