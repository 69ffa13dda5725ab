package controlplane

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/client-go/util/cert"
	"k8s.io/client-go/util/keyutil"
)

// The files with secrets, in the control plane's folder.
const (
	servingCertificate = "apiserver.crt"
	servingKey         = "apiserver.key"
	serviceAccountKey  = "serviceaccount.key"
	adminToken         = "tokens.csv"
)

// makeCredentials writes what the API server needs to know itself and the administrator, and
// returns the administrator's configuration. The key that signs ServiceAccounts' tokens is kept
// from an earlier run, so that they stay valid.
func (c *ControlPlane) makeCredentials() (*rest.Config, error) {
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	certificate, key, err := cert.GenerateSelfSignedCertKey("127.0.0.1", nil, nil)
	if err != nil {
		return nil, fmt.Errorf("make a serving certificate: %w", err)
	}
	token := rand.Text()
	for name, content := range map[string][]byte{
		servingCertificate: certificate,
		servingKey:         key,
		adminToken:         []byte(token + ",admin,admin,system:masters\n"),
	} {
		if err := os.WriteFile(c.file(name), content, 0o600); err != nil {
			return nil, err
		}
	}
	if _, _, err := keyutil.LoadOrGenerateKeyFile(c.file(serviceAccountKey)); err != nil {
		return nil, fmt.Errorf("make a key for tokens: %w", err)
	}
	return &rest.Config{
		Host:            "https://" + address,
		BearerToken:     token,
		TLSClientConfig: rest.TLSClientConfig{CAData: certificate},
		QPS:             -1,
	}, nil
}

// User returns a client configuration of a person with this name and these groups, to whom RBAC
// gives nothing yet. It is the administrator impersonating that person.
func (c *ControlPlane) User(name string, groups ...string) *rest.Config {
	config := c.Config()
	config.Impersonate = rest.ImpersonationConfig{UserName: name, Groups: append(groups, "system:authenticated")}
	return config
}

// ServiceAccount returns a client configuration with a new token, valid for an hour, of a
// ServiceAccount that exists. Deleting the ServiceAccount revokes it.
func (c *ControlPlane) ServiceAccount(ctx context.Context, namespace, name string) (*rest.Config, error) {
	clients, err := kubernetes.NewForConfig(c.config)
	if err != nil {
		return nil, err
	}
	token, err := clients.CoreV1().ServiceAccounts(namespace).
		CreateToken(ctx, name, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		return nil, fmt.Errorf("create a token for ServiceAccount %s/%s: %w", namespace, name, err)
	}
	config := c.Config()
	config.BearerToken = token.Status.Token
	return config, nil
}

// WriteKubeconfig writes a kubeconfig file, readable by this user only, for a configuration that
// came from a ControlPlane.
func WriteKubeconfig(path string, config *rest.Config) error {
	const name = "hyperkeep"
	file := clientcmdapi.NewConfig()
	file.CurrentContext = name
	file.Contexts[name] = &clientcmdapi.Context{Cluster: name, AuthInfo: name}
	file.Clusters[name] = &clientcmdapi.Cluster{Server: config.Host, CertificateAuthorityData: config.CAData}
	file.AuthInfos[name] = &clientcmdapi.AuthInfo{
		Token:             config.BearerToken,
		Impersonate:       config.Impersonate.UserName,
		ImpersonateGroups: config.Impersonate.Groups,
	}
	if err := clientcmd.WriteToFile(*file, path); err != nil {
		return fmt.Errorf("write kubeconfig: %w", err)
	}
	return nil
}
