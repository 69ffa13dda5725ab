// Package identity is how the agent of a Hyper-V host comes to a token of its own ServiceAccount, and keeps it.
//
// A host that is no node enrolls: a one-time token, of the ServiceAccount "enroller" in the agent's namespace, makes the Secret "enrolled" and asks for a
// token of the agent that is bound to it. The API server makes that Secret once, and tells its uid, without which it gives no such token, only the one who
// made it. The agent then renews its token with the token itself. A host that is a node of the cluster needs none of this: the token of the agent's pod
// names the node, and is good for tokens of the agent whose host has the node's name.
//
// No token is part of an error, of what is logged or of what is formatted.
package identity

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/utils/ptr"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
)

// Lifetime is how long a token of an enrolled host is to be valid: long enough for a host that is off over a holiday. The API server may give less. The token
// is renewed when a quarter of its life has passed, and revoked at once with the Secret that it is bound to.
const Lifetime = 7 * 24 * time.Hour

// Token is a bearer token of the agent. It formats without its value.
type Token struct {
	value string
	// Issued and Expires limit its life, by the API server's clock.
	Issued, Expires time.Time
}

// String tells the life of the token, not its value.
func (t Token) String() string { return "token until " + t.Expires.Format(time.RFC3339) }

// GoString is String.
func (t Token) GoString() string { return t.String() }

// Bytes is the content of a token file.
func (t Token) Bytes() []byte { return []byte(t.value) }

// renewal is when a token is to be replaced: its holder may then be off for most of the token's life.
func (t Token) renewal() time.Time { return t.Issued.Add(t.Expires.Sub(t.Issued) / 4) }

// ErrNoToken means that a file or an answer has no token that could be used.
var ErrNoToken = errors.New("not a token of a ServiceAccount")

// claims are what a token says of itself. Its signature is for the API server to check.
type claims struct {
	Issued     int64 `json:"iat"`
	Expires    int64 `json:"exp"`
	Kubernetes struct {
		Secret struct {
			Name string `json:"name"`
		} `json:"secret"`
	} `json:"kubernetes.io"`
}

func parse(value string) (Token, claims, error) {
	var said claims
	parts := strings.Split(value, ".")
	if len(parts) != 3 {
		return Token{}, said, ErrNoToken
	}
	// What the decoders complain of would quote the token.
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil || json.Unmarshal(payload, &said) != nil || said.Expires == 0 {
		return Token{}, said, ErrNoToken
	}
	return Token{value: value, Issued: time.Unix(said.Issued, 0), Expires: time.Unix(said.Expires, 0)}, said, nil
}

// request asks the API server for a token of the agent.
func request(
	ctx context.Context, accounts corev1client.ServiceAccountsGetter, namespace string, bound *authenticationv1.BoundObjectReference, life time.Duration,
) (Token, error) {
	answer, err := accounts.ServiceAccounts(namespace).CreateToken(ctx, v1alpha1.AgentName, &authenticationv1.TokenRequest{
		Spec: authenticationv1.TokenRequestSpec{BoundObjectRef: bound, ExpirationSeconds: ptr.To(int64(life / time.Second))},
	}, metav1.CreateOptions{})
	if err != nil {
		return Token{}, fmt.Errorf("ask for a token of the agent: %w", err)
	}
	token, _, err := parse(answer.Status.Token)
	if err != nil {
		return Token{}, fmt.Errorf("ask for a token of the agent: %w", err)
	}
	return token, nil
}
