package identity

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/oauth2"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/transport"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
)

const (
	// podLife is how long a token is valid that a pod asks for. It is bound to nothing that could be deleted but the agent's account, so it is short; an
	// admission policy allows no more.
	podLife = time.Hour
	// podReserve is how long before its end a token is replaced, so that an API server that is away for a while does no harm.
	podReserve = 20 * time.Minute
	// requestTimeout bounds one request for a token: who waits for it holds a call to the API server up.
	requestTimeout = 30 * time.Second
)

// accountFolder is where Kubernetes mounts the token of a pod's ServiceAccount.
const accountFolder = "var/run/secrets/kubernetes.io/serviceaccount"

// ForPod returns how the agent's pod on a node reaches the API server as the agent of the host that has the node's name. The pod's own token must be bound to the
// pod, as those that Kubernetes mounts are, for it has to name the node. environment is os.LookupEnv.
func ForPod(environment func(string) (string, bool), host string) (*rest.Config, error) {
	pod, err := podConfig(environment)
	if err != nil {
		return nil, err
	}
	clients, err := kubernetes.NewForConfig(pod)
	if err != nil {
		return nil, fmt.Errorf("reach the API server as a pod: %w", err)
	}
	agent := rest.AnonymousClientConfig(pod)
	agent.Wrap(transport.ResettableTokenSourceWrapTransport(transport.NewCachedTokenSource(podSource{clients, v1alpha1.AgentNamespace(host)})))
	return agent, nil
}

// podConfig is rest.InClusterConfig for HostProcess containers: these see the host's folders, and the container's own below $CONTAINER_SANDBOX_MOUNT_POINT.
func podConfig(environment func(string) (string, bool)) (*rest.Config, error) {
	address, _ := environment("KUBERNETES_SERVICE_HOST")
	port, _ := environment("KUBERNETES_SERVICE_PORT")
	if address == "" || port == "" {
		return nil, errors.New("this is no pod: KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set")
	}
	root, found := environment("CONTAINER_SANDBOX_MOUNT_POINT")
	if !found {
		root = string(os.PathSeparator)
	}
	folder := filepath.Join(root, filepath.FromSlash(accountFolder))
	return &rest.Config{
		Host:            "https://" + net.JoinHostPort(address, port),
		BearerTokenFile: filepath.Join(folder, "token"),
		TLSClientConfig: rest.TLSClientConfig{CAFile: filepath.Join(folder, "ca.crt")},
	}, nil
}

// podSource gets tokens of the agent with the pod's.
type podSource struct {
	clients   kubernetes.Interface
	namespace string
}

// Token is called when there is no token or the last one is about to expire.
func (s podSource) Token() (*oauth2.Token, error) {
	ctx, cancel := context.WithTimeout(context.Background(), requestTimeout)
	defer cancel()
	token, err := request(ctx, s.clients.CoreV1(), s.namespace, nil, podLife)
	if err != nil {
		return nil, err
	}
	return &oauth2.Token{AccessToken: token.value, TokenType: "Bearer", Expiry: token.Expires.Add(-podReserve)}, nil
}
