package chart

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/hyperkeep/hyperkeep/test/controlplane"
)

func TestChartIsClean(t *testing.T) {
	if out, err := helm(t, "lint", "--strict", chart); err != nil {
		t.Fatal(out, err)
	}
}

// The API server checks what no schema of the chart can: the pods, the roles and the policies.
func TestAPIServerTakesWhatIsInstalled(t *testing.T) {
	plane := controlplane.ForTest(t, controlplane.Options{})
	kubectl := func(args ...string) {
		t.Helper()
		if out, err := plane.Kubectl().Run(t.Context(), args...); err != nil {
			t.Fatal(out, err)
		}
	}
	for _, namespace := range []string{"hyperkeep-system", "hyperkeep-keeper", "hyperkeep-nodes"} {
		kubectl("create", "namespace", namespace) // a dry run makes none
	}
	text, err := helm(t, "template", "hyperkeep", chart, "--namespace", "hyperkeep-system", "--set", "nodes.enabled=true", "--kube-version", "1.30.0")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "chart.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	kubectl("apply", "--server-side", "--dry-run=server", "--filename", path)
	kubectl("apply", "--server-side", "--kustomize", root+"/config/with-nodes")
}

// What is installed must not depend on how it is: D.3, T12.
func TestChartInstallsWhatConfigInstalls(t *testing.T) {
	folders := []string{"crd", "rbac", "manager", "keeper", "network-policy"}
	t.Run("by default", func(t *testing.T) { installsTheSame(t, rendered(t), configured(t, folders...)) })
	t.Run("with agents on nodes", func(t *testing.T) {
		g := NewWithT(t)
		fromConfig := configured(t, append(folders, "nodes")...)
		// What config/nodes patches.
		for _, container := range pod(g, fromConfig["Deployment/hyperkeep-system/hyperkeep-manager"])["containers"].([]any) {
			fields := container.(map[string]any)
			fields["args"] = append(fields["args"].([]any), "--nodes-namespace=hyperkeep-nodes")
		}
		installsTheSame(t, rendered(t, "nodes.enabled=true"), fromConfig)
	})
}

func installsTheSame(t *testing.T, fromChart, fromConfig objects) {
	t.Helper()
	g := NewWithT(t)
	// Helm makes the release's namespace itself.
	delete(fromConfig, "Namespace//hyperkeep-system")
	g.Expect(slices.Sorted(maps.Keys(fromChart))).To(Equal(slices.Sorted(maps.Keys(fromConfig))))
	for key, object := range fromConfig {
		for _, field := range []string{"rules", "roleRef", "subjects"} {
			if !equality.Semantic.DeepEqual(fromChart[key].Object[field], object.Object[field]) {
				t.Errorf("the %s of %s differ", field, key)
			}
		}
		switch object.GetKind() {
		case "CustomResourceDefinition", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding":
			g.Expect(fromChart[key].Object["spec"]).To(Equal(object.Object["spec"]), key)
		case "Deployment", "DaemonSet":
			g.Expect(pod(g, fromChart[key])).To(Equal(pod(g, object)), key)
		}
	}
}

// pod is what a Deployment or DaemonSet runs, without what the chart alone can say: the version of the image, and where pods go.
func pod(g Gomega, deployment *unstructured.Unstructured) map[string]any {
	found, _, err := unstructured.NestedFieldNoCopy(deployment.Object, "spec", "template", "spec")
	g.Expect(err).NotTo(HaveOccurred())
	spec := found.(map[string]any)
	delete(spec, "topologySpreadConstraints")
	for _, container := range spec["containers"].([]any) {
		fields := container.(map[string]any)
		fields["image"], _, _ = strings.Cut(fields["image"].(string), ":")
		delete(fields, "imagePullPolicy")
	}
	return spec
}

func TestCopiesInTheChartAreCurrent(t *testing.T) {
	for copies, originals := range map[string]string{"files/crds": "config/crd/bases", "files/rbac": "config/rbac"} {
		paths, err := filepath.Glob(filepath.Join(chart, copies, "*.yaml"))
		if err != nil || len(paths) == 0 {
			t.Fatalf("no copies in %s: %v", copies, err)
		}
		for _, path := range paths {
			made, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			original, err := os.ReadFile(filepath.Join(root, originals, filepath.Base(path)))
			if err != nil || string(original) != string(made) {
				t.Errorf("%s is not what %s has: run make manifests (%v)", path, originals, err)
			}
		}
	}
}

func TestChartRefusesValuesThatItDoesNotKnow(t *testing.T) {
	cases := map[string]struct{ value, says string }{
		"a value that does not exist":   {"manger.replicas=2", "manger"},
		"a typo within a group":         {"manager.replica=2", "replica"},
		"a number that makes no sense":  {"manager.replicas=0", "replicas"},
		"a word where a switch belongs": {"crds.keep=maybe", "keep"},
		"a namespace that cannot be":    {"keeper.namespace=Not_A_Name", "namespace"},
		"a folder that is none":         {"nodes.stateDir=/var/lib", "stateDir"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			_, err := template(t, c.value)
			NewWithT(t).Expect(err).To(MatchError(ContainSubstring(c.says)))
		})
	}
}

func TestChartSwitches(t *testing.T) {
	const crd = "CustomResourceDefinition//backuppolicies.hyperkeep.io"
	keeps := func(o objects) bool { return o[crd].GetAnnotations()["helm.sh/resource-policy"] == "keep" }
	cases := map[string]struct {
		set  []string
		want func(objects) bool
	}{
		"CRDs stay when the release goes":      {nil, keeps},
		"CRDs may go with it":                  {[]string{"crds.keep=false"}, func(o objects) bool { return o[crd] != nil && !keeps(o) }},
		"CRDs may be left out":                 {[]string{"crds.enabled=false"}, func(o objects) bool { return o[crd] == nil }},
		"one manager has no disruption budget": {nil, func(o objects) bool { return o["PodDisruptionBudget/hyperkeep-system/hyperkeep-manager"] == nil }},
		"two managers have one":                {[]string{"manager.replicas=2"}, func(o objects) bool { return o["PodDisruptionBudget/hyperkeep-system/hyperkeep-manager"] != nil }},
		"the keeper may run elsewhere": {[]string{"keeper.enabled=false"}, func(o objects) bool {
			return o["Deployment/hyperkeep-keeper/hyperkeep-keeper"] == nil && o["RoleBinding/hyperkeep-keeper/agent"] != nil
		}},
		"the keeper may have another namespace": {[]string{"keeper.namespace=vault"}, func(o objects) bool {
			return o["Deployment/vault/hyperkeep-keeper"] != nil && o["RoleBinding/vault/hyperkeep-manager"] != nil
		}},
		"its namespace may be there already":  {[]string{"keeper.createNamespace=false"}, func(o objects) bool { return o["Namespace//hyperkeep-keeper"] == nil }},
		"no agents on nodes unless asked for": {nil, func(o objects) bool { return o["DaemonSet/hyperkeep-nodes/hyperkeep-agent"] == nil }},
		"nodes may be chosen": {[]string{"nodes.enabled=true", "nodes.nodeSelector.rack=a"}, func(o objects) bool {
			selector, _, _ := unstructured.NestedStringMap(o["DaemonSet/hyperkeep-nodes/hyperkeep-agent"].Object, "spec", "template", "spec", "nodeSelector")
			return maps.Equal(selector, map[string]string{"kubernetes.io/os": "windows", "hyperkeep.io/hyper-v-host": "true", "rack": "a"})
		}},
		"agents on nodes may have another namespace": {[]string{"nodes.enabled=true", "nodes.namespace=hosts"}, func(o objects) bool {
			policy := fmt.Sprint(o["ValidatingAdmissionPolicy//hyperkeep-nodes"].Object["spec"])
			manager := fmt.Sprint(o["Deployment/hyperkeep-system/hyperkeep-manager"].Object["spec"])
			return o["DaemonSet/hosts/hyperkeep-agent"] != nil && strings.Contains(policy, "'system:serviceaccount:hosts:agent'") &&
				strings.Contains(manager, "--nodes-namespace=hosts")
		}},
		"network policies may be left out":     {[]string{"networkPolicy.enabled=false"}, func(o objects) bool { return o["NetworkPolicy/hyperkeep-system/hyperkeep-manager"] == nil }},
		"a monitor only where its kind exists": {[]string{"metrics.serviceMonitor=true"}, func(o objects) bool { return o["ServiceMonitor/hyperkeep-system/hyperkeep-manager"] == nil }},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if !c.want(rendered(t, c.set...)) {
				t.Errorf("not so with %v", c.set)
			}
		})
	}
}

func TestPodsAreRestricted(t *testing.T) {
	g := NewWithT(t)
	pods := 0
	for key, object := range rendered(t) {
		if object.GetKind() != "Deployment" {
			continue
		}
		pods++
		spec := pod(g, object)
		g.Expect(spec["securityContext"]).To(HaveKeyWithValue("runAsNonRoot", true), key)
		for _, container := range spec["containers"].([]any) {
			g.Expect(container.(map[string]any)["securityContext"]).To(And(
				HaveKeyWithValue("readOnlyRootFilesystem", true), HaveKeyWithValue("allowPrivilegeEscalation", false)), key)
		}
	}
	g.Expect(pods).To(Equal(2))
}
