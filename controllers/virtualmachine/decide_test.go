package virtualmachine

import (
	"fmt"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
	"github.com/hyperkeep/hyperkeep/controllers/inventory"
)

const id = "0ae5bd4f-8b02-4f46-9a8e-3b1e6c2f5a11"

var now = time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)

func placeOn(host string, ready metav1.ConditionStatus) inventory.Place {
	object := &v1alpha1.HyperVHost{ObjectMeta: metav1.ObjectMeta{Name: host}, Spec: v1alpha1.HyperVHostSpec{VirtualMachineNamespace: "sales"}}
	object.Status.Conditions = []metav1.Condition{{Type: v1alpha1.ConditionReady, Status: ready}}
	return inventory.Place{Host: object, Facts: v1alpha1.VirtualMachineFacts{ID: id, DisplayName: "crm-db", State: v1alpha1.StateRunning}}
}

func policyWith(name string, rpo v1alpha1.Age) *v1alpha1.BackupPolicy {
	policy := &v1alpha1.BackupPolicy{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if rpo != "" {
		policy.Spec.Objectives = &v1alpha1.Objectives{RPO: rpo}
	}
	return policy
}

func imageOf(age time.Duration) *v1alpha1.BackupImage {
	image := &v1alpha1.BackupImage{ObjectMeta: metav1.ObjectMeta{Name: "image-1"}}
	image.Spec.Summary = v1alpha1.ImageSummary{SnapshotTime: metav1.NewTime(now.Add(-age)), Consistency: v1alpha1.ConsistencyCrash}
	return image
}

func TestDecide(t *testing.T) {
	const alive, lost = metav1.ConditionTrue, metav1.ConditionFalse
	one := []inventory.Place{placeOn("hv01", alive)}
	cases := map[string]struct {
		seen      observed
		exemption *v1alpha1.Exemption
		present   string
		protected string
		rpoMet    string
		stalled   string
		host      string
		waits     time.Duration
	}{
		"found, and no policy selects it": {
			seen:    observed{id: id, places: one},
			present: "True/Found", protected: "False/Unprotected", rpoMet: "Unknown/Unprotected", host: "hv01",
		},
		"found, and exempt": {
			seen: observed{id: id, places: one}, exemption: &v1alpha1.Exemption{Reason: "a scratch machine"},
			present: "True/Found", protected: "False/Exempt", rpoMet: "Unknown/Exempt", host: "hv01",
		},
		"exempt, and selected all the same": {
			seen:      observed{id: id, places: one, policies: []*v1alpha1.BackupPolicy{policyWith("daily", "24h")}},
			exemption: &v1alpha1.Exemption{Reason: "a scratch machine"},
			present:   "True/Found", protected: "True/Selected", rpoMet: "False/NeverBackedUp", host: "hv01",
		},
		"a policy without an objective": {
			seen:    observed{id: id, places: one, policies: []*v1alpha1.BackupPolicy{policyWith("daily", "")}, newest: imageOf(time.Hour)},
			present: "True/Found", protected: "True/Selected", rpoMet: "Unknown/NoObjective", host: "hv01",
		},
		"never backed up": {
			seen:    observed{id: id, places: one, policies: []*v1alpha1.BackupPolicy{policyWith("daily", "24h")}},
			present: "True/Found", protected: "True/Selected", rpoMet: "False/NeverBackedUp", host: "hv01",
		},
		"the RPO is met, until its deadline": {
			seen:    observed{id: id, places: one, policies: []*v1alpha1.BackupPolicy{policyWith("daily", "24h")}, newest: imageOf(23 * time.Hour)},
			present: "True/Found", protected: "True/Selected", rpoMet: "True/Met", host: "hv01", waits: time.Hour + time.Second,
		},
		"at the deadline it is still met": {
			seen:    observed{id: id, places: one, policies: []*v1alpha1.BackupPolicy{policyWith("daily", "24h")}, newest: imageOf(24 * time.Hour)},
			present: "True/Found", protected: "True/Selected", rpoMet: "True/Met", host: "hv01", waits: time.Second,
		},
		"after the deadline it is missed": {
			seen:    observed{id: id, places: one, policies: []*v1alpha1.BackupPolicy{policyWith("daily", "24h")}, newest: imageOf(24*time.Hour + time.Second)},
			present: "True/Found", protected: "True/Selected", rpoMet: "False/Missed", host: "hv01",
		},
		"the strictest policy counts": {
			seen: observed{id: id, places: one, newest: imageOf(5 * time.Hour), policies: []*v1alpha1.BackupPolicy{
				policyWith("none", ""), policyWith("daily", "1d"), policyWith("often", "4h"), policyWith("broken", "9h9")}},
			present: "True/Found", protected: "True/Selected", rpoMet: "False/Missed", host: "hv01",
		},
		"no host has it": {
			seen:    observed{id: id, policies: []*v1alpha1.BackupPolicy{policyWith("daily", "24h")}, newest: imageOf(time.Hour)},
			present: "False/NotFound", protected: "True/Selected", rpoMet: "Unknown/NotFound", host: "hv00",
		},
		"the inventory is half-written: it stays as it was": {
			seen:    observed{id: id, scanning: true},
			present: "True/Found", protected: "False/Unprotected", rpoMet: "Unknown/Unprotected", host: "hv00", waits: scanWait,
		},
		"a placement rule moved it": {
			seen: observed{id: id, places: func() []inventory.Place {
				place := placeOn("hv01", alive)
				place.Host.Spec.Placement = []v1alpha1.PlacementRule{{NamePattern: "crm-*", Namespace: "finance"}}
				return []inventory.Place{place}
			}()},
			present: "False/MovedToOtherNamespace", protected: "False/Unprotected", rpoMet: "Unknown/MovedToOtherNamespace", host: "hv00",
		},
		"two hosts have the id: loud, and the RPO still counts": {
			seen: observed{id: id, places: []inventory.Place{placeOn("hv01", alive), placeOn("hv02", alive)}, newest: imageOf(48 * time.Hour),
				policies: []*v1alpha1.BackupPolicy{policyWith("daily", "24h")}},
			present: "False/DuplicateID", protected: "True/Selected", rpoMet: "False/Missed", stalled: "True/DuplicateID", host: "hv01",
		},
		"two hosts have the id, one of them is lost": {
			seen:    observed{id: id, places: []inventory.Place{placeOn("hv01", lost), placeOn("hv02", alive)}},
			present: "True/Found", protected: "False/Unprotected", rpoMet: "Unknown/Unprotected", host: "hv02",
		},
		"nobody knows what it stands for": {
			present: "False/Unidentified", protected: "False/Unprotected", rpoMet: "Unknown/Unidentified", stalled: "True/Unidentified", host: "hv00",
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			machine := &v1alpha1.VirtualMachine{ObjectMeta: metav1.ObjectMeta{Namespace: "sales", Name: "crm-db-1"}, Spec: v1alpha1.VirtualMachineSpec{Exemption: c.exemption}}
			machine.Status.HostName = "hv00"
			machine.Status.Conditions = []metav1.Condition{{Type: v1alpha1.ConditionPresent, Status: alive, Reason: v1alpha1.ReasonFound}}
			next := decide(machine, c.seen, now)
			conditions := next.status.Conditions
			g.Expect(described(conditions, v1alpha1.ConditionPresent)).To(Equal(c.present))
			g.Expect(described(conditions, v1alpha1.ConditionReady)).To(Equal(c.present), "ready as long as it can be backed up")
			g.Expect(described(conditions, v1alpha1.ConditionProtected)).To(Equal(c.protected))
			g.Expect(described(conditions, v1alpha1.ConditionRPOMet)).To(Equal(c.rpoMet))
			g.Expect(described(conditions, v1alpha1.ConditionStalled)).To(Equal(c.stalled))
			g.Expect(next.status.HostName).To(Equal(c.host))
			g.Expect(next.wait.For).To(Equal(c.waits))

			// Deciding again about the same, a little later, changes no status: else it would be written for ever.
			machine.Status = next.status
			g.Expect(decide(machine, c.seen, now.Add(time.Millisecond)).status).To(Equal(next.status))
		})
	}
}

func TestDecideNamesPoliciesAndPoint(t *testing.T) {
	g := NewWithT(t)
	seen := observed{id: id, places: []inventory.Place{placeOn("hv01", metav1.ConditionTrue)}, newest: imageOf(time.Hour), images: 7,
		policies: []*v1alpha1.BackupPolicy{policyWith("often", "90m"), policyWith("daily", "24h")}}
	next := decide(&v1alpha1.VirtualMachine{ObjectMeta: metav1.ObjectMeta{Namespace: "sales"}}, seen, now)
	g.Expect(strings.Join(next.status.Policies, " ")).To(Equal("daily often"))
	g.Expect(*next.status.RPO).To(Equal(v1alpha1.Age("90m")))
	g.Expect(next.status.Images).To(Equal(int32(7)))
	g.Expect(next.status.LastRestorePoint.ImageRef.Name).To(Equal("image-1"))
	g.Expect(next.labels).To(Equal(map[string]string{v1alpha1.LabelHost: "hv01", v1alpha1.LabelVirtualMachineID: id}))
}

func TestDecideNeverShowsAnotherNamespaceFacts(t *testing.T) {
	// Whoever may edit labels in one namespace must not learn about machines of another one.
	place := placeOn("hv01", metav1.ConditionTrue)
	machine := &v1alpha1.VirtualMachine{ObjectMeta: metav1.ObjectMeta{Namespace: "finance", Name: "stolen"}}
	next := decide(machine, observed{id: id, places: []inventory.Place{place}}, now)
	NewWithT(t).Expect(next.status.Facts).To(BeNil())
}

func TestDuplicateIDIsAConcern(t *testing.T) {
	g := NewWithT(t)
	seen := observed{id: id, places: []inventory.Place{placeOn("hv01", metav1.ConditionTrue), placeOn("hv02", metav1.ConditionTrue)}}
	facts := decide(&v1alpha1.VirtualMachine{ObjectMeta: metav1.ObjectMeta{Namespace: "sales"}}, seen, now).status.Facts
	g.Expect(facts.Concerns).To(HaveLen(1))
	g.Expect(facts.Concerns[0].Message).To(ContainSubstring("hv01, hv02"))
	g.Expect(seen.places[0].Facts.Concerns).To(BeEmpty(), "the cache's own object must not change")
}

func TestChanged(t *testing.T) {
	part := func(machines ...v1alpha1.VirtualMachineFacts) *v1alpha1.HostInventory {
		return &v1alpha1.HostInventory{Status: v1alpha1.HostInventoryStatus{ScanID: fmt.Sprint(len(machines)), VirtualMachines: machines}}
	}
	a, b := v1alpha1.VirtualMachineFacts{ID: "a"}, v1alpha1.VirtualMachineFacts{ID: "b"}
	off := v1alpha1.VirtualMachineFacts{ID: "a", State: v1alpha1.StateOff}
	cases := map[string]struct {
		before, after *v1alpha1.HostInventory
		want          string
	}{
		"a scan that found nothing new": {part(a, b), part(b, a), ""},
		"a new part":                    {nil, part(a, b), "a b"},
		"a part that went":              {part(a, b), nil, "a b"},
		"one came":                      {part(a), part(a, b), "b"},
		"one went":                      {part(a, b), part(b), "a"},
		"one differs":                   {part(a, b), part(off, b), "a"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if got := strings.Join(sets.List(changed(c.before, c.after)), " "); got != c.want {
				t.Errorf("machines %q are looked at, want %q", got, c.want)
			}
		})
	}
}

func described(conditions []metav1.Condition, kind string) string {
	c := meta.FindStatusCondition(conditions, kind)
	if c == nil {
		return ""
	}
	return fmt.Sprintf("%s/%s", c.Status, c.Reason)
}
