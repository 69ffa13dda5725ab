package image

import (
	"context"

	"github.com/kopia/kopia/repo/blob"

	"github.com/hyperkeep/hyperkeep/agent/extent"
)

// WithDecorator makes a repository's storage go through a decorator.
func WithDecorator(o Options, decorate func(blob.Storage) blob.Storage) Options {
	o.decorate = decorate
	return o
}

// WithFastPassword creates repositories with a key derivation that takes far less time than scrypt under the race detector.
func WithFastPassword(o Options) Options {
	o.keyDerivation = "pbkdf2-sha256-600000"
	return o
}

// LeftToKopia counts the leaves of a disk that only kopia can read.
func LeftToKopia(d *DiskReader) (left int) {
	for e, err := range d.entries(extent.Extent{Length: d.Size()}) {
		w := want{entry: e, into: make([]byte, e.Length)}
		if err != nil || !d.img.zeros[e.Object] && (!d.img.repo.chunks.locate(d.ctx, &w) || len(d.img.repo.chunks.read(d.ctx, []want{w})) > 0) {
			left++
		}
	}
	return left
}

// Fresh reads the repository as somebody else would who knows the password: with nothing cached.
func Fresh(ctx context.Context, r *Repository) (*Repository, error) { return r.fresh(ctx) }
