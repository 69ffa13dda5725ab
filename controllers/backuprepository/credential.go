package backuprepository

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
	"github.com/hyperkeep/hyperkeep/controllers/delegation"
)

const (
	// annotationDistributed on the keeper's copy says that all agents had the credential. It is written last, so that most reconciles need not read the
	// copies of all hosts.
	annotationDistributed = "hyperkeep.io/distributed"
	// redistribute is how often copies that somebody changed or removed are put right.
	redistribute = 10 * time.Minute
)

// credential is what agents and the keeper need of an administrator's Secret. It formats without its values.
type credential struct {
	// version changes whenever the Secret does. It says nothing about the values. Empty when there is no Secret.
	version string
	// missing are the keys that the Secret lacks.
	missing []string
	// agents and keeper are what each gets, under the same keys.
	agents, keeper map[string][]byte
	// separate says that agents get other keys than the keeper, none of which need give the right to delete. A folder has none.
	separate bool
}

// String keeps the values out of whatever prints the credential.
func (c credential) String() string { return "credential " + c.version }

// credentialFrom takes no more than is needed: the Secret may hold other things. What the keeper has under a prefix of its own must be there whole
// or not at all.
func credentialFrom(secret *corev1.Secret, location v1alpha1.RepositoryLocation) credential {
	if secret == nil {
		return credential{}
	}
	password := secret.Data[v1alpha1.SecretKeyPassword]
	c := credential{
		version: string(secret.UID) + "/" + secret.ResourceVersion,
		agents:  map[string][]byte{v1alpha1.SecretKeyPassword: password}, keeper: map[string][]byte{v1alpha1.SecretKeyPassword: password},
	}
	if previous := secret.Data[v1alpha1.SecretKeyPreviousPassword]; len(previous) > 0 {
		c.agents[v1alpha1.SecretKeyPreviousPassword], c.keeper[v1alpha1.SecretKeyPreviousPassword] = previous, previous
	}
	keys := keysOf(location)
	c.separate = len(keys) == 0 || slices.ContainsFunc(keys, func(key string) bool { return len(secret.Data[v1alpha1.SecretKeyKeeperPrefix+key]) > 0 })
	wanted := append([]string{v1alpha1.SecretKeyPassword}, keys...)
	for _, key := range keys {
		from := key
		if c.separate {
			from = v1alpha1.SecretKeyKeeperPrefix + key
			wanted = append(wanted, from)
		}
		c.agents[key], c.keeper[key] = secret.Data[key], secret.Data[from]
	}
	for _, key := range wanted {
		if len(secret.Data[key]) == 0 {
			c.missing = append(c.missing, key)
		}
	}
	return c
}

// keysOf are the keys that a kind of location asks for, besides the password.
func keysOf(location v1alpha1.RepositoryLocation) []string {
	switch {
	case location.S3 != nil:
		return []string{v1alpha1.SecretKeyAccessKeyID, v1alpha1.SecretKeySecretAccessKey}
	case location.Azure != nil:
		return []string{v1alpha1.SecretKeySASToken}
	case location.GCS != nil:
		return []string{v1alpha1.SecretKeyServiceAccountKey}
	}
	return nil
}

func (c credential) usable() bool { return c.version != "" && len(c.missing) == 0 }

// changing says that the password is to be changed. Agents get both passwords: they open the repository before and after.
func (c credential) changing() bool { return len(c.keeper[v1alpha1.SecretKeyPreviousPassword]) > 0 }

// mark identifies a distribution: of this credential, to these namespaces, about now.
func mark(repository *v1alpha1.BackupRepository, seen observed, now time.Time) string {
	return digest(string(repository.UID), seen.credential.version, strings.Join(seen.allowed, ","), strings.Join(seen.refused, ","),
		now.Truncate(redistribute).UTC().Format(time.RFC3339))
}

// digest is a short name for what its parts say together.
func digest(parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\n")))
	return hex.EncodeToString(sum[:])[:10]
}

// distribute gives the credential to the keeper and to all agents that may have it, takes it from the others, and marks that. One agent that cannot be
// reached keeps no other from its credential.
func (r *Reconciler) distribute(ctx context.Context, repository *v1alpha1.BackupRepository, seen observed, mark string) error {
	errs := []error{r.give(ctx, repository, seen.credential.keeper, r.KeeperNamespace, seen.distributed)}
	for _, namespace := range seen.allowed {
		errs = append(errs, r.give(ctx, repository, seen.credential.agents, namespace, ""))
	}
	for _, namespace := range seen.refused {
		errs = append(errs, r.withdraw(ctx, repository.Name, namespace))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return r.give(ctx, repository, seen.credential.keeper, r.KeeperNamespace, mark)
}

// give writes a copy of the credential unless it is there already.
func (r *Reconciler) give(ctx context.Context, repository *v1alpha1.BackupRepository, values map[string][]byte, namespace, mark string) error {
	wanted := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace,
			Name:      delegation.CredentialName(repository.Name),
			Labels:    map[string]string{v1alpha1.LabelManagedBy: v1alpha1.ManagedBy, v1alpha1.LabelRepository: repository.Name},
		},
		Data: values,
	}
	if mark != "" {
		wanted.Annotations = map[string]string{annotationDistributed: mark}
	}
	present, err := r.secret(ctx, namespace, wanted.Name)
	switch {
	case err != nil:
		return err
	case present == nil:
		err = r.Create(ctx, wanted)
	case !equality.Semantic.DeepEqual(present.Data, wanted.Data) || present.Annotations[annotationDistributed] != mark:
		wanted.ResourceVersion = present.ResourceVersion
		err = r.Update(ctx, wanted)
	}
	if err != nil {
		return fmt.Errorf("write Secret %s/%s: %w", namespace, wanted.Name, withoutBody(err))
	}
	return nil
}

// withdraw removes a copy of the credential.
func (r *Reconciler) withdraw(ctx context.Context, repository, namespace string) error {
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: delegation.CredentialName(repository)}}
	if err := r.Delete(ctx, secret); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("remove Secret %s/%s: %w", namespace, secret.Name, err)
	}
	return nil
}

// withoutBody keeps the reason of an API error and drops its text: an admission webhook may quote what it refused.
func withoutBody(err error) error {
	if reason := apierrors.ReasonForError(err); reason != metav1.StatusReasonUnknown {
		return errors.New(string(reason))
	}
	return err
}
