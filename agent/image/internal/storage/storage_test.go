package storage

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/kopia/kopia/repo/blob"
	"github.com/minio/minio-go/v7"
	"golang.org/x/sync/semaphore"
)

func unbounded() *semaphore.Weighted { return semaphore.NewWeighted(1 << 30) }

func TestErrorsOfProvidersBecomeSentences(t *testing.T) {
	const body, address = "words-of-the-server", "https://store.example/images?X-Amz-Signature=secret"
	s3 := func(status int, code string) error {
		return fmt.Errorf("PutObject: %w", minio.ErrorResponse{StatusCode: status, Code: code, Message: body})
	}
	for name, test := range map[string]struct{ err, want error }{
		"a missing blob stays what it is":       {fmt.Errorf("get: %w", blob.ErrBlobNotFound), blob.ErrBlobNotFound},
		"a cut blob stays what it is":           {blob.ErrInvalidRange, blob.ErrInvalidRange},
		"the end of a context stays what it is": {&url.Error{Op: "Put", URL: address, Err: context.Canceled}, context.Canceled},
		"403":                                   {s3(http.StatusForbidden, ""), ErrAccessDenied},
		"an expired token":                      {s3(http.StatusBadRequest, "ExpiredToken"), ErrAccessDenied},
		"credentials that ran out":              {blob.ErrInvalidCredentials, ErrAccessDenied},
		"a full MinIO":                          {s3(http.StatusInsufficientStorage, "XMinioStorageFull"), ErrFull},
		"507":                                   {s3(http.StatusInsufficientStorage, ""), ErrFull},
		"a bucket that is gone":                 {s3(http.StatusNotFound, "NoSuchBucket"), ErrNotUsable},
		"503":                                   {s3(http.StatusServiceUnavailable, "SlowDown"), ErrUnreachable},
		"a proxy's page":                        {s3(http.StatusBadGateway, "<html>"+body), ErrUnreachable},
		"a refused connection":                  {&url.Error{Op: "Put", URL: address, Err: &net.OpError{Op: "dial", Err: errors.New("refused")}}, ErrUnreachable},
		"anything else":                         {errors.New("odd"), ErrUnreachable},
	} {
		t.Run(name, func(t *testing.T) {
			err := translate("store blob p1", test.err)
			if !errors.Is(err, test.want) {
				t.Errorf("got %v, want %v", err, test.want)
			}
			if own := (*Error)(nil); errors.As(err, &own) && (strings.Contains(err.Error(), body) || strings.Contains(err.Error(), "secret")) {
				t.Errorf("the error repeats what the server said: %v", err)
			}
			if again := translate("outer", err); again.Error() != err.Error() {
				t.Errorf("translated twice: %v", again)
			}
		})
	}
	if translate("x", nil) != nil {
		t.Error("no error became one")
	}
}

func TestAdmitWaitsForAnUpload(t *testing.T) {
	s := &Storage{uploads: semaphore.NewWeighted(1)}
	if err := s.Admit(context.Background()); err != nil {
		t.Fatal(err)
	}
	if !s.uploads.TryAcquire(1) {
		t.Fatal("asking took a place")
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.Admit(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("admitted while an upload was under way: %v", err)
	}
}
