package controlplane

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

const (
	widgetCRD = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {plural: widgets, singular: widget, kind: Widget, listKind: WidgetList}
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties:
          size: {type: integer, maximum: 10}
`
	widgetOfSize = `
apiVersion: example.com/v1
kind: Widget
metadata: {name: one, namespace: default}
size: %d
`
	// readerRBAC lets the ServiceAccount default/reader read ConfigMaps and nothing else.
	readerRBAC = `
apiVersion: v1
kind: ServiceAccount
metadata: {name: reader, namespace: default}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: reader, namespace: default}
rules: [{apiGroups: [""], resources: [configmaps], verbs: [get, list]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: reader, namespace: default}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: reader}
subjects: [{kind: ServiceAccount, name: reader, namespace: default}]
`
)

func TestControlPlane(t *testing.T) {
	crd := filepath.Join(t.TempDir(), "widgets.yaml")
	NewWithT(t).Expect(os.WriteFile(crd, []byte(widgetCRD), 0o600)).To(Succeed())
	c := ForTest(t, Options{CRDs: []string{crd}, WithControllerManager: true})
	clients, err := kubernetes.NewForConfig(c.Config())
	NewWithT(t).Expect(err).NotTo(HaveOccurred())

	t.Run("validates custom resources with their schema", func(t *testing.T) {
		g := NewWithT(t)
		_, err := c.Kubectl().Apply(t.Context(), fmt.Sprintf(widgetOfSize, 7))
		g.Expect(err).NotTo(HaveOccurred())
		_, err = c.Kubectl().Apply(t.Context(), fmt.Sprintf(widgetOfSize, 11))
		g.Expect(err).To(MatchError(ContainSubstring("should be less than or equal to 10")))
	})

	t.Run("names the version that its clients expect", func(t *testing.T) {
		g := NewWithT(t)
		version, err := clients.Discovery().ServerVersion()
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(version.GitVersion).To(HavePrefix("v1."))
	})

	t.Run("issues tokens and holds their ServiceAccount to RBAC until it is deleted", func(t *testing.T) {
		g := NewWithT(t)
		_, err := c.Kubectl().Apply(t.Context(), readerRBAC)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(c.Kubectl().Run(t.Context(), "create", "token", "reader")).NotTo(BeEmpty())

		config, err := c.ServiceAccount(t.Context(), "default", "reader")
		g.Expect(err).NotTo(HaveOccurred())
		reader := kubernetes.NewForConfigOrDie(config).CoreV1()
		_, err = reader.ConfigMaps("default").List(t.Context(), metav1.ListOptions{})
		g.Expect(err).NotTo(HaveOccurred())
		_, err = reader.Secrets("default").List(t.Context(), metav1.ListOptions{})
		g.Expect(apierrors.IsForbidden(err)).To(BeTrue(), "reading secrets: %v", err)

		g.Expect(clients.CoreV1().ServiceAccounts("default").Delete(t.Context(), "reader", metav1.DeleteOptions{})).To(Succeed())
		g.Eventually(func() bool {
			_, err := reader.ConfigMaps("default").List(t.Context(), metav1.ListOptions{})
			return apierrors.IsUnauthorized(err)
		}, time.Minute).Should(BeTrue(), "the token of a deleted ServiceAccount must not be accepted")
	})

	t.Run("gives a person only what RBAC gives, through a kubeconfig file too", func(t *testing.T) {
		g := NewWithT(t)
		file := filepath.Join(t.TempDir(), "kubeconfig")
		g.Expect(WriteKubeconfig(file, c.User("jane", "tenants"))).To(Succeed())
		jane := Kubectl{Path: c.Kubectl().Path, Kubeconfig: file}
		g.Expect(jane.Run(t.Context(), "auth", "whoami")).To(And(ContainSubstring("jane"), ContainSubstring("tenants")))
		_, err := jane.Run(t.Context(), "get", "widgets")
		g.Expect(err).To(MatchError(ContainSubstring("Forbidden")))
	})

	t.Run("deletes a namespace with all that is in it", func(t *testing.T) {
		g := NewWithT(t)
		namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "doomed"}}
		_, err := clients.CoreV1().Namespaces().Create(t.Context(), namespace, metav1.CreateOptions{})
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(clients.CoreV1().Namespaces().Delete(t.Context(), "doomed", metav1.DeleteOptions{})).To(Succeed())
		g.Eventually(func() bool {
			_, err := clients.CoreV1().Namespaces().Get(t.Context(), "doomed", metav1.GetOptions{})
			return apierrors.IsNotFound(err)
		}, time.Minute).Should(BeTrue())
	})

	t.Run("comes back after an outage with the same objects", func(t *testing.T) {
		g := NewWithT(t)
		g.Expect(c.StopAPIServer()).To(Succeed())
		_, err := clients.Discovery().ServerVersion()
		g.Expect(err).To(HaveOccurred())
		g.Expect(c.StartAPIServer(t.Context())).To(Succeed())
		g.Expect(c.Kubectl().Run(t.Context(), "get", "widget", "one", "-o", "jsonpath={.size}")).To(Equal("7"))
	})

	t.Run("leaves no process and no file", func(t *testing.T) {
		g := NewWithT(t)
		g.Expect(commandsNaming(t, c.Dir())).To(HaveLen(3))
		g.Expect(c.Stop()).To(Succeed())
		g.Expect(commandsNaming(t, c.Dir())).To(BeEmpty())
		g.Expect(c.Dir()).NotTo(BeADirectory())
	})
}

func TestStartKeepsObjectsAndTokensInDir(t *testing.T) {
	g := NewWithT(t)
	dir := t.TempDir()
	first := ForTest(t, Options{Dir: dir})
	_, err := first.Kubectl().Apply(t.Context(), readerRBAC)
	g.Expect(err).NotTo(HaveOccurred())
	reader, err := first.ServiceAccount(t.Context(), "default", "reader")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(first.Stop()).To(Succeed())

	second := ForTest(t, Options{Dir: dir})
	moved := second.Config()
	moved.BearerToken = reader.BearerToken
	_, err = kubernetes.NewForConfigOrDie(moved).CoreV1().ConfigMaps("default").List(t.Context(), metav1.ListOptions{})
	g.Expect(err).NotTo(HaveOccurred())
}

func TestStartStopsWhatItStartedWhenItFails(t *testing.T) {
	g := NewWithT(t)
	dir := t.TempDir()
	_, err := Start(t.Context(), Options{Dir: dir, CRDs: []string{"/nonexistent"}})
	skipWithoutBinaries(t, err)
	g.Expect(err).To(MatchError(ContainSubstring("/nonexistent")))
	g.Expect(commandsNaming(t, dir)).To(BeEmpty())
}

func TestStartEndsWithItsContext(t *testing.T) {
	g := NewWithT(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	dir := t.TempDir()
	_, err := Start(ctx, Options{Dir: dir})
	skipWithoutBinaries(t, err)
	g.Expect(err).To(MatchError(context.Canceled))
	g.Expect(commandsNaming(t, dir)).To(BeEmpty())
}

func TestMissingBinariesAreExplained(t *testing.T) {
	empty := t.TempDir()
	tests := map[string]struct{ folder, want string }{
		"when nothing says where they are":     {"", "does not say where"},
		"when the folder does not have them":   {empty, "there is no etcd"},
		"always with the command that helps":   {empty, "hack/controlplane.sh"},
		"also when nothing says where to look": {"", "hack/controlplane.sh"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Setenv(binariesVariable, test.folder)
			_, err := Start(t.Context(), Options{})
			NewWithT(t).Expect(err).To(MatchError(ContainSubstring(test.want)))
		})
	}
}

// TestServersDieWithTheirStarter kills a copy of this test program that runs a control plane.
func TestServersDieWithTheirStarter(t *testing.T) {
	const childDir = "HYPERKEEP_TEST_CHILD_DIR"
	if dir := os.Getenv(childDir); dir != "" {
		ForTest(t, Options{Dir: dir, WithControllerManager: true})
		fmt.Println("ready")
		select {} // until it is killed
	}
	g := NewWithT(t)
	_, err := findBinaries(true)
	skipWithoutBinaries(t, err)
	dir := t.TempDir()
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$")
	child.Env = append(os.Environ(), childDir+"="+dir)
	output, err := child.StdoutPipe()
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(child.Start()).To(Succeed())
	line, err := bufio.NewReader(output).ReadString('\n')
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(line).To(Equal("ready\n"))
	g.Expect(commandsNaming(t, dir)).To(HaveLen(3))

	g.Expect(child.Process.Kill()).To(Succeed())
	_, _ = io.Copy(io.Discard, output)
	_ = child.Wait()
	g.Eventually(func() []string { return commandsNaming(t, dir) }, 10*time.Second).Should(BeEmpty())
}

func skipWithoutBinaries(t *testing.T, err error) {
	t.Helper()
	var missing *MissingBinaryError
	if errors.As(err, &missing) && os.Getenv("CI") != "true" {
		t.Skip(err)
	}
}

// commandsNaming returns the command lines of all processes that name dir, which every server of a
// control plane does.
func commandsNaming(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, entry := range entries {
		if _, err := strconv.Atoi(entry.Name()); err != nil {
			continue
		}
		line, err := os.ReadFile(filepath.Join("/proc", entry.Name(), "cmdline"))
		if err == nil && strings.Contains(string(line), dir) {
			found = append(found, strings.ReplaceAll(string(line), "\x00", " "))
		}
	}
	return found
}
