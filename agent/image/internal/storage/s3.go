package storage

import (
	"context"
	"crypto/tls"
	"crypto/x509"
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

func openS3(ctx context.Context, l S3Location) (blob.Storage, error) {
	if l.Endpoint == "" || l.Bucket == "" {
		return nil, newError("open bucket", ErrNotUsable, "an endpoint and a bucket are needed")
	}
	if err := probeBucket(ctx, l); err != nil {
		return nil, err
	}
	host, insecure := l.host()
	return kopias3.New(ctx, &kopias3.Options{
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
}

// probeBucket asks for the bucket with a client of its own that tries twice and tells a missing bucket from a missing object.
func probeBucket(ctx context.Context, l S3Location) error {
	host, insecure := l.host()
	transport, err := l.transport()
	if err != nil {
		return err
	}
	defer transport.CloseIdleConnections()
	client, err := minio.New(host, &minio.Options{
		Creds:      credentials.NewStaticV4(l.AccessKeyID, l.SecretAccessKey, l.SessionToken),
		Secure:     !insecure,
		Region:     l.Region,
		Transport:  transport,
		MaxRetries: 2,
	})
	if err != nil {
		return newError("open bucket", ErrNotUsable, "the endpoint is no host name or address")
	}
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
		ForceAttemptHTTP2:     true,
	}, nil
}
