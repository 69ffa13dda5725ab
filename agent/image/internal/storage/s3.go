package storage

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/xml"
	"errors"
	"net/http"
	"time"

	"github.com/kopia/kopia/repo/blob"
	kopias3 "github.com/kopia/kopia/repo/blob/s3"
	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// probeTimeout bounds the first contact with an object store. Its client would otherwise go on for minutes before it says that nobody
// is there.
const probeTimeout = 30 * time.Second

// bucket is a blob store in an S3 bucket. Kopia's provider reads, lists and deletes. It cannot create without overwriting, and would try
// to shorten a lock, so what writes is here.
type bucket struct {
	blob.Storage
	client *minio.Client
	at     S3Location
	now    func() time.Time
}

func openS3(ctx context.Context, l S3Location, now func() time.Time) (place, error) {
	switch {
	case l.Endpoint == "" || l.Bucket == "":
		return nil, newError("open bucket", ErrNotUsable, "an endpoint and a bucket are needed")
	case l.AccessKeyID == "" || l.SecretAccessKey == "": // kopia would ask the environment, and the metadata service of a cloud
		return nil, newError("open bucket", ErrAccessDenied, "an access key is needed")
	}
	if err := probeBucket(ctx, l); err != nil {
		return nil, err
	}
	host, insecure := l.host()
	stock, err := kopias3.New(ctx, &kopias3.Options{
		BucketName:      l.Bucket,
		Prefix:          l.Prefix,
		Endpoint:        host,
		DoNotUseTLS:     insecure,
		DoNotVerifyTLS:  l.SkipVerify,
		RootCA:          l.CA,
		AccessKeyID:     l.AccessKeyID,
		SecretAccessKey: l.SecretAccessKey,
		SessionToken:    l.SessionToken,
		Region:          l.Region,
	}, false)
	if err != nil {
		return nil, err
	}
	client, _, err := l.client(0)
	if err != nil {
		return nil, err
	}
	return &bucket{Storage: stock, client: client, at: l, now: now}, nil
}

// PutBlob stores an object. With DoNotRecreate it never replaces one: the store decides (If-None-Match), not a look before.
func (b *bucket) PutBlob(ctx context.Context, id blob.ID, data blob.Bytes, opts blob.PutOptions) error {
	if !opts.SetModTime.IsZero() {
		return blob.ErrSetTimeUnsupported
	}
	put := minio.PutObjectOptions{
		ContentType:      "application/x-kopia",
		DisableMultipart: true,
		SendContentMd5:   true, // stores that lock demand it
	}
	if opts.RetentionPeriod > 0 {
		put.Mode = minio.RetentionMode(opts.RetentionMode)
		put.RetainUntilDate = b.now().Add(opts.RetentionPeriod).UTC()
	}
	if opts.DoNotRecreate {
		put.SetMatchETagExcept("*")
	}
	reader := data.Reader()
	defer reader.Close() //nolint:errcheck // it only gives buffers back
	_, err := b.client.PutObject(ctx, b.at.Bucket, b.at.Prefix+string(id), reader, int64(data.Length()), put)
	if err != nil {
		return alreadyExists(err)
	}
	if opts.GetModTime == nil {
		return nil
	}
	m, err := b.GetMetadata(ctx, id)
	*opts.GetModTime = m.Timestamp
	return err
}

// alreadyExists recognises the answers to a refused If-None-Match: the object was there, or another request was just making it.
func alreadyExists(err error) error {
	response := minio.ErrorResponse{}
	if errors.As(err, &response) && (response.StatusCode == http.StatusPreconditionFailed || response.Code == "ConditionalRequestConflict") {
		return blob.ErrBlobAlreadyExists
	}
	return err
}

// ExtendBlobRetention prolongs the lock on an object. It never shortens one, and never weakens its mode.
func (b *bucket) ExtendBlobRetention(ctx context.Context, id blob.ID, opts blob.ExtendOptions) error {
	mode, until := minio.RetentionMode(opts.RetentionMode), b.now().Add(opts.RetentionPeriod).UTC()
	held, heldUntil, err := b.lock(ctx, id)
	if err != nil {
		return err
	}
	if held == minio.Compliance {
		mode = minio.Compliance
	}
	if heldUntil.After(until) {
		until = heldUntil
	}
	if held == mode && heldUntil.Equal(until) {
		return nil
	}
	return b.client.PutObjectRetention(ctx, b.at.Bucket, b.at.Prefix+string(id), minio.PutObjectRetentionOptions{Mode: &mode, RetainUntilDate: &until})
}

func (*bucket) durableNames() (bool, error) { return true, nil }

func (b *bucket) lockedUntil(ctx context.Context, id blob.ID) (time.Time, error) {
	_, until, err := b.lock(ctx, id)
	return until, err
}

// lock tells how an object is locked: an object that was stored before locks were asked for is not. The headers of the object say it too, in
// a way in which stores differ less than in the answers to GetObjectRetention.
func (b *bucket) lock(ctx context.Context, id blob.ID) (minio.RetentionMode, time.Time, error) {
	object, err := b.client.StatObject(ctx, b.at.Bucket, b.at.Prefix+string(id), minio.StatObjectOptions{})
	if err != nil {
		if (minio.ToErrorResponse(err)).StatusCode == http.StatusNotFound {
			err = blob.ErrBlobNotFound
		}
		return "", time.Time{}, err
	}
	mode := minio.RetentionMode(object.Metadata.Get("X-Amz-Object-Lock-Mode"))
	if mode == "" {
		return "", time.Time{}, nil
	}
	until, err := time.Parse(time.RFC3339, object.Metadata.Get("X-Amz-Object-Lock-Retain-Until-Date"))
	return mode, until, err
}

// lockable asks the bucket whether objects in it can be locked.
func (b *bucket) lockable(ctx context.Context) error {
	enabled, _, _, _, err := b.client.GetObjectLockConfig(ctx, b.at.Bucket)
	response, other := minio.ErrorResponse{}, xml.UnmarshalError("")
	switch {
	case errors.As(err, &response) && (response.StatusCode == http.StatusNotFound || response.StatusCode == http.StatusNotImplemented):
		return newError("look for object lock", ErrNoLock, "the bucket was made without it")
	case errors.As(err, &other): // the store took the question for another one
		return newError("look for object lock", ErrNoLock, "the store does not know of it")
	case err != nil:
		return translate("look for object lock", err)
	case enabled != "Enabled":
		return newError("look for object lock", ErrNoLock, "the bucket was made without it")
	}
	return nil
}

// probeBucket asks for the bucket with a client of its own that tries twice and tells a missing bucket from a missing object.
func probeBucket(ctx context.Context, l S3Location) error {
	client, transport, err := l.client(2)
	if err != nil {
		return err
	}
	defer transport.CloseIdleConnections()
	probe, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	found, err := client.BucketExists(probe, l.Bucket)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case probe.Err() != nil:
		return newError("open bucket", ErrUnreachable, "no answer within "+probeTimeout.String())
	case err != nil:
		return translate("open bucket", err)
	case !found:
		return newError("open bucket", ErrNotUsable, "there is no such bucket")
	}
	return nil
}

// client speaks to the store and tries so many times, as often as is usual when retries is 0.
func (s S3Location) client(retries int) (*minio.Client, *http.Transport, error) {
	transport, err := s.transport()
	if err != nil {
		return nil, nil, err
	}
	host, insecure := s.host()
	client, err := minio.New(host, &minio.Options{
		Creds:      credentials.NewStaticV4(s.AccessKeyID, s.SecretAccessKey, s.SessionToken),
		Secure:     !insecure,
		Region:     s.Region,
		Transport:  transport,
		MaxRetries: retries,
	})
	if err != nil {
		return nil, nil, newError("open bucket", ErrNotUsable, "the endpoint is no host name or address")
	}
	return client, transport, nil
}

func (s S3Location) transport() (*http.Transport, error) {
	settings := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: s.SkipVerify} //nolint:gosec // asked for by the administrator
	if len(s.CA) > 0 {
		settings.RootCAs = x509.NewCertPool()
		if !settings.RootCAs.AppendCertsFromPEM(s.CA) {
			return nil, newError("open bucket", ErrNotUsable, "the CA is no certificate in PEM form")
		}
	}
	return &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		TLSClientConfig:       settings,
		TLSHandshakeTimeout:   10 * time.Second,
		ResponseHeaderTimeout: probeTimeout,
		IdleConnTimeout:       90 * time.Second,
		ForceAttemptHTTP2:     true,
	}, nil
}
