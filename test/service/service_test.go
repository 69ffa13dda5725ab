// Package service tests what makes the agent a Windows service: the real agent.exe enrolls, is installed, runs, is upgraded and removed, in Wine and
// against a real API server. Nothing here needs a Hyper-V host.
package service

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
	"github.com/hyperkeep/hyperkeep/controllers/hypervhost"
	"github.com/hyperkeep/hyperkeep/controllers/test/testcluster"
	"github.com/hyperkeep/hyperkeep/test/wine"
)

func TestMain(m *testing.M) {
	// Wine knows no access lists: it shows a program the mode of a file in their place, and what the agent writes must not be readable by others.
	syscall.Umask(0o077)
	os.Exit(m.Run())
}

const (
	folder    = `C:\ProgramData\Hyperkeep`
	namespace = "hyperkeep-host-hv01"
)

// machine is a Windows machine that is to become a host.
type machine struct {
	*testcluster.Cluster
	prefix *wine.Prefix
	exe    string
}

func TestService(t *testing.T) {
	wine.Require(t)
	m := &machine{Cluster: testcluster.New(t), prefix: wine.NewPrefix(t, "", "127.0.0.1:1"), exe: wine.Build(t, "cmd/agent")}
	m.Manage(t, func(mgr ctrl.Manager) error {
		return hypervhost.SetupWithManager(mgr, hypervhost.Options{
			Manager: types.NamespacedName{Namespace: testcluster.ManagerNamespace, Name: testcluster.ManagerAccount}, Clock: clock.RealClock{},
		})
	})
	m.Namespace(t, "sales")
	host := &v1alpha1.HyperVHost{ObjectMeta: metav1.ObjectMeta{Name: "hv01"}, Spec: v1alpha1.HyperVHostSpec{VirtualMachineNamespace: "sales"}}
	m.Create(t, host)
	NewWithT(t).Eventually(func() string {
		_ = m.Admin.Get(t.Context(), client.ObjectKeyFromObject(host), host)
		return host.Status.AgentNamespace
	}, "20s").ShouldNot(BeEmpty())
	for _, step := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"before it is enrolled", m.unenrolled}, {"enrolling", m.enroll}, {"in the foreground", m.foreground}, {"a token that others may read", m.exposed},
		{"the life of the service", m.life},
	} {
		if !t.Run(step.name, step.run) {
			return // each stands on the one before
		}
	}
}

func TestWindowsParts(t *testing.T) {
	wine.Require(t)
	p, tests := wine.NewPrefix(t, "", "127.0.0.1:1"), wine.BuildTest(t, "agent/service")
	out, err := p.Command(t.Context(), tests, "-test.v", "-test.run", "Access|Private|Service").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if passed := bytes.Count(out, []byte("--- PASS")); passed < 20 {
		t.Errorf("only %d tests ran:\n%s", passed, out)
	}
}

// agent runs a command to its end and returns all that it says.
func (m *machine) agent(t *testing.T, input string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := m.prefix.Command(ctx, m.exe, args...)
	cmd.Stdin = strings.NewReader(input)
	out, err := cmd.CombinedOutput()
	return strings.ReplaceAll(string(out), "\r\n", "\n"), err
}

func (m *machine) file(name string) string {
	return m.prefix.Local(filepath.ToSlash(folder) + "/" + name)
}

func (m *machine) unenrolled(t *testing.T) {
	for _, command := range []string{"install", "run"} {
		out, err := m.agent(t, "", command)
		NewWithT(t).Expect(err).To(HaveOccurred())
		NewWithT(t).Expect(out).To(ContainSubstring("run agent.exe enroll first"))
	}
}

func (m *machine) enroll(t *testing.T) {
	g := NewWithT(t)
	m.Create(t, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: v1alpha1.EnrollerName}})
	config, err := m.ServiceAccount(t.Context(), namespace, v1alpha1.EnrollerName)
	g.Expect(err).NotTo(HaveOccurred())
	ca := filepath.Join(t.TempDir(), "ca.crt")
	g.Expect(os.WriteFile(ca, config.CAData, 0o600)).To(Succeed())
	args := []string{"enroll", "--host", "hv01", "--server", config.Host, "--ca", wine.WindowsPath(ca)}

	out, err := m.agent(t, "\n", args...)
	g.Expect(err).To(HaveOccurred())
	g.Expect(out).To(ContainSubstring("there is no one-time token"))
	out, err = m.agent(t, "rubbish\n", args...)
	g.Expect(err).To(HaveOccurred())
	g.Expect(out).To(ContainSubstring("make a new one"))

	out, err = m.agent(t, config.BearerToken+"\r\n", args...)
	g.Expect(err).NotTo(HaveOccurred(), out)
	g.Expect(out).To(ContainSubstring("enrolled as host hv01"))
	for _, secret := range []string{config.BearerToken, m.token(t)} {
		g.Expect(out).NotTo(ContainSubstring(secret), "I7")
	}
	g.Expect(m.token(t)).NotTo(Equal(config.BearerToken))
	for _, name := range []string{"token", "kubeconfig", "config.yaml"} {
		stat, err := os.Stat(m.file(name))
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(stat.Mode().Perm()&0o007).To(BeZero(), "%s is for others too", name)
	}

	out, err = m.agent(t, config.BearerToken+"\n", args...)
	g.Expect(err).To(HaveOccurred())
	g.Expect(out).To(Or(ContainSubstring("a host of this name is enrolled"), ContainSubstring("the one-time token is not accepted")))
	g.Expect(out).NotTo(ContainSubstring(config.BearerToken), "I7")

	// This machine has no Hyper-V, so the agent is to work on a host that does not answer.
	settings, err := os.ReadFile(m.file("config.yaml"))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(os.WriteFile(m.file("config.yaml"), append(settings, `emulated: C:\nobody.sock`+"\n"...), 0o600)).To(Succeed())
}

func (m *machine) token(t *testing.T) string {
	content, err := os.ReadFile(m.file("token"))
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return string(content)
}

// session is the life of the agent that holds the host's lease.
func (m *machine) session(t *testing.T) func() string {
	return func() string {
		lease := &coordinationv1.Lease{}
		if m.Admin.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: v1alpha1.AgentName}, lease) != nil || lease.Spec.HolderIdentity == nil {
			return ""
		}
		return *lease.Spec.HolderIdentity
	}
}

func (m *machine) foreground(t *testing.T) {
	g := NewWithT(t)
	g.SetDefaultEventuallyTimeout(time.Minute)
	var log bytes.Buffer
	cmd := m.prefix.Command(t.Context(), m.exe, "run")
	cmd.Stdout, cmd.Stderr = &log, &log
	g.Expect(cmd.Start()).To(Succeed())
	g.Eventually(m.session(t)).ShouldNot(BeEmpty())
	g.Expect(cmd.Process.Signal(os.Interrupt)).To(Succeed())
	g.Expect(cmd.Wait()).To(Or(Succeed(), MatchError(exec.ErrWaitDelay)), log.String())
	g.Expect(log.String()).To(ContainSubstring("started for host hv01"))
	g.Expect(log.String()).NotTo(ContainSubstring(m.token(t)), "I7")
}

// exposed is a token that somebody made readable: nothing is done with it.
func (m *machine) exposed(t *testing.T) {
	g := NewWithT(t)
	g.Expect(os.Chmod(m.file("token"), 0o644)).To(Succeed())
	for _, command := range []string{"run", "install"} {
		out, err := m.agent(t, "", command)
		g.Expect(err).To(HaveOccurred())
		g.Expect(out).To(And(ContainSubstring(`Hyperkeep\token: others may get at it`), ContainSubstring("icacls")))
	}
	g.Expect(os.Chmod(m.file("token"), 0o600)).To(Succeed())
}

func (m *machine) life(t *testing.T) {
	g := NewWithT(t)
	g.SetDefaultEventuallyTimeout(time.Minute)
	before := m.session(t)()
	out, err := m.agent(t, "", "install")
	g.Expect(err).NotTo(HaveOccurred(), out)
	g.Expect(out).To(And(ContainSubstring("Service Hyperkeep is installed"), ContainSubstring(`C:\Program Files\Hyperkeep\agent.exe`)))
	t.Log(out)
	g.Eventually(m.session(t)).ShouldNot(Equal(before), "the service works")
	log, err := os.ReadFile(m.file("logs/agent.log"))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(string(log)).NotTo(ContainSubstring(m.token(t)), "I7")

	// A new version takes the place of the old one.
	before = m.session(t)()
	out, err = m.agent(t, "", "install")
	g.Expect(err).NotTo(HaveOccurred(), out)
	g.Eventually(m.session(t)).ShouldNot(Equal(before))

	// The service manager stops and starts it.
	before = m.session(t)()
	for _, verb := range []string{"stop", "start"} {
		out, err := m.prefix.Command(t.Context(), "net", verb, "Hyperkeep").CombinedOutput()
		g.Expect(err).NotTo(HaveOccurred(), "%s", out)
	}
	g.Eventually(m.session(t)).ShouldNot(Equal(before))

	for range 2 {
		out, err = m.agent(t, "", "uninstall")
		g.Expect(err).NotTo(HaveOccurred(), out)
		g.Expect(m.token(t)).NotTo(BeEmpty(), "what is not purged stays")
	}
	g.Expect(out).To(ContainSubstring("There is no service"))
	g.Expect(m.prefix.Local(`C:\Program Files\Hyperkeep`)).NotTo(BeADirectory())
}
