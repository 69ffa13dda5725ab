package selection

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
)

func TestSelects(t *testing.T) {
	all := v1alpha1.Selection{All: ptr.To(true)}
	tier1 := v1alpha1.Selection{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"tier": "1"}}}
	broken := v1alpha1.Selection{Selector: &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "tier", Operator: "Near"}}}}
	exempt := &v1alpha1.Exemption{Reason: "a scratch machine"}
	cases := map[string]struct {
		selection v1alpha1.Selection
		namespace string
		exemption *v1alpha1.Exemption
		want      bool
	}{
		"all selects any of the namespace":          {selection: all, namespace: "sales", want: true},
		"all leaves an exempt one out":              {selection: all, namespace: "sales", exemption: exempt},
		"nothing selects from another namespace":    {selection: all, namespace: "finance"},
		"a name selects":                            {selection: v1alpha1.Selection{Names: []string{"crm-web", "crm-db"}}, namespace: "sales", want: true},
		"another name does not":                     {selection: v1alpha1.Selection{Names: []string{"crm"}}, namespace: "sales"},
		"a name selects an exempt one too":          {selection: v1alpha1.Selection{Names: []string{"crm-db"}}, namespace: "sales", exemption: exempt, want: true},
		"a label selects":                           {selection: tier1, namespace: "sales", want: true},
		"a label selects an exempt one too":         {selection: tier1, namespace: "sales", exemption: exempt, want: true},
		"another label does not":                    {selection: v1alpha1.Selection{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"tier": "2"}}}, namespace: "sales"},
		"an empty selector selects all, by itself":  {selection: v1alpha1.Selection{Selector: &metav1.LabelSelector{}}, namespace: "sales", want: true},
		"a selector that cannot be read: none":      {selection: broken, namespace: "sales"},
		"an empty selection, which the API refuses": {namespace: "sales"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			policy := &v1alpha1.BackupPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "sales"}, Spec: v1alpha1.BackupPolicySpec{Selection: c.selection}}
			machine := &v1alpha1.VirtualMachine{
				ObjectMeta: metav1.ObjectMeta{Namespace: c.namespace, Name: "crm-db", Labels: map[string]string{"tier": "1"}},
				Spec:       v1alpha1.VirtualMachineSpec{Exemption: c.exemption},
			}
			if got := Selects(policy, machine); got != c.want {
				t.Errorf("selected: %v, want %v", got, c.want)
			}
			if err := Check(policy); (err != nil) != (name == "a selector that cannot be read: none") {
				t.Errorf("check: %v", err)
			}
		})
	}
}
