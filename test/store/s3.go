package store

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// Key is what a user of an S3 store signs with.
type Key struct{ ID, Secret string }

// S3 is a running versitygw, with versions of objects, object lock, users and bucket policies.
type S3 struct {
	// Endpoint as http://host:port.
	Endpoint string
	// Root may do everything but what a lock forbids.
	Root    Key
	tb      testing.TB
	address string
	program string
}

// Region of the store.
const Region = "us-east-1"

// StartS3 starts a store without a bucket, for the length of a test.
func StartS3(tb testing.TB) *S3 {
	tb.Helper()
	s := &S3{Root: Key{"ROOT", "secret-of-root"}, tb: tb, address: freeAddress(tb), program: program(tb, "versitygw")}
	s.Endpoint = "http://" + s.address
	dir := tb.TempDir()
	folders := map[string]string{}
	for _, name := range []string{"buckets", "versions", "users"} {
		folders[name] = filepath.Join(dir, name)
		if err := os.Mkdir(folders[name], 0o700); err != nil {
			tb.Fatal(err)
		}
	}
	start(tb, s.address, s.program, "--port", s.address, "--access", s.Root.ID, "--secret", s.Root.Secret, "--region", Region,
		"--iam-dir", folders["users"], "--quiet", "posix", "--versioning-dir", folders["versions"], folders["buckets"])
	return s
}

// Client speaks to the store with a key.
func (s *S3) Client(key Key) *minio.Client {
	s.tb.Helper()
	client, err := minio.New(s.address, &minio.Options{Creds: credentials.NewStaticV4(key.ID, key.Secret, ""), Region: Region, MaxRetries: 1})
	if err != nil {
		s.tb.Fatal(err)
	}
	return client
}

// Bucket makes a bucket. One with locks keeps versions too.
func (s *S3) Bucket(name string, locks bool) {
	s.tb.Helper()
	if err := s.Client(s.Root).MakeBucket(s.tb.Context(), name, minio.MakeBucketOptions{ObjectLocking: locks}); err != nil {
		s.tb.Fatal(err)
	}
}

// User makes a user who may do nothing until a policy says so.
func (s *S3) User(name string) Key {
	s.tb.Helper()
	key := Key{name, "secret-of-" + name}
	out, err := exec.CommandContext(s.tb.Context(), s.program, "admin", "--access", s.Root.ID, "--secret", s.Root.Secret,
		"--endpoint-url", s.Endpoint, "create-user", "--access", key.ID, "--secret", key.Secret, "--role", "user").CombinedOutput()
	if err != nil {
		s.tb.Fatalf("create user: %v\n%s", err, out)
	}
	return key
}

// Policy says who may do what in a bucket.
func (s *S3) Policy(bucket, policy string) {
	s.tb.Helper()
	if err := s.Client(s.Root).SetBucketPolicy(s.tb.Context(), bucket, policy); err != nil {
		s.tb.Fatal(err)
	}
}
