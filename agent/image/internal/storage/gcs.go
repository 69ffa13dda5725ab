package storage

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	gcsclient "cloud.google.com/go/storage"
	"github.com/kopia/kopia/repo/blob"
	kopiagcs "github.com/kopia/kopia/repo/blob/gcs"
	"google.golang.org/api/googleapi"
	"google.golang.org/api/iterator"
	"google.golang.org/api/option"
)

// GCSLocation is a repository in a bucket of Google Cloud Storage.
type GCSLocation struct {
	Bucket string // has to exist
	Prefix string // of every object, usually ending in a slash; may be empty
	// ServiceAccountKey is the JSON document of a service account's key.
	ServiceAccountKey []byte
}

// String names the bucket, without the key.
func (g GCSLocation) String() string { return "gs://" + g.Bucket + "/" + g.Prefix }

// GoString keeps the key out of %#v.
func (g GCSLocation) GoString() string { return g.String() }

// googleBucket is a blob store in a bucket of Google's, by kopia's provider, which creates without overwriting where it is asked to.
type googleBucket struct {
	blob.Storage
	client *gcsclient.Client
	at     GCSLocation
}

func openGCS(ctx context.Context, l GCSLocation) (place, error) {
	switch {
	case l.Bucket == "":
		return nil, newError("open bucket", ErrNotUsable, "a bucket is needed")
	case !json.Valid(l.ServiceAccountKey): // without one, kopia would ask the environment
		return nil, newError("open bucket", ErrAccessDenied, "the key of a service account is needed, as JSON")
	}
	// Kopia's client and ours live as long as the storage; a context that ends sooner would end them.
	lasting := context.WithoutCancel(ctx)
	client, err := gcsclient.NewClient(lasting, option.WithCredentialsJSON(l.ServiceAccountKey), option.WithScopes(gcsclient.ScopeFullControl))
	if err != nil {
		return nil, newError("open bucket", ErrAccessDenied, "the key is not one of a service account")
	}
	probe, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	if _, err := client.Bucket(l.Bucket).Objects(probe, &gcsclient.Query{Prefix: l.Prefix + "kopia.repository"}).Next(); err != nil && !errors.Is(err, iterator.Done) {
		if ctx.Err() == nil && probe.Err() != nil {
			err = newError("open bucket", ErrUnreachable, "no answer within "+probeTimeout.String())
		}
		return nil, errors.Join(err, client.Close())
	}
	stock, err := kopiagcs.New(lasting, &kopiagcs.Options{BucketName: l.Bucket, Prefix: l.Prefix, ServiceAccountCredentialJSON: l.ServiceAccountKey}, false)
	if err != nil {
		return nil, errors.Join(err, client.Close())
	}
	return &googleBucket{Storage: stock, client: client, at: l}, nil
}

// Close closes the clients.
func (g *googleBucket) Close(ctx context.Context) error {
	return errors.Join(g.Storage.Close(ctx), g.client.Close())
}

// lockable asks the bucket whether single objects in it can be retained.
func (g *googleBucket) lockable(ctx context.Context) error {
	attributes, err := g.client.Bucket(g.at.Bucket).Attrs(ctx)
	if err != nil {
		return translate("look for object retention", err)
	}
	if attributes.ObjectRetentionMode != "Enabled" {
		return newError("look for object retention", ErrNoLock, "the bucket was made without it")
	}
	return nil
}

func (*googleBucket) durableNames() (bool, error) { return true, nil }

func (g *googleBucket) lockedUntil(ctx context.Context, id blob.ID) (time.Time, error) {
	attributes, err := g.client.Bucket(g.at.Bucket).Object(g.at.Prefix + string(id)).Attrs(ctx)
	switch {
	case errors.Is(err, gcsclient.ErrObjectNotExist):
		return time.Time{}, blob.ErrBlobNotFound
	case err != nil || attributes.Retention == nil:
		return time.Time{}, err
	}
	return attributes.Retention.RetainUntil, nil
}

// classifyGoogle keeps the status of an answer and drops its body.
func classifyGoogle(response *googleapi.Error) (detail string, kind error) {
	detail = http.StatusText(response.Code)
	switch response.Code {
	case http.StatusNotFound:
		return detail, ErrNotUsable
	case http.StatusUnauthorized, http.StatusForbidden:
		return detail, ErrAccessDenied
	}
	return detail, ErrUnreachable
}
