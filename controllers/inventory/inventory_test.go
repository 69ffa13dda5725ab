package inventory

import (
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
)

const id = "0ae5bd4f-8b02-4f46-9a8e-3b1e6c2f5a11"

func TestWhole(t *testing.T) {
	part := func(number, parts int32, scan string, ids ...string) v1alpha1.HostInventory {
		object := v1alpha1.HostInventory{ObjectMeta: metav1.ObjectMeta{Name: PartName(number)}}
		object.Status = v1alpha1.HostInventoryStatus{ScanID: scan, Part: number, Parts: parts}
		for _, id := range ids {
			object.Status.VirtualMachines = append(object.Status.VirtualMachines, v1alpha1.VirtualMachineFacts{ID: id})
		}
		return object
	}
	cases := map[string]struct {
		parts []v1alpha1.HostInventory
		want  string
		whole bool
	}{
		"nothing":                            {nil, "", false},
		"a part that was never filled":       {[]v1alpha1.HostInventory{part(0, 0, "")}, "", false},
		"one part":                           {[]v1alpha1.HostInventory{part(0, 1, "x", "a", "b")}, "a b", true},
		"a host without machines":            {[]v1alpha1.HostInventory{part(0, 1, "x")}, "", true},
		"parts in any order":                 {[]v1alpha1.HostInventory{part(1, 2, "x", "b"), part(0, 2, "x", "a")}, "a b", true},
		"a part is missing":                  {[]v1alpha1.HostInventory{part(0, 2, "x", "a")}, "", false},
		"a part of the scan before":          {[]v1alpha1.HostInventory{part(0, 2, "y", "a"), part(1, 2, "x", "b")}, "", false},
		"the first part is missing":          {[]v1alpha1.HostInventory{part(1, 2, "x", "b")}, "", false},
		"a part of a time with more of them": {[]v1alpha1.HostInventory{part(0, 1, "y", "a"), part(1, 2, "x", "b")}, "a", true},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			scan, whole := Whole(c.parts)
			var ids []string
			for _, machine := range scan.VirtualMachines {
				ids = append(ids, machine.ID)
			}
			if got := strings.Join(ids, " "); got != c.want || whole != c.whole {
				t.Errorf("the scan has %q, whole %v; want %q, whole %v", got, whole, c.want, c.whole)
			}
		})
	}
}

func TestObjectName(t *testing.T) {
	cases := map[string]struct{ displayName, prefix string }{
		"a plain name":            {"crm-db", "crm-db-"},
		"capitals and spaces":     {"CRM DB (old)", "crm-db-old-"},
		"dots and underscores":    {"sql.prod_1", "sql-prod-1-"},
		"letters beyond ASCII":    {"Bücher", "b-cher-"},
		"nothing that DNS allows": {"数据库", "vm-"},
		"a very long name":        {strings.Repeat("long ", 50), "long-long-"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			got := ObjectName(v1alpha1.VirtualMachineFacts{ID: id, DisplayName: c.displayName})
			if !strings.HasPrefix(got, c.prefix) || len(validation.IsDNS1123Label(got)) > 0 {
				t.Errorf("%q is named %q, want a DNS label that begins with %q", c.displayName, got, c.prefix)
			}
			if other := ObjectName(v1alpha1.VirtualMachineFacts{ID: "another", DisplayName: c.displayName}); other == got {
				t.Errorf("two machines share the name %q", got)
			}
		})
	}
}

func TestID(t *testing.T) {
	name := ObjectName(v1alpha1.VirtualMachineFacts{ID: id, DisplayName: "crm-db"})
	cases := map[string]struct{ name, label, facts, want string }{
		"the label names it":                       {name, id, "", id},
		"somebody removed the label":               {name, "", id, id},
		"somebody set another machine's id":        {name, "0ae5bd4f-0000", id, id},
		"another's id, and no facts yet":           {name, "0ae5bd4f-0000", "", ""},
		"an object that a person made up":          {"crm-db", id, "", ""},
		"a made-up object that only ends with it":  {strings.TrimPrefix(name, "crm-db"), id, "", id},
		"neither label nor facts":                  {name, "", "", ""},
		"label and facts of another machine alike": {name, "other", "other", ""},
	}
	for description, c := range cases {
		t.Run(description, func(t *testing.T) {
			machine := &v1alpha1.VirtualMachine{ObjectMeta: metav1.ObjectMeta{Name: c.name, Labels: map[string]string{v1alpha1.LabelVirtualMachineID: c.label}}}
			if c.facts != "" {
				machine.Status.Facts = &v1alpha1.VirtualMachineFacts{ID: c.facts}
			}
			if got := ID(machine); got != c.want {
				t.Errorf("the object stands for %q, want %q", got, c.want)
			}
		})
	}
}

func TestNamespace(t *testing.T) {
	host := v1alpha1.HyperVHostSpec{VirtualMachineNamespace: "default-vms", Placement: []v1alpha1.PlacementRule{
		{NamePattern: "crm-*", Namespace: "sales"},
		{NamePattern: "crm-db", Namespace: "never-reached"},
		{NamePattern: "sql0?", Namespace: "finance"},
		{NamePattern: "a.b[1]", Namespace: "literal"},
	}}
	for name, want := range map[string]string{
		"crm-db": "sales", "CRM-Web": "sales", "crm-": "sales", "my-crm-db": "default-vms", "sql01": "finance", "sql011": "default-vms",
		"a.b[1]": "literal", "axb1": "default-vms", "": "default-vms", "crm-\nnew line": "sales",
	} {
		if got := Namespace(host, name); got != want {
			t.Errorf("%q appears in %s, want %s", name, got, want)
		}
	}
	if got := strings.Join(Namespaces(host), " "); got != "default-vms finance literal never-reached sales" {
		t.Errorf("the namespaces of the host are %s", got)
	}
}

func TestLead(t *testing.T) {
	place := func(host, role string, ready metav1.ConditionStatus) Place {
		object := &v1alpha1.HyperVHost{ObjectMeta: metav1.ObjectMeta{Name: host}}
		object.Status.Conditions = []metav1.Condition{{Type: v1alpha1.ConditionReady, Status: ready}}
		return Place{Host: object, Facts: v1alpha1.VirtualMachineFacts{ID: id, ReplicaRole: role}}
	}
	elsewhere := func(p Place) Place { p.Facts.OwnedElsewhere = true; return p }
	const alive, lost = metav1.ConditionTrue, metav1.ConditionFalse
	cases := map[string]struct {
		places  []Place
		present string
		want    string
		unique  bool
	}{
		"one host":                               {[]Place{place("hv01", "None", alive)}, "", "hv01", true},
		"one host whose agent is lost":           {[]Place{place("hv01", "None", lost)}, "hv01", "hv01", true},
		"two hosts, one id":                      {[]Place{place("hv01", "None", alive), place("hv02", "None", alive)}, "", "hv01", false},
		"two hosts, it was on the second":        {[]Place{place("hv01", "None", alive), place("hv02", "None", alive)}, "hv02", "hv02", false},
		"two hosts, both lost":                   {[]Place{place("hv01", "None", lost), place("hv02", "None", lost)}, "hv02", "hv02", false},
		"failover from a host that is lost":      {[]Place{place("hv01", "None", lost), place("hv02", "None", alive)}, "hv01", "hv02", true},
		"a replica pair":                         {[]Place{place("hv01", "Replica", alive), place("hv02", "Primary", alive)}, "hv01", "hv02", true},
		"a replica pair whose primary is lost":   {[]Place{place("hv01", "Replica", alive), place("hv02", "Primary", lost)}, "hv02", "hv02", true},
		"an extended pair without its primary":   {[]Place{place("hv01", "ExtendedReplica", alive), place("hv02", "Replica", alive)}, "", "hv02", true},
		"two that both say they are the primary": {[]Place{place("hv01", "Primary", alive), place("hv02", "Primary", alive)}, "", "hv01", false},
		"failover of a primary, with a replica": {
			[]Place{place("hv01", "Primary", lost), place("hv02", "Primary", alive), place("hv03", "Replica", alive)}, "hv01", "hv02", true,
		},
		"two nodes of a cluster, one of which has it": {[]Place{elsewhere(place("hv01", "None", alive)), place("hv02", "None", alive)}, "hv01", "hv02", true},
		"the cluster's owner is lost":                 {[]Place{elsewhere(place("hv01", "None", alive)), place("hv02", "None", lost)}, "hv01", "hv02", true},
		"the owner of a cluster has no agent":         {[]Place{elsewhere(place("hv01", "None", alive))}, "hv01", "hv01", true},
		"a cluster's machine and a replica elsewhere": {
			[]Place{elsewhere(place("hv01", "Primary", alive)), place("hv02", "Primary", alive), place("hv03", "Replica", alive)}, "", "hv02", true,
		},
		"a replica and a stranger": {[]Place{place("hv01", "Primary", alive), place("hv02", "None", alive)}, "", "hv01", false},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			lead, unique := Lead(c.places, c.present)
			if lead.Host.Name != c.want || unique != c.unique {
				t.Errorf("%s leads, unique %v; want %s, unique %v", lead.Host.Name, unique, c.want, c.unique)
			}
		})
	}
}
