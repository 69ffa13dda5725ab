package identity

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/util/cert"
)

// ErrUntrusted means that no certificate has the hash that was given.
var ErrUntrusted = errors.New("the API server shows no certificate with this hash")

// hashPrefix names the only kind of hash, as kubeadm writes it: the SHA-256 of a certificate's public key (SubjectPublicKeyInfo, RFC 7469).
const hashPrefix = "sha256:"

// Trust finds the certificate whose public key has the given hash, and returns it in PEM: among those that the API server shows, and else in the cluster's
// own description that kubeadm publishes (ConfigMap kube-public/cluster-info). Nothing secret is sent to a server that is not trusted yet.
func Trust(ctx context.Context, server, hash string) ([]byte, error) {
	want, err := hex.DecodeString(strings.TrimPrefix(hash, hashPrefix))
	if err != nil || len(want) != sha256.Size || !strings.HasPrefix(hash, hashPrefix) {
		return nil, fmt.Errorf("%q is not the hash of a certificate: it is %s and 64 digits", hash, hashPrefix)
	}
	shown, err := presented(ctx, server)
	if err != nil {
		return nil, err
	}
	published, missing := clusterInfo(ctx, server)
	for _, certificate := range append(shown, published...) {
		if sha256.Sum256(certificate.RawSubjectPublicKeyInfo) == [sha256.Size]byte(want) {
			return pem.EncodeToMemory(&pem.Block{Type: cert.CertificateBlockType, Bytes: certificate.Raw}), nil
		}
	}
	return nil, errors.Join(fmt.Errorf("%w: give the certificate itself instead", ErrUntrusted), missing)
}

// presented returns the certificates that a server shows, without believing them.
func presented(ctx context.Context, server string) ([]*x509.Certificate, error) {
	address, err := url.Parse(server)
	if err != nil || address.Scheme != "https" || address.Host == "" {
		return nil, fmt.Errorf("%q is not the address of an API server: it begins with https://", server)
	}
	host, port := address.Hostname(), address.Port()
	if port == "" {
		port = "443"
	}
	dialer := tls.Dialer{Config: &tls.Config{ServerName: host, InsecureSkipVerify: true, MinVersion: tls.VersionTLS12}}
	conn, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(host, port))
	if err != nil {
		return nil, fmt.Errorf("reach the API server: %w", err)
	}
	return conn.(*tls.Conn).ConnectionState().PeerCertificates, conn.Close()
}

// clusterInfo returns the authorities in the description that kubeadm publishes. Whether one is believed is up to the hash.
func clusterInfo(ctx context.Context, server string) ([]*x509.Certificate, error) {
	clients, err := kubernetes.NewForConfig(&rest.Config{Host: server, TLSClientConfig: rest.TLSClientConfig{Insecure: true}})
	if err != nil {
		return nil, err
	}
	info, err := clients.CoreV1().ConfigMaps("kube-public").Get(ctx, "cluster-info", metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("look for the cluster's description: %w", err)
	}
	config, err := clientcmd.Load([]byte(info.Data["kubeconfig"]))
	if err != nil {
		return nil, fmt.Errorf("read the cluster's description: %w", err)
	}
	var found []*x509.Certificate
	for _, cluster := range config.Clusters {
		if authorities, err := cert.ParseCertsPEM(cluster.CertificateAuthorityData); err == nil {
			found = append(found, authorities...)
		}
	}
	return found, nil
}
