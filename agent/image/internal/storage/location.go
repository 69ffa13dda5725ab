// Package storage has the blob stores beneath a repository: a directory and an S3 bucket. It adds to kopia's providers what images
// need: writes that are durable when they return, errors that a person can act on, bounded uploads, and counts of bytes.
package storage

import (
	"context"
	"fmt"
	"strings"

	"github.com/kopia/kopia/repo/blob"
	"golang.org/x/sync/semaphore"
)

// Location says where a repository lives. Exactly one field is set. Printing a Location shows no credential.
type Location struct {
	Filesystem *FilesystemLocation
	S3         *S3Location
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
}

// Open opens the place. The errors are ErrNotUsable, ErrNoRepository, ErrAccessDenied and ErrUnreachable, the second for a directory
// without a repository only.
func Open(ctx context.Context, l Location, mode Mode, settings Settings) (*Storage, error) {
	provider, err := open(ctx, l, mode)
	if err != nil {
		return nil, translate("open "+l.String(), err)
	}
	if settings.Decorate != nil {
		provider = settings.Decorate(provider)
	}
	return &Storage{inner: provider, uploads: semaphore.NewWeighted(int64(max(1, settings.Uploads)))}, nil
}

func open(ctx context.Context, l Location, mode Mode) (blob.Storage, error) {
	switch {
	case (l.Filesystem == nil) == (l.S3 == nil):
		return nil, newError("open", ErrNotUsable, "a location is either a directory or a bucket")
	case l.Filesystem != nil:
		return openFilesystem(ctx, *l.Filesystem, mode)
	}
	return openS3(ctx, *l.S3)
}
