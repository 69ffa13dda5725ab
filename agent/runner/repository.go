package runner

import (
	"context"
	"errors"
	"fmt"

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
	// Keeper opens filesystem repositories at their keeper's path, and creates those that do not exist yet.
	Keeper  bool
	Options image.Options
}

// Open opens a repository for one task. The caller closes it.
func (r *Repositories) Open(ctx context.Context, ref *v1alpha1.TaskRepository) (*image.Repository, error) {
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
	open := image.Open
	if r.Keeper {
		open = image.OpenOrCreate
	}
	repository, err := open(ctx, r.location(ref.Location, secret), password, r.Options)
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
	return image.Location{S3: &image.S3Location{
		Endpoint: at.S3.Endpoint, Bucket: at.S3.Bucket, Prefix: at.S3.Prefix, Region: at.S3.Region,
		Insecure:        at.S3.Transport == "PlainText",
		AccessKeyID:     string(secret.Data[v1alpha1.SecretKeyAccessKeyID]),
		SecretAccessKey: string(secret.Data[v1alpha1.SecretKeySecretAccessKey]),
	}}
}

// with opens a repository for the length of one call.
func (r *Repositories) with(ctx context.Context, ref *v1alpha1.TaskRepository, use func(*image.Repository) error) (err error) {
	repository, err := r.Open(ctx, ref)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, repository.Close(context.WithoutCancel(ctx))) }()
	return use(repository)
}
