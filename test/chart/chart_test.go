package chart

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

func TestChartIsClean(t *testing.T) {
	if out, err := helm(t, "lint", "--strict", chart); err != nil {
		t.Fatal(out, err)
	}
}

// What is installed must not depend on how it is: D.3, T12.
func TestChartInstallsWhatConfigInstalls(t *testing.T) {
	g := NewWithT(t)
	fromChart := rendered(t)
	fromConfig := configured(t, "crd", "rbac", "manager", "keeper", "network-policy")
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
		case "Deployment":
			g.Expect(pod(g, fromChart[key])).To(Equal(pod(g, object)), key)
		}
	}
}

// pod is what a Deployment runs, without what the chart alone can say: the version of the image, and where pods go.
func pod(g Gomega, deployment *unstructured.Unstructured) map[string]any {
	spec, found, err := unstructured.NestedMap(deployment.Object, "spec", "template", "spec")
	g.Expect(found, err).To(BeTrue())
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
		"its namespace may be there already":   {[]string{"keeper.createNamespace=false"}, func(o objects) bool { return o["Namespace//hyperkeep-keeper"] == nil }},
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
