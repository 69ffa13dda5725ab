package identity

import (
	"context"
	"errors"
	"fmt"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/retry"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
)

var (
	// ErrEnrolled means that a host of this name is enrolled: by this computer earlier, or by somebody else.
	ErrEnrolled = errors.New("a host of this name is enrolled")
	// ErrRefused means that the API server does not accept the one-time token, or not for this host.
	ErrRefused = errors.New("the one-time token is not accepted")
)

// Enrolment turns a one-time token into an agent's own.
type Enrolment struct {
	// Config reaches the API server with the one-time token.
	Config *rest.Config
	// Host is the name of the HyperVHost object.
	Host string
	// Computer is the name by which people know this machine; it is recorded.
	Computer string
}

// Run enrolls, and hands the token to store before the one-time token is given up. The account of the one-time token is removed at the end; left is the
// error of that, for the host is enrolled whether that works or not. ErrRefused and ErrEnrolled say what a person has to do.
func (e Enrolment) Run(ctx context.Context, store func(Token) error) (left, err error) {
	clients, err := kubernetes.NewForConfig(e.Config)
	if err != nil {
		return nil, fmt.Errorf("reach the API server: %w", err)
	}
	record, err := e.claim(ctx, clients)
	if err != nil {
		return nil, err
	}
	bound := &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Secret", Name: record.Name, UID: record.UID}
	var token Token
	err = retry.OnError(retry.DefaultBackoff, passing, func() error {
		token, err = request(ctx, clients.CoreV1(), record.Namespace, bound, Lifetime)
		return err
	})
	if err == nil {
		err = store(token)
	}
	if err != nil {
		return nil, fmt.Errorf("%w; the one-time token is used up: %s", err, e.anew())
	}
	err = clients.CoreV1().ServiceAccounts(record.Namespace).Delete(ctx, v1alpha1.EnrollerName, metav1.DeleteOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("remove ServiceAccount %s/%s: %w", record.Namespace, v1alpha1.EnrollerName, err), nil
	}
	return nil, nil
}

// claim makes the Secret that stands for the enrolment. The API server makes it for one only.
func (e Enrolment) claim(ctx context.Context, clients kubernetes.Interface) (*corev1.Secret, error) {
	namespace := v1alpha1.AgentNamespace(e.Host)
	made, err := clients.CoreV1().Secrets(namespace).Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: v1alpha1.EnrolledName},
		Type:       v1alpha1.SecretTypeEnrolled,
		StringData: map[string]string{"computer": e.Computer},
	}, metav1.CreateOptions{})
	switch {
	case err == nil:
		return made, nil
	case apierrors.IsAlreadyExists(err):
		return nil, fmt.Errorf("%w: if that was not you, the one-time token fell into wrong hands; in any case, %s", ErrEnrolled, e.anew())
	case apierrors.IsUnauthorized(err):
		return nil, fmt.Errorf("%w: it is unknown, has expired, or was used: make a new one", ErrRefused)
	case apierrors.IsForbidden(err), apierrors.IsNotFound(err):
		return nil, fmt.Errorf("%w: it is not one for host %s, or there is no HyperVHost of that name: %w", ErrRefused, e.Host, err)
	default:
		return nil, fmt.Errorf("claim the enrolment of host %s: %w", e.Host, err)
	}
}

// anew is what an administrator does so that a host can enroll once more.
func (e Enrolment) anew() string {
	return fmt.Sprintf("run kubectl delete secret %s --namespace %s, which revokes what was given, and enroll with a new one-time token",
		v1alpha1.EnrolledName, v1alpha1.AgentNamespace(e.Host))
}

// passing says that a request may work when it is repeated.
func passing(err error) bool {
	return apierrors.IsInternalError(err) || apierrors.IsServerTimeout(err) || apierrors.IsTimeout(err) || apierrors.IsTooManyRequests(err) ||
		apierrors.IsServiceUnavailable(err)
}
