package identity

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/go-logr/logr"
	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"

	"github.com/hyperkeep/hyperkeep/agent/statefile"
	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
)

// retryInterval is how soon a renewal that failed is tried again. Three quarters of a token's life are left for it.
const retryInterval = time.Minute

// Renewer replaces the token in a file before it expires, with the right that the token itself gives. Clients whose configuration names the file
// (rest.Config.BearerTokenFile) read it anew within a minute.
type Renewer struct {
	// Config reaches the API server with the token in File.
	Config *rest.Config
	// Host is the name of the HyperVHost object.
	Host string
	// File holds the token, and nothing else.
	File string
	// Clock tells when a token is due.
	Clock clock.Clock
	// Lost is told, by an error for people, whenever a renewal failed.
	Lost func(error)
}

// Run renews until ctx ends. A token that did not come from enrolling cannot be renewed: Run then says so once, through Lost, and returns.
func (r Renewer) Run(ctx context.Context) error {
	log := logr.FromContextOrDiscard(ctx)
	clients, err := kubernetes.NewForConfig(r.Config)
	if err != nil {
		return fmt.Errorf("reach the API server: %w", err)
	}
	token, err := r.read()
	if err != nil {
		r.Lost(err)
		return nil
	}
	wait := token.renewal().Sub(r.Clock.Now())
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.Clock.After(wait):
		}
		renewed, err := r.renew(ctx, clients)
		if err != nil {
			if ctx.Err() == nil {
				r.Lost(err)
			}
			wait = retryInterval
			continue
		}
		log.Info("Token renewed", "expires", renewed.Expires)
		wait = max(renewed.renewal().Sub(r.Clock.Now()), retryInterval)
	}
}

func (r Renewer) read() (Token, error) {
	content, err := os.ReadFile(r.File)
	if err != nil {
		return Token{}, fmt.Errorf("read the agent's token: %w", err)
	}
	token, said, err := parse(strings.TrimSpace(string(content)))
	if err != nil {
		return Token{}, fmt.Errorf("read the agent's token in %s: %w", r.File, err)
	}
	if said.Kubernetes.Secret.Name != v1alpha1.EnrolledName {
		return Token{}, fmt.Errorf("the agent's token did not come from enrolling, so it cannot be renewed and ends at %s: enroll this host",
			token.Expires.Format(time.RFC3339))
	}
	return token, nil
}

func (r Renewer) renew(ctx context.Context, clients kubernetes.Interface) (Token, error) {
	bound := &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Secret", Name: v1alpha1.EnrolledName}
	token, err := request(ctx, clients.CoreV1(), v1alpha1.AgentNamespace(r.Host), bound, Lifetime)
	if apierrors.IsUnauthorized(err) {
		return Token{}, fmt.Errorf("the token of this host has expired or was revoked: enroll it anew: %w", err)
	}
	if err != nil {
		return Token{}, err
	}
	if err := statefile.Write(r.File, token.Bytes()); err != nil {
		return Token{}, fmt.Errorf("write the agent's token: %w", err)
	}
	return token, nil
}
