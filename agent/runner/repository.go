package runner

import (
	"context"
	"encoding/json"
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
	// Kept has repositories open from task to task. Without it each task opens its own.
	Kept *Kept
}

// Open opens the repository that a task expects. The caller closes it.
func (r *Repositories) Open(ctx context.Context, ref *v1alpha1.TaskRepository) (*image.Repository, error) {
	secret, err := r.credential(ctx, ref)
	if err != nil {
		return nil, err
	}
	repository, err := r.open(ctx, ref, secret, image.Open)
	if err != nil {
		return nil, err
	}
	if err := expected(repository, ref); err != nil {
		return nil, errors.Join(err, repository.Close(ctx))
	}
	return repository, nil
}

// expected is an error when a repository is not the one that a task expects.
func expected(repository *image.Repository, ref *v1alpha1.TaskRepository) error {
	found := repository.UniqueID()
	if ref.RepositoryID == "" || found == ref.RepositoryID {
		return nil
	}
	return stall("RepositoryReplaced", fmt.Errorf(
		"the location of repository %s holds another repository (%s) than it did (%s): bring the right one back", ref.Name, found, ref.RepositoryID))
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

func (r *Repositories) credential(ctx context.Context, ref *v1alpha1.TaskRepository) (*corev1.Secret, error) {
	secret := &corev1.Secret{}
	if err := r.Client.Get(ctx, client.ObjectKey{Namespace: r.Namespace, Name: ref.SecretName}, secret); err != nil {
		if apierrors.IsNotFound(err) {
			return nil, retry(v1alpha1.ReasonSecretNotFound, fmt.Errorf("the credential of repository %s is not in namespace %s yet", ref.Name, r.Namespace))
		}
		return nil, fmt.Errorf("read the credential of repository %s: %w", ref.Name, err)
	}
	return secret, nil
}

func (r *Repositories) open(ctx context.Context, ref *v1alpha1.TaskRepository, secret *corev1.Secret, open opener) (*image.Repository, error) {
	password := string(secret.Data[v1alpha1.SecretKeyPassword])
	if password == "" {
		return nil, stall(v1alpha1.ReasonSecretIncomplete, fmt.Errorf("the Secret of repository %s has no key %q", ref.Name, v1alpha1.SecretKeyPassword))
	}
	if err := r.limit(ref); err != nil {
		return nil, err
	}
	options := r.Options
	options.AppendOnly = !r.Keeper
	options.Passwords = func(ctx context.Context) ([]string, error) {
		now, err := r.credential(ctx, ref)
		if err != nil {
			return nil, err
		}
		return []string{string(now.Data[v1alpha1.SecretKeyPassword]), string(now.Data[v1alpha1.SecretKeyPreviousPassword])}, nil
	}
	repository, err := open(ctx, r.location(ref.Location, secret), password, options)
	if err != nil {
		return nil, fmt.Errorf("open repository %s: %w", ref.Name, err)
	}
	return repository, nil
}

// changePassword makes a repository open with the password of its credential alone.
func (r *Repositories) changePassword(ctx context.Context, ref *v1alpha1.TaskRepository) error {
	secret, err := r.credential(ctx, ref)
	if err != nil {
		return err
	}
	value := func(key string) string { return string(secret.Data[key]) }
	for _, key := range []string{v1alpha1.SecretKeyPassword, v1alpha1.SecretKeyPreviousPassword} {
		if value(key) == "" {
			return stall(v1alpha1.ReasonSecretIncomplete, fmt.Errorf("the Secret of repository %s has no key %q", ref.Name, key))
		}
	}
	known := func(*image.Repository) error { return nil }
	if err := r.with(ctx, ref, known); err != nil && !errors.Is(err, image.ErrChanging) {
		return err
	}
	return image.ChangePassword(ctx, r.location(ref.Location, secret), value(v1alpha1.SecretKeyPreviousPassword), value(v1alpha1.SecretKeyPassword), r.Options)
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

// with gives a call the repository that a task expects.
func (r *Repositories) with(ctx context.Context, ref *v1alpha1.TaskRepository, use func(*image.Repository) error) error {
	return r.use(ctx, ref, image.Open, func(repository *image.Repository) error {
		if err := expected(repository, ref); err != nil {
			return err
		}
		return use(repository)
	})
}

// withAny gives a call whatever repository is at the location of a task, and makes one when none was ever seen there.
func (r *Repositories) withAny(ctx context.Context, ref *v1alpha1.TaskRepository, use func(*image.Repository) error) error {
	open := image.Open
	if ref.RepositoryID == "" {
		open = image.OpenOrCreate
	}
	return r.use(ctx, ref, open, use)
}

func (r *Repositories) use(ctx context.Context, ref *v1alpha1.TaskRepository, open opener, use func(*image.Repository) error) (err error) {
	secret, err := r.credential(ctx, ref)
	if err != nil {
		return err
	}
	opened := func() (*image.Repository, error) { return r.open(ctx, ref, secret, open) }
	if r.Kept != nil {
		return r.Kept.Use(ctx, ref.Name, accessOf(ref, secret), opened, use)
	}
	repository, err := opened()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, repository.Close(context.WithoutCancel(ctx))) }()
	return use(repository)
}

// accessOf changes with the credential and with the location.
func accessOf(ref *v1alpha1.TaskRepository, secret *corev1.Secret) string {
	where, _ := json.Marshal(ref.Location) //nolint:errchkjson // it came as JSON
	return string(secret.UID) + "/" + secret.ResourceVersion + "/" + string(where)
}
