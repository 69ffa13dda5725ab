// Package storage has the blob stores beneath a repository: a directory and an S3 bucket. It adds to kopia's providers what images
// need: writes that are durable when they return, errors that a person can act on, bounded uploads, and counts of bytes.
package storage

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/kopia/kopia/repo/blob"
	"golang.org/x/sync/semaphore"
)

// Location says where a repository lives. Exactly one field is set. Printing a Location shows no credential.
type Location struct {
	Filesystem *FilesystemLocation
	S3         *S3Location
	Azure      *AzureLocation
	GCS        *GCSLocation
}

// FilesystemLocation is a repository in a directory: a local disk, NFS or SMB.
type FilesystemLocation struct {
	Path string // absolute
}

// S3Location is a repository in a bucket of an S3-compatible object store.
type S3Location struct {
	Endpoint string // host, host:port, or either after http:// or https://
	Bucket   string // has to exist
	Prefix   string // of every object, usually ending in a slash; may be empty
	Region   string // may be empty

	Insecure   bool   // plain HTTP, as an endpoint of http:// says too
	SkipVerify bool   // accept any certificate
	CA         []byte // PEM, in place of the system's roots; may be empty

	AccessKeyID     string
	SecretAccessKey string
	SessionToken    string // of temporary credentials; may be empty
}

// String names the place for people.
func (l Location) String() string {
	switch {
	case l.Filesystem != nil:
		return l.Filesystem.Path
	case l.S3 != nil:
		return l.S3.String()
	case l.Azure != nil:
		return l.Azure.String()
	case l.GCS != nil:
		return l.GCS.String()
	}
	return "nowhere"
}

// GoString keeps credentials out of %#v.
func (l Location) GoString() string { return l.String() }

// String names the bucket, without credentials.
func (s S3Location) String() string {
	return fmt.Sprintf("s3://%s/%s at %s", s.Bucket, s.Prefix, s.Endpoint)
}

// GoString keeps credentials out of %#v.
func (s S3Location) GoString() string { return s.String() }

// host is the endpoint without its scheme; insecure says whether it is spoken to without TLS.
func (s S3Location) host() (host string, insecure bool) {
	if rest, ok := strings.CutPrefix(s.Endpoint, "http://"); ok {
		return strings.TrimSuffix(rest, "/"), true
	}
	return strings.TrimSuffix(strings.TrimPrefix(s.Endpoint, "https://"), "/"), s.Insecure
}

// Mode says what a storage is opened for.
type Mode int

const (
	// Existing opens a place that holds a repository already, and changes nothing there.
	Existing Mode = iota
	// Creating prepares a place for a new repository.
	Creating
)

// Settings of an open storage.
type Settings struct {
	// Uploads bounds how many blobs are in flight at once, and with it the memory they hold.
	Uploads int
	// Decorate puts something between this package and the provider. It may be nil.
	Decorate func(blob.Storage) blob.Storage
	// Bandwidth bounds what the storage is sent, together with others. It may be nil.
	Bandwidth *Bandwidth
	// AppendOnly is for those who add images and may do no more: nothing is deleted or overwritten through the storage.
	AppendOnly bool
	// Now is the clock that locks are counted from.
	Now func() time.Time
}

// place is a provider, and what is to be known of it beyond kopia's interface.
type place interface {
	blob.Storage
	// lockable is nil where blobs can be locked, ErrNoLock where they cannot.
	lockable(ctx context.Context) error
	// lockedUntil is when a blob can be deleted at the earliest, zero when at any time.
	lockedUntil(ctx context.Context, id blob.ID) (time.Time, error)
	// durableNames says whether a blob survives a power cut under its name once it was stored.
	durableNames() (bool, error)
}

// Open opens the place. The errors are ErrNotUsable, ErrNoRepository, ErrAccessDenied and ErrUnreachable, the second for a directory
// without a repository only.
func Open(ctx context.Context, l Location, mode Mode, settings Settings) (*Storage, error) {
	at, err := open(ctx, l, mode, settings)
	if err != nil {
		return nil, translate("open "+l.String(), err)
	}
	s := &Storage{
		inner: at, place: at, appendOnly: settings.AppendOnly, now: settings.Now, bandwidth: settings.Bandwidth,
		uploads: semaphore.NewWeighted(int64(max(1, settings.Uploads))),
	}
	if settings.Decorate != nil {
		s.inner = settings.Decorate(at)
	}
	return s, nil
}

func open(ctx context.Context, l Location, mode Mode, settings Settings) (place, error) {
	given := 0
	for _, is := range []bool{l.Filesystem != nil, l.S3 != nil, l.Azure != nil, l.GCS != nil} {
		if is {
			given++
		}
	}
	switch {
	case given != 1:
		return nil, newError("open", ErrNotUsable, "a location is either a directory or a bucket")
	case l.Filesystem != nil:
		return openFilesystem(ctx, *l.Filesystem, mode)
	case l.S3 != nil:
		return openS3(ctx, *l.S3, settings.Now)
	case l.Azure != nil:
		return openAzure(ctx, *l.Azure, settings.Now)
	}
	return openGCS(ctx, *l.GCS)
}
