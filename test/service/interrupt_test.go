package service

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
	"github.com/hyperkeep/hyperkeep/test/site"
	"github.com/hyperkeep/hyperkeep/test/tenant"
	"github.com/hyperkeep/hyperkeep/test/wine"
)

// recalled are Wine's machines, which remembers the one that it made.
type recalled struct {
	wine.Machines
	machine site.Machine
}

func (r *recalled) Machine(ctx context.Context, dir, shims string) (made site.Machine, err error) {
	made, err = r.Machines.Machine(ctx, dir, shims)
	r.machine = made
	return made, err
}

// TestUpgradeWithinABackup installs the service anew while it backs a machine up: the service manager stops the agent, which leaves the backup where it
// stands, and the next one takes it up.
func TestUpgradeWithinABackup(t *testing.T) {
	if os.Getenv("HYPERKEEP_SOAK") == "" {
		t.Skip("it takes minutes: make soak runs it")
	}
	wine.Require(t)
	g := NewWithT(t)
	dir := t.TempDir()
	binaries, err := site.Build(t.Context(), filepath.Join(dir, "bin"), os.Stderr)
	g.Expect(err).NotTo(HaveOccurred())
	machines := &recalled{Machines: wine.Machines{AgentExe: wine.Build(t, "cmd/agent")}}
	s, err := site.Start(t.Context(), site.Options{
		Dir: dir, Binaries: binaries, WithControllerManager: true, Windows: machines,
		HostArgs: []string{"--inventory-interval", "500ms", "--lease-duration", "4s"}, KeeperArgs: []string{"--lease-duration", "4s"},
	})
	g.Expect(err).NotTo(HaveOccurred())
	defer func() { g.Expect(s.Stop()).To(Succeed()) }()
	t.Run("upgrade", func(t *testing.T) { upgrade(tenant.New(t, s, "hv01"), machines) })
}

func upgrade(x *tenant.Tenant, machines *recalled) {
	g := NewWithT(x)
	hostDir := x.Site.HostDir(x.Name)
	g.Expect(os.MkdirAll(hostDir, 0o755)).To(Succeed())
	g.Expect(os.WriteFile(filepath.Join(hostDir, "host.yaml"), []byte("jobMillis: 3000\n"), 0o644)).To(Succeed(), "slow enough to interrupt it")
	m := x.AddMachine("vm", nil, x.Raw("disk", 32<<20, map[int64]int64{0: 4 << 20}))
	x.UseRepository()
	x.Start()
	g.Expect(x.Host.Agent.Stop()).To(Succeed(), "from here on, it is a service")

	agent := func(input string, args ...string) string {
		x.Helper()
		command, environment := machines.machine.Agent(args...)
		cmd := exec.CommandContext(x.Context(), command[0], command[1:]...)
		cmd.Env, cmd.Stdin, cmd.WaitDelay = environment, strings.NewReader(input), 2*time.Second
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		g.Expect(cmd.Run()).To(Or(Succeed(), MatchError(exec.ErrWaitDelay)), out.String())
		return out.String()
	}
	config := x.Site.ControlPlane.Config()
	ca := filepath.Join(x.Dir, "ca.crt")
	g.Expect(os.WriteFile(ca, config.CAData, 0o600)).To(Succeed())
	x.Create(&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.AgentNamespace(x.Name), Name: v1alpha1.EnrollerName}})
	enroller, err := x.Site.ControlPlane.ServiceAccount(x.Context(), v1alpha1.AgentNamespace(x.Name), v1alpha1.EnrollerName)
	g.Expect(err).NotTo(HaveOccurred())
	agent(enroller.BearerToken, "enroll", "--host", x.Name, "--server", config.Host, "--ca", machines.Path(ca))
	agent("", "install")

	frozen := m.Freeze("before")
	job := x.Job(m, "interrupted", nil)
	x.Await("the backup has its checkpoint", func() bool { x.Get(job); return len(x.Leftovers()) > 0 })
	agent("", "install")
	x.AwaitJob(job)
	g.Expect(tenant.Verdict(job.Status.Conditions)).To(ContainSubstring("Succeeded=True"))
	g.Expect(x.Leftovers()).To(BeEmpty())
	g.Expect(x.Images()).To(HaveLen(1))
	x.ExpectRestores(job.Status.ImageRef.Name, "again", frozen)
	agent("", "uninstall")
}
