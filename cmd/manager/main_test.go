package main

import (
	"bytes"
	"context"
	"path/filepath"
	"sync"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
	"github.com/hyperkeep/hyperkeep/controllers/test/testcluster"
	"github.com/hyperkeep/hyperkeep/test/controlplane"
)

// The manager has the rights that it needs, and no call of its is refused: it elects itself, admits a host, and leaves its lease when it ends.
func TestRunWithItsOwnRights(t *testing.T) {
	g := NewWithT(t)
	g.SetDefaultEventuallyTimeout(30 * time.Second)
	cluster := testcluster.New(t)
	log := &log{}
	klog.SetLogger(zap.New(zap.WriteTo(log)))
	account, err := cluster.ServiceAccount(t.Context(), testcluster.ManagerNamespace, testcluster.ManagerAccount)
	g.Expect(err).NotTo(HaveOccurred())
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	g.Expect(controlplane.WriteKubeconfig(kubeconfig, account)).To(Succeed())
	t.Setenv("KUBECONFIG", kubeconfig)

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ended := make(chan error, 1)
	go func() {
		ended <- run(ctx, flags{
			namespace: testcluster.ManagerNamespace, serviceAccount: testcluster.ManagerAccount, keeperNamespace: testcluster.KeeperNamespace,
			metrics: "127.0.0.1:0", secureMetrics: true, probes: "127.0.0.1:0", leaderElect: true,
		})
	}()
	lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: testcluster.ManagerNamespace, Name: "hyperkeep-manager"}}
	holder := func() string {
		_ = cluster.Admin.Get(t.Context(), client.ObjectKeyFromObject(lease), lease)
		return ptr.Deref(lease.Spec.HolderIdentity, "")
	}
	g.Eventually(holder).ShouldNot(BeEmpty())
	cluster.Namespace(t, "sales")
	host := &v1alpha1.HyperVHost{ObjectMeta: metav1.ObjectMeta{Name: "hv01"}, Spec: v1alpha1.HyperVHostSpec{VirtualMachineNamespace: "sales"}}
	cluster.Create(t, host)
	g.Eventually(func() string {
		_ = cluster.Admin.Get(t.Context(), client.ObjectKeyFromObject(host), host)
		return host.Status.AgentNamespace
	}).ShouldNot(BeEmpty())

	stop()
	g.Eventually(ended).Should(Receive(BeNil()))
	g.Expect(holder()).To(BeEmpty(), "the next manager need not wait")
	g.Expect(cluster.Kubectl().Run(t.Context(), "get", "events", "--namespace", testcluster.ManagerNamespace)).To(ContainSubstring("became leader"))
	g.Expect(log.String()).NotTo(Or(ContainSubstring("forbidden"), ContainSubstring("rejected")))
}

// log collects what several goroutines write.
type log struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}
