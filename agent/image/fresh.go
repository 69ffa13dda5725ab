package image

import (
	"context"
	"errors"
	"fmt"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/content"
	"github.com/kopia/kopia/repo/content/indexblob"
	"github.com/kopia/kopia/repo/object"

	"github.com/hyperkeep/hyperkeep/agent/image/internal/storage"
)

// fresh opens the repository a second time, to read it as somebody else would: over a storage of its own, with nothing cached. Only the key
// is taken over, as long as the blobs that it comes from did not change: deriving it from the password takes longer than a small increment.
func (r *Repository) fresh(ctx context.Context) (*Repository, error) {
	again, err := r.session.reread(ctx, r.loc, r.opts)
	if errors.Is(err, errFormatChanged) {
		again, err = openWithAny(ctx, r.loc, r.password, r.opts, readOnly)
	}
	if err != nil {
		return nil, err
	}
	return newRepository(ctx, r.loc, r.password, r.opts, again)
}

var errFormatChanged = errors.New("the format of the repository was changed")

// Unchanged says whether what is at the location is still the repository that was opened, with the same password and the same settings. It reads two
// small blobs.
func (r *Repository) Unchanged(ctx context.Context) bool {
	found, err := readFormat(ctx, r.session.store)
	return err == nil && found.equal(r.session.format)
}

// uncached is a repository whose index and contents are read anew. What is about the repository itself comes from the session that it was
// made of, which has to stay open.
type uncached struct {
	repo.DirectRepository
	store    *storage.Storage
	shared   *content.SharedManager
	contents *content.WriteManager
}

// reread opens an uncached repository. errFormatChanged when somebody wrote the format since the session was opened.
func (s *session) reread(ctx context.Context, loc Location, opts Options) (*session, error) {
	store, err := storage.Open(ctx, loc, storage.Existing, opts.storage(loc))
	if err != nil {
		return nil, err
	}
	u, err := s.uncached(ctx, store, opts)
	if err != nil {
		return nil, errors.Join(openError(err), store.Close(ctx))
	}
	return &session{DirectRepository: u, store: store, markers: s.markers.over(store)}, nil
}

func (s *session) uncached(ctx context.Context, store *storage.Storage, opts Options) (*uncached, error) {
	found, err := readFormat(ctx, store)
	if err != nil {
		return nil, err
	}
	if !found.equal(s.format) {
		return nil, errFormatChanged
	}
	shared, err := content.NewSharedManager(ctx, store, s.FormatManager(), nil, &content.ManagerOptions{TimeNow: opts.Now}, nil, nil)
	if err != nil {
		return nil, fmt.Errorf("read the index: %w", err)
	}
	return &uncached{
		DirectRepository: s.DirectRepository, store: store, shared: shared,
		contents: content.NewWriteManager(ctx, shared, content.SessionOptions{}, ""),
	}, nil
}

func (u *uncached) OpenObject(ctx context.Context, id object.ID) (object.Reader, error) {
	return object.Open(ctx, u.contents, id)
}

func (u *uncached) VerifyObject(ctx context.Context, id object.ID) ([]content.ID, error) {
	return object.VerifyObject(ctx, u.contents, id)
}

func (u *uncached) ContentInfo(ctx context.Context, id content.ID) (content.Info, error) {
	return u.contents.ContentInfo(ctx, id)
}

func (u *uncached) ContentReader() content.Reader { return u.contents }

func (u *uncached) BlobReader() blob.Reader { return u.store }

func (u *uncached) IndexBlobs(ctx context.Context, inactive bool) ([]indexblob.Metadata, error) {
	return u.contents.IndexBlobs(ctx, inactive)
}

func (u *uncached) Refresh(ctx context.Context) error { return u.contents.Refresh(ctx) }

// Close gives back what is its own. The session that it was made of stays open.
func (u *uncached) Close(ctx context.Context) error {
	return errors.Join(u.shared.CloseShared(ctx), u.store.Close(ctx))
}
