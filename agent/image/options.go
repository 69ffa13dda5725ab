package image

import (
	"context"
	"os"
	"runtime"
	"time"

	"github.com/kopia/kopia/repo/blob"

	"github.com/hyperkeep/hyperkeep/agent/image/internal/storage"
)

// Location says where a repository lives, in exactly one way. Printing one shows no credential.
type Location = storage.Location

// FilesystemLocation is a repository in a directory.
type FilesystemLocation = storage.FilesystemLocation

// S3Location is a repository in a bucket of an S3-compatible object store.
type S3Location = storage.S3Location

// AzureLocation is a repository in a container of Azure Blob Storage.
type AzureLocation = storage.AzureLocation

// GCSLocation is a repository in a bucket of Google Cloud Storage.
type GCSLocation = storage.GCSLocation

// Bandwidth bounds how many bytes per second go to repositories, by the time of the day.
type Bandwidth = storage.Bandwidth

// NewBandwidth is without a limit until Limit sets one. now is the clock that limits go by.
func NewBandwidth(now func() time.Time) *Bandwidth { return storage.NewBandwidth(now) }

// Compression says how much work goes into making leaves smaller. Every choice leaves data alone that a sample shows to be
// incompressible.
type Compression string

const (
	// CompressionBalanced is zstd at its fastest level, the default.
	CompressionBalanced Compression = ""
	// CompressionFast is s2: half the CPU time of a whole backup for some 7 % more bytes.
	CompressionFast Compression = "fast"
	// CompressionNone stores leaves as they are.
	CompressionNone Compression = "none"
)

// Options tune a handle on a repository. The zero value works.
type Options struct {
	// WorkDir holds a small configuration file without secrets while a repository is opened or maintained, and then what does not fit into memory.
	// Default: the system's temporary directory.
	WorkDir string
	// Parallelism is how many leaves are read, hashed and compressed, or fetched, at the same time, by all disks of an image together.
	// Default: two per CPU, so that the CPUs have work while others wait for a disk or the repository, but no more than half of the budget
	// holds.
	Parallelism int
	// MemoryBudget bounds the bytes of data in flight while writing, whatever the size of a disk. Default: 256 MiB.
	MemoryBudget int64
	// Bandwidth bounds what is sent to the repository, together with all other handles that have the same one. Default: no bound.
	Bandwidth *Bandwidth
	// Compression of leaves. Lists are always compressed.
	Compression Compression
	// AppendOnly is for those who add images and may do no more: agents. Nothing is deleted or overwritten through the handle.
	AppendOnly bool
	// Passwords are asked for when a repository does not open with the one that was given, be it at first or anew while something is published: the
	// password may be changed at any time. Nil when there are no others.
	Passwords func(context.Context) ([]string, error)
	// Now is the clock. Default: time.Now.
	Now func() time.Time

	// decorate lets tests make the storage fail; keyDerivation lets them create repositories whose password takes little time to check.
	decorate      func(blob.Storage) blob.Storage
	keyDerivation string
}

const (
	defaultMemoryBudget = 256 << 20
	// leafOverhead is what one worker holds besides its leaf: the copies of kopia's compressor and cipher.
	leafOverhead = 4 * LeafSize
)

func (o Options) withDefaults() Options {
	if o.WorkDir == "" {
		o.WorkDir = os.TempDir()
	}
	if o.MemoryBudget <= 0 {
		o.MemoryBudget = defaultMemoryBudget
	}
	if o.Parallelism <= 0 {
		o.Parallelism = min(2*runtime.GOMAXPROCS(0), int(max(1, o.MemoryBudget/2/leafOverhead)))
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return o
}

// storage says how a location is opened: as many packs may be in flight as fit into the budget, next to the one that is being filled and
// to what the workers hold.
func (o Options) storage(l Location) storage.Settings {
	uploads := (o.MemoryBudget-int64(o.Parallelism)*leafOverhead)/packSize(l) - 1
	return storage.Settings{Uploads: int(max(1, uploads)), Decorate: o.decorate, Bandwidth: o.Bandwidth, AppendOnly: o.AppendOnly, Now: o.Now}
}

// packSize is how many bytes of chunks go into one blob: large for object stores, where requests cost, smaller for file servers, where
// a pack is written and synced as one file.
func packSize(l Location) int64 {
	if l.Filesystem != nil {
		return 32 << 20
	}
	return 64 << 20
}
