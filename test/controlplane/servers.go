package controlplane

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// controllers are the ones that act on any kind of object. The others manage workloads, for which
// there are no nodes.
var controllers = []string{
	"clusterrole-aggregation-controller",
	"garbage-collector-controller",
	"namespace-controller",
	"serviceaccount-controller",
}

// startEtcd does not wait: the API server retries until etcd answers.
func (c *ControlPlane) startEtcd() (err error) {
	address, err := freeAddress()
	if err != nil {
		return err
	}
	c.etcdURL = "http://" + address
	c.etcd, err = run(c.file("etcd.log"), c.binaries.etcd,
		"--data-dir="+c.file("etcd"),
		"--listen-client-urls="+c.etcdURL,
		"--advertise-client-urls="+c.etcdURL,
		"--listen-peer-urls=http://127.0.0.1:0", // of no use to a single member, but it must have one
		"--unsafe-no-fsync",
		"--log-level=warn",
	)
	return err
}

// StartAPIServer starts the API server after StopAPIServer and waits until it serves: at the same
// address, with the same objects and tokens.
func (c *ControlPlane) StartAPIServer(ctx context.Context) (err error) {
	host, port, err := net.SplitHostPort(strings.TrimPrefix(c.config.Host, "https://"))
	if err != nil {
		return err
	}
	c.apiServer, err = run(c.file("kube-apiserver.log"), c.binaries.apiServer,
		"--etcd-servers="+c.etcdURL,
		"--bind-address="+host,
		"--secure-port="+port,
		"--tls-cert-file="+c.file(servingCertificate),
		"--tls-private-key-file="+c.file(servingKey),
		"--token-auth-file="+c.file(adminToken),
		"--authorization-mode=RBAC",
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file="+c.file(serviceAccountKey),
		"--service-account-signing-key-file="+c.file(serviceAccountKey),
		"--service-cluster-ip-range=10.0.0.0/24",
		"--allow-privileged",
		// The Service "kubernetes" has no endpoint, because a loopback address is not allowed as one.
		"--advertise-address="+host,
		"--endpoint-reconciler-type=none",
	)
	if err != nil {
		return err
	}
	clients, err := kubernetes.NewForConfig(c.config)
	if err != nil {
		return err
	}
	return c.apiServer.await(ctx, func(ctx context.Context) bool {
		if _, err := clients.RESTClient().Get().AbsPath("/readyz").DoRaw(ctx); err != nil {
			return false
		}
		// The namespace comes shortly after the server calls itself ready.
		_, err := clients.CoreV1().Namespaces().Get(ctx, metav1.NamespaceDefault, metav1.GetOptions{})
		return err == nil
	})
}

// StopAPIServer takes the API server away, as an outage does; etcd keeps running. A second call
// does nothing.
func (c *ControlPlane) StopAPIServer() error { return stop(&c.apiServer) }

// startControllerManager starts kube-controller-manager and waits for its first visible work, the
// default ServiceAccount. It serves no port.
func (c *ControlPlane) startControllerManager(ctx context.Context) (err error) {
	c.controllerManager, err = run(c.file("kube-controller-manager.log"), c.binaries.controllerManager,
		"--kubeconfig="+c.Kubeconfig(),
		"--controllers="+strings.Join(controllers, ","),
		"--leader-elect=false",
		"--secure-port=0",
	)
	if err != nil {
		return err
	}
	clients, err := kubernetes.NewForConfig(c.config)
	if err != nil {
		return err
	}
	return c.controllerManager.await(ctx, func(ctx context.Context) bool {
		_, err := clients.CoreV1().ServiceAccounts(metav1.NamespaceDefault).Get(ctx, "default", metav1.GetOptions{})
		return err == nil
	})
}

// freeAddress returns a loopback address with a port that nobody listens on. The port lies below
// the range from which the system gives ports to outgoing connections (ip(7), ip_local_port_range),
// or one of those could take it before the server does.
func freeAddress() (string, error) {
	const first, last, tries = 20000, 32767, 100
	var err error
	for range tries {
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(first+rand.IntN(last-first)))
		var listener net.Listener
		if listener, err = net.Listen("tcp", address); err == nil {
			return address, listener.Close()
		}
	}
	return "", fmt.Errorf("find a free port: %w", err)
}
