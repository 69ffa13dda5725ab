package runner

import (
	"context"
	"errors"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hyperkeep/hyperkeep/agent/image"
	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
)

// Repositories opens the repositories that tasks name, with the credential that the manager put into the agent's own namespace.
type Repositories struct {
	// Client reads the credential, uncached.
	Client client.Client
	// Namespace is the agent's own.
	Namespace string
	// Keeper opens filesystem repositories at their keeper's path.
	Keeper  bool
	Options image.Options
}

// Open opens the repository that a task expects. The caller closes it.
func (r *Repositories) Open(ctx context.Context, ref *v1alpha1.TaskRepository) (*image.Repository, error) {
	repository, err := r.open(ctx, ref, image.Open)
	if err != nil {
		return nil, err
	}
	if found := repository.UniqueID(); ref.RepositoryID != "" && found != ref.RepositoryID {
		err := fmt.Errorf("the location of repository %s holds another repository (%s) than it did (%s): bring the right one back", ref.Name, found, ref.RepositoryID)
		return nil, errors.Join(stall("RepositoryReplaced", err), repository.Close(ctx))
	}
	return repository, nil
}

// OpenOrCreate opens whatever repository is at the location of a task, and makes one when none was ever seen there.
func (r *Repositories) OpenOrCreate(ctx context.Context, ref *v1alpha1.TaskRepository) (*image.Repository, error) {
	if ref.RepositoryID != "" {
		return r.open(ctx, ref, image.Open)
	}
	return r.open(ctx, ref, image.OpenOrCreate)
}

// limit takes over what a task says about the host's bandwidth. It counts for whatever the agent sends: the newest task knows best.
func (r *Repositories) limit(ref *v1alpha1.TaskRepository) error {
	if r.Options.Bandwidth == nil {
		return nil
	}
	allowed, err := allowance(ref.Bandwidth)
	if err != nil {
		return err
	}
	r.Options.Bandwidth.Limit(allowed)
	return nil
}

type opener func(context.Context, image.Location, string, image.Options) (*image.Repository, error)

func (r *Repositories) open(ctx context.Context, ref *v1alpha1.TaskRepository, open opener) (*image.Repository, error) {
	secret := &corev1.Secret{}
	if err := r.Client.Get(ctx, client.ObjectKey{Namespace: r.Namespace, Name: ref.SecretName}, secret); err != nil {
		if apierrors.IsNotFound(err) {
			return nil, retry(v1alpha1.ReasonSecretNotFound, fmt.Errorf("the credential of repository %s is not in namespace %s yet", ref.Name, r.Namespace))
		}
		return nil, fmt.Errorf("read the credential of repository %s: %w", ref.Name, err)
	}
	password := string(secret.Data[v1alpha1.SecretKeyPassword])
	if password == "" {
		return nil, stall(v1alpha1.ReasonSecretIncomplete, fmt.Errorf("the Secret of repository %s has no key %q", ref.Name, v1alpha1.SecretKeyPassword))
	}
	if err := r.limit(ref); err != nil {
		return nil, err
	}
	options := r.Options
	options.AppendOnly = !r.Keeper
	repository, err := open(ctx, r.location(ref.Location, secret), password, options)
	if err != nil {
		return nil, fmt.Errorf("open repository %s: %w", ref.Name, err)
	}
	return repository, nil
}

func (r *Repositories) location(at v1alpha1.RepositoryLocation, secret *corev1.Secret) image.Location {
	if fs := at.Filesystem; fs != nil {
		path := fs.Path
		if r.Keeper && fs.KeeperPath != "" {
			path = fs.KeeperPath
		}
		return image.Location{Filesystem: &image.FilesystemLocation{Path: path}}
	}
	value := func(key string) string { return string(secret.Data[key]) }
	switch {
	case at.Azure != nil:
		return image.Location{Azure: &image.AzureLocation{
			Account: at.Azure.Account, Container: at.Azure.Container, Prefix: at.Azure.Prefix, Domain: at.Azure.Domain,
			Insecure: at.Azure.Transport == plainText, SASToken: strings.TrimPrefix(value(v1alpha1.SecretKeySASToken), "?"),
		}}
	case at.GCS != nil:
		return image.Location{GCS: &image.GCSLocation{
			Bucket: at.GCS.Bucket, Prefix: at.GCS.Prefix, ServiceAccountKey: secret.Data[v1alpha1.SecretKeyServiceAccountKey],
		}}
	}
	return image.Location{S3: &image.S3Location{
		Endpoint: at.S3.Endpoint, Bucket: at.S3.Bucket, Prefix: at.S3.Prefix, Region: at.S3.Region, Insecure: at.S3.Transport == plainText,
		AccessKeyID: value(v1alpha1.SecretKeyAccessKeyID), SecretAccessKey: value(v1alpha1.SecretKeySecretAccessKey),
	}}
}

// plainText is the transport without TLS.
const plainText = "PlainText"

// with opens a repository for the length of one call.
func (r *Repositories) with(ctx context.Context, ref *v1alpha1.TaskRepository, use func(*image.Repository) error) (err error) {
	repository, err := r.Open(ctx, ref)
	if err != nil {
		return err
	}
	return closing(ctx, repository, use)
}

// closing gives a repository back after one call.
func closing(ctx context.Context, repository *image.Repository, use func(*image.Repository) error) (err error) {
	defer func() { err = errors.Join(err, repository.Close(context.WithoutCancel(ctx))) }()
	return use(repository)
}
