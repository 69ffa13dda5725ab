package image_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
	"github.com/kopia/kopia/repo/blob"

	"github.com/hyperkeep/hyperkeep/agent/extent"
	"github.com/hyperkeep/hyperkeep/agent/image"
	"github.com/hyperkeep/hyperkeep/test/store"
)

const (
	accessKey   = "AKIAHYPERKEEPTEST"
	secretKey   = "a-very-secret-key"
	deniedBody  = "words-of-the-server"
	deniedReply = `<?xml version="1.0"?><Error><Code>AccessDenied</Code><Message>` + deniedBody + `</Message></Error>`
)

// onBuckets runs a test against a fake store, which is always there, and a real one.
func onBuckets(t *testing.T, test func(t *testing.T, where image.S3Location)) {
	t.Run("fake", func(t *testing.T) { test(t, bucket(t)) })
	t.Run("versitygw", func(t *testing.T) {
		server := store.StartS3(t)
		server.Bucket("images", false)
		test(t, at(server, server.Root))
	})
}

// at is the bucket of a real store, for the holder of a key.
func at(server *store.S3, key store.Key) image.S3Location {
	return image.S3Location{
		Endpoint: server.Endpoint, Bucket: "images", Prefix: "tenant-a/", Region: store.Region, AccessKeyID: key.ID, SecretAccessKey: key.Secret,
	}
}

// bucket serves one bucket to holders of the access key.
func bucket(t testing.TB) image.S3Location {
	t.Helper()
	backend := s3mem.New()
	if err := backend.CreateBucket("images"); err != nil {
		t.Fatal(err)
	}
	fake := gofakes3.New(backend).Server()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.Contains(r.Header.Get("Authorization"), accessKey) {
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprint(w, deniedReply)
			return
		}
		fake.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	return image.S3Location{
		Endpoint: server.URL, Bucket: "images", Prefix: "tenant-a/", Region: "us-east-1", AccessKeyID: accessKey, SecretAccessKey: secretKey,
	}
}

func TestABucketHoldsImages(t *testing.T) { onBuckets(t, aBucketHoldsImages) }

func aBucketHoldsImages(t *testing.T, where image.S3Location) {
	r := create(t, image.Location{S3: &where}, image.Options{})
	before := random(1, 3*mib)
	backup(t, r, "one", disk("d0"), allocated(before))
	after := bytes.Clone(before)
	copy(after[mib:], random(2, 1000))
	backup(t, r, "two", increment("d0", "one", extent.Extent{Offset: mib, Length: 1000}), allocated(after))
	mustRestore(t, r, "one", "d0", before)
	mustRestore(t, r, "two", "d0", after)
	other := create(t, image.Location{S3: &where}, image.Options{})
	if other.UniqueID() != r.UniqueID() || len(r.UniqueID()) != 64 {
		t.Errorf("unique id %q, then %q", r.UniqueID(), other.UniqueID())
	}
	mustRestore(t, other, "two", "d0", after)
}

func TestWhatIsWrongWithALocationIsSaid(t *testing.T) { onBuckets(t, whatIsWrongIsSaid) }

func whatIsWrongIsSaid(t *testing.T, good image.S3Location) {
	with := func(change func(*image.S3Location)) image.Location {
		changed := good
		change(&changed)
		return image.Location{S3: &changed}
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	in := func(path string) image.Location {
		return image.Location{Filesystem: &image.FilesystemLocation{Path: path}}
	}
	closed := closedPort(t)
	for name, test := range map[string]struct {
		where image.Location
		want  error
	}{
		"nothing is given":          {image.Location{}, image.ErrNotUsable},
		"the path is a file":        {in(file), image.ErrNotUsable},
		"the path is below a file":  {in(filepath.Join(file, "x")), image.ErrNotUsable},
		"the path is relative":      {in("images"), image.ErrNotUsable},
		"the directory is missing":  {in(filepath.Join(dir, "missing")), image.ErrNoRepository},
		"the directory is empty":    {in(dir), image.ErrNoRepository},
		"the bucket is empty":       {image.Location{S3: &good}, image.ErrNoRepository},
		"the bucket is missing":     {with(func(l *image.S3Location) { l.Bucket = "other" }), image.ErrNotUsable},
		"the credentials are wrong": {with(func(l *image.S3Location) { l.AccessKeyID = "AKIASOMEBODYELSE" }), image.ErrAccessDenied},
		"a credential is missing":   {with(func(l *image.S3Location) { l.SecretAccessKey = "" }), image.ErrAccessDenied},
		"nobody answers":            {with(func(l *image.S3Location) { l.Endpoint = closed }), image.ErrUnreachable},
		"TLS is spoken to HTTP": {with(func(l *image.S3Location) {
			l.Endpoint = "https://" + strings.TrimPrefix(l.Endpoint, "http://")
		}), image.ErrUnreachable},
		"the CA is no certificate": {with(func(l *image.S3Location) { l.CA = []byte("x") }), image.ErrNotUsable},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := image.Open(context.Background(), test.where, password, image.Options{WorkDir: t.TempDir()})
			if err == nil {
				r.Close(context.Background())
			}
			if !errors.Is(err, test.want) {
				t.Fatalf("got %v, want %v", err, test.want)
			}
			for _, secret := range []string{password, secretKey, accessKey, deniedBody, good.SecretAccessKey, "AKIASOMEBODYELSE"} { // I7
				if strings.Contains(err.Error(), secret) {
					t.Errorf("the error %q has a secret or a response body in it", err)
				}
			}
		})
	}
	if left, _ := os.ReadDir(dir); len(left) != 1 {
		t.Errorf("looking for a repository left %v", left)
	}
}

func closedPort(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return "http://" + l.Addr().String()
}

func TestAWrongPasswordIsSaid(t *testing.T) {
	where := directory(t)
	create(t, where, image.Options{})
	_, err := image.Open(context.Background(), where, "incorrect", image.Options{WorkDir: t.TempDir()})
	if !errors.Is(err, image.ErrWrongPassword) || strings.Contains(err.Error(), "incorrect") {
		t.Error(err)
	}
	if err := image.Initialize(context.Background(), where, password, image.Options{}); err == nil {
		t.Error("a repository was created over another one")
	}
	if err := image.Initialize(context.Background(), directory(t), "", image.Options{}); err == nil {
		t.Error("an empty password was accepted")
	}
}

func TestARepositoryIsNotCreatedBelowAMissingDirectory(t *testing.T) {
	where := image.Location{Filesystem: &image.FilesystemLocation{Path: filepath.Join(t.TempDir(), "not-mounted", "repository")}}
	if err := image.Initialize(context.Background(), where, password, image.Options{}); !errors.Is(err, image.ErrNotUsable) {
		t.Error(err)
	}
}

func TestCredentialsAreNeitherPrintedNorWrittenToDisk(t *testing.T) { // I7
	where := bucket(t)
	loc := image.Location{S3: &where}
	for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
		if s := fmt.Sprintf(format, loc) + fmt.Sprintf(format, where) + fmt.Sprintf(format, &where); strings.Contains(s, secretKey) || strings.Contains(s, accessKey) {
			t.Errorf("%s prints %s", format, s)
		}
	}
	// What is on the disk is there while a repository is opened, so it is looked at whenever that asks the storage.
	dir, seen := t.TempDir(), atomic.Bool{}
	looking := &faulty{fail: func(string, blob.ID) error {
		return filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			seen.Store(true)
			b, err := os.ReadFile(path)
			for _, secret := range []string{password, secretKey, accessKey} {
				if bytes.Contains(b, []byte(secret)) {
					t.Errorf("%s has a secret in it", path)
				}
			}
			return err
		})
	}}
	create(t, loc, image.WithDecorator(image.Options{WorkDir: dir}, looking.wrap))
	if !seen.Load() {
		t.Error("no file was seen")
	}
	if left, err := os.ReadDir(dir); len(left) > 0 || err != nil {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestAStorageThatIsFullIsSaid(t *testing.T) {
	full := &faulty{fail: func(op string, _ blob.ID) error {
		if op == "put" {
			return errFull
		}
		return nil
	}}
	err := image.Initialize(context.Background(), directory(t), password, image.WithDecorator(image.Options{}, full.wrap))
	if !errors.Is(err, image.ErrFull) {
		t.Error(err)
	}
}
