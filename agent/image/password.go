package image

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/format"

	"github.com/hyperkeep/hyperkeep/agent/image/internal/storage"
)

// ErrChanging means that a change of the password was begun and not finished. The keeper finishes it.
var ErrChanging = errors.New("the password of the repository is being changed")

// changeBlob is there while the password is being changed. It has what undoes a change that was cut off: kopia writes first the settings and then the
// format, each encrypted with the key of the new password, and in between neither password opens the repository.
const changeBlob blob.ID = "hyperkeep-password-change"

// passwordChange is what changeBlob holds: both blobs as they were, encrypted with the key of the previous password.
type passwordChange struct {
	Format   []byte `json:"format"`
	Settings []byte `json:"settings"`
}

// ChangePassword makes a repository open with another password, and no longer with the previous one. It may be cut off at any point and is then called
// again. When the repository has the next password already, nothing is changed. ErrWrongPassword when it has neither.
//
// It encrypts the repository's key anew, not what is stored: who has the previous password and an old copy of the format blob can still read. Who has the
// repository open meanwhile goes on, see Options.Passwords. Only one process may do so at a time.
func ChangePassword(ctx context.Context, loc Location, previous, next string, opts Options) error {
	opts = opts.withDefaults()
	opts.Passwords = nil
	if opts.AppendOnly {
		return fmt.Errorf("change password: %w", ErrAppendOnly)
	}
	if next == "" {
		return fmt.Errorf("change password: %w", errors.New("an empty password protects nothing: set one"))
	}
	store, err := storage.Open(ctx, loc, storage.Existing, opts.storage(loc))
	if err != nil {
		return fmt.Errorf("change password: %w", err)
	}
	err = changePassword(ctx, store, loc, previous, next, opts)
	if err := errors.Join(err, store.Close(ctx)); err != nil {
		return fmt.Errorf("change password: %w", err)
	}
	return nil
}

func changePassword(ctx context.Context, store *storage.Storage, loc Location, previous, next string, opts Options) error {
	if err := undoChange(ctx, store); err != nil {
		return err
	}
	err := opens(ctx, loc, next, opts)
	if errors.Is(err, ErrWrongPassword) {
		if err = rewrap(ctx, store, loc, previous, next, opts); err == nil {
			err = opens(ctx, loc, next, opts)
		}
	}
	if err != nil {
		return err
	}
	return store.DeleteBlob(ctx, changeBlob)
}

// undoChange puts back the settings when a change was cut off before it came to the format.
func undoChange(ctx context.Context, store *storage.Storage) error {
	text, err := store.Whole(ctx, changeBlob)
	if errors.Is(err, blob.ErrBlobNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	var before passwordChange
	if err := json.Unmarshal(text, &before); err != nil {
		return damaged(err, "read what undoes a change of the password")
	}
	present, err := store.Whole(ctx, format.KopiaRepositoryBlobID)
	if err != nil || !bytes.Equal(present, before.Format) {
		return err // it came to its end
	}
	if before.Settings == nil {
		return store.DeleteBlob(ctx, format.KopiaBlobCfgBlobID)
	}
	return store.PutBlob(ctx, format.KopiaBlobCfgBlobID, storage.Bytes(before.Settings), blob.PutOptions{})
}

// rewrap records both blobs and has kopia write them anew.
func rewrap(ctx context.Context, store *storage.Storage, loc Location, previous, next string, opts Options) error {
	r, err := Open(ctx, loc, previous, opts)
	if err != nil {
		return err
	}
	defer r.Close(ctx) //nolint:errcheck // it is only opened to be changed
	text, err := json.Marshal(passwordChange{Format: r.session.format.format, Settings: r.session.format.settings})
	if err != nil {
		return err
	}
	if err := store.PutBlob(ctx, changeBlob, storage.Bytes(text), blob.PutOptions{}); err != nil {
		return err
	}
	return r.session.FormatManager().ChangePassword(ctx, next)
}

// opens says whether a repository opens with a password, reading nothing of it but what the password protects.
func opens(ctx context.Context, loc Location, password string, opts Options) error {
	s, err := openSession(ctx, loc, password, opts, readOnly)
	if err != nil {
		return err
	}
	return s.close(ctx)
}

// openWithAny opens a session with a password or, where that is not the one, with any other that may be.
func openWithAny(ctx context.Context, loc Location, password string, opts Options, how access) (*session, error) {
	s, err := openSession(ctx, loc, password, opts, how)
	if opts.Passwords == nil || !errors.Is(err, ErrWrongPassword) {
		return s, err
	}
	others, askErr := opts.Passwords(ctx)
	if askErr != nil {
		return nil, errors.Join(err, askErr)
	}
	for _, other := range others {
		if other == password || other == "" {
			continue
		}
		if s, err = openSession(ctx, loc, other, opts, how); !errors.Is(err, ErrWrongPassword) {
			return s, err
		}
	}
	return nil, err
}

// unfinished says of a repository that does not open whether that is because its password is being changed.
func unfinished(ctx context.Context, store *storage.Storage, err error) error {
	if passing(err) || errors.Is(err, format.ErrInvalidPassword) {
		return err
	}
	if _, found := store.GetMetadata(ctx, changeBlob); found != nil {
		return err
	}
	return fmt.Errorf("%w (%w)", ErrChanging, err)
}
