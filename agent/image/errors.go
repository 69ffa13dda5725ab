package image

import (
	"context"
	"errors"
	"fmt"

	"github.com/hyperkeep/hyperkeep/agent/image/internal/storage"
)

// What can be wrong with the place of a repository. ErrUnreachable and ErrFull may pass; the others need a person.
var (
	ErrNoRepository  = storage.ErrNoRepository
	ErrWrongPassword = errors.New("the password is not that of this repository")
	ErrAccessDenied  = storage.ErrAccessDenied
	ErrNotUsable     = storage.ErrNotUsable
	ErrUnreachable   = storage.ErrUnreachable
	ErrFull          = storage.ErrFull
	// ErrNoLock means that images cannot be made immutable there.
	ErrNoLock = storage.ErrNoLock
	// ErrAppendOnly means that a handle of somebody who adds images was asked for more.
	ErrAppendOnly = storage.ErrAppendOnly
)

// What can be wrong with an image.
var (
	ErrImageNotFound = errors.New("the repository has no such image")
	// ErrImageMismatch means that the repository has an image of that id, and that it is not the one that was recorded.
	ErrImageMismatch = errors.New("the image in the repository is not the one that was recorded")
	ErrDiskNotFound  = errors.New("the image has no such disk")
	ErrFileNotFound  = errors.New("the image has no such file")
	// ErrLocked means that an image cannot be deleted yet.
	ErrLocked = errors.New("the image is immutable")
	// ErrDamaged means that stored bytes are missing or fail their check. The storage did answer.
	ErrDamaged = errors.New("stored data is missing or damaged")
	// ErrBaseUnusable means that an increment cannot stand on the image it names. A full read of that disk can follow on the same Writer.
	ErrBaseUnusable = errors.New("the base image cannot be used")
)

// damaged tells the failure of stored bytes from the failure of the storage: what the storage itself reported stays, everything else
// that went wrong while reading is damage.
func damaged(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	what := fmt.Sprintf(format, args...)
	if passing(err) || errors.Is(err, ErrDamaged) {
		return fmt.Errorf("%s: %w", what, err)
	}
	return fmt.Errorf("%s: %w: %w", what, ErrDamaged, err)
}

// passing says whether an error speaks about the storage or the caller and not about stored bytes.
func passing(err error) bool {
	own := (*storage.Error)(nil)
	return errors.As(err, &own) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}
