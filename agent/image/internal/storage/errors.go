package storage

import (
	"context"
	"errors"
	"io/fs"
	"net/http"
	"net/url"
	"regexp"
	"runtime"
	"syscall"

	gcsclient "cloud.google.com/go/storage"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/kopia/kopia/repo/blob"
	"github.com/minio/minio-go/v7"
	"google.golang.org/api/googleapi"
)

// What can be wrong with the place of a repository. Every error of this package wraps one of these, or is one of kopia's that its
// library has to recognise (a missing blob, a cut one), or the context's.
var (
	ErrNoRepository = errors.New("there is no repository here: create it first, or correct the location")
	ErrAccessDenied = errors.New("the storage denies access: check the credentials and what they may do")
	ErrUnreachable  = errors.New("the storage does not answer or fails: check the address, the network and the server")
	ErrNotUsable    = errors.New("the location cannot hold a repository: correct it")
	ErrFull         = errors.New("the storage is full: free space or raise its quota")
	ErrNoLock       = errors.New("the storage cannot lock what is written: use a bucket with object lock, or do without immutability")
	ErrAppendOnly   = errors.New("whoever adds images neither deletes nor overwrites: leave that to the keeper")
)

// Error is a failure of the storage: what was tried, what is wrong, and a detail that holds no secret and no response body.
type Error struct {
	Operation string
	Kind      error // one of the errors above
	Detail    string
}

func newError(operation string, kind error, detail string) *Error {
	return &Error{Operation: operation, Kind: kind, Detail: detail}
}

func (e *Error) Error() string {
	if e.Detail == "" {
		return e.Operation + ": " + e.Kind.Error()
	}
	return e.Operation + ": " + e.Kind.Error() + " (" + e.Detail + ")"
}

// Unwrap gives the kind, so that errors.Is finds it.
func (e *Error) Unwrap() error { return e.Kind }

// understood are the errors that kopia's library acts on: they pass unchanged.
var understood = []error{
	blob.ErrBlobNotFound, blob.ErrInvalidRange, blob.ErrUnsupportedPutBlobOption, blob.ErrSetTimeUnsupported, blob.ErrNotAVolume,
	blob.ErrUnsupportedObjectLock, blob.ErrBlobAlreadyExists, context.Canceled, context.DeadlineExceeded,
}

// translate makes a provider's error one of this package's.
func translate(operation string, err error) error {
	if err == nil {
		return nil
	}
	if own := (*Error)(nil); errors.As(err, &own) {
		return err
	}
	for _, known := range understood {
		if errors.Is(err, known) {
			return err
		}
	}
	detail, kind := classify(err)
	return newError(operation, kind, detail)
}

func classify(err error) (detail string, kind error) {
	if response := (minio.ErrorResponse{}); errors.As(err, &response) {
		return classifyS3(response)
	}
	if response := (*azcore.ResponseError)(nil); errors.As(err, &response) {
		return classifyAzure(response)
	}
	if response := (*googleapi.Error)(nil); errors.As(err, &response) {
		return classifyGoogle(response)
	}
	if errors.Is(err, gcsclient.ErrBucketNotExist) {
		return "there is no such bucket", ErrNotUsable
	}
	if errors.Is(err, blob.ErrInvalidCredentials) {
		return "the credentials have expired", ErrAccessDenied
	}
	if outer := (*url.Error)(nil); errors.As(err, &outer) {
		return outer.Err.Error(), ErrUnreachable // without the URL
	}
	var errno syscall.Errno
	switch {
	case !errors.As(err, &errno):
		return innermost(err).Error(), ErrUnreachable
	case isFull(errno):
		return errno.Error(), ErrFull
	case errors.Is(errno, fs.ErrPermission), errno == syscall.EROFS:
		return errno.Error(), ErrAccessDenied
	case errno == syscall.ENOTDIR, errors.Is(errno, fs.ErrNotExist):
		return errno.Error(), ErrNotUsable
	}
	return errno.Error(), ErrUnreachable
}

// Numbers of Windows errors ([MS-ERREF] 2.2), which the portable syscall package does not name.
const (
	windowsHandleDiskFull syscall.Errno = 39   // ERROR_HANDLE_DISK_FULL
	windowsDiskFull       syscall.Errno = 112  // ERROR_DISK_FULL
	windowsQuotaExceeded  syscall.Errno = 1295 // ERROR_DISK_QUOTA_EXCEEDED
)

func isFull(errno syscall.Errno) bool {
	if runtime.GOOS == "windows" {
		return errno == windowsHandleDiskFull || errno == windowsDiskFull || errno == windowsQuotaExceeded
	}
	return errno == syscall.ENOSPC || errno == syscall.EDQUOT
}

// Numbers of Windows errors ([MS-ERREF] 2.2) with which file systems without links refuse one.
const (
	windowsInvalidFunction syscall.Errno = 1  // ERROR_INVALID_FUNCTION
	windowsNotSupported    syscall.Errno = 50 // ERROR_NOT_SUPPORTED
)

// linkless says that a file system has no links. link(2) answers EPERM there.
func linkless(err error) bool {
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return false
	}
	if runtime.GOOS == "windows" {
		return errno == windowsInvalidFunction || errno == windowsNotSupported
	}
	return errno == syscall.EPERM || errno == syscall.ENOTSUP || errno == syscall.ENOSYS
}

// codeWord is what an S3 error code looks like. Anything else in its place came from somewhere else and is not repeated.
var codeWord = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9.]{1,60}$`)

func classifyS3(response minio.ErrorResponse) (detail string, kind error) {
	detail = http.StatusText(response.StatusCode)
	if codeWord.MatchString(response.Code) {
		detail = response.Code
	}
	switch response.Code {
	case "NoSuchBucket":
		return detail, ErrNotUsable
	case "XMinioStorageFull", "QuotaExceeded", "XMinioAdminBucketQuotaExceeded":
		return detail, ErrFull
	case "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "TokenRefreshRequired":
		return detail, ErrAccessDenied
	}
	switch response.StatusCode {
	case http.StatusUnauthorized, http.StatusForbidden:
		return detail, ErrAccessDenied
	case http.StatusInsufficientStorage:
		return detail, ErrFull
	}
	return detail, ErrUnreachable
}

func innermost(err error) error {
	for {
		next := errors.Unwrap(err)
		if next == nil {
			return err
		}
		err = next
	}
}
