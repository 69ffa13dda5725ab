package virtualmachine

import (
	"fmt"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
	"github.com/hyperkeep/hyperkeep/controllers/inventory"
	"github.com/hyperkeep/hyperkeep/controllers/report"
)

// scanWait is how soon to look again for a machine that a half-written inventory lacks.
const scanWait = 5 * time.Second

// decision is what labels and status a virtual machine should have.
type decision struct {
	labels map[string]string
	status v1alpha1.VirtualMachineStatus
	wait   report.Wait
}

// verdict is what one condition becomes.
type verdict struct {
	status          metav1.ConditionStatus
	reason, message string
}

func yes(reason, message string) verdict { return verdict{metav1.ConditionTrue, reason, message} }
func no(reason, message string) verdict  { return verdict{metav1.ConditionFalse, reason, message} }
func open(reason, message string) verdict {
	return verdict{metav1.ConditionUnknown, reason, message}
}

func (v verdict) tell(conditions report.Conditions, kind string) {
	switch v.status {
	case metav1.ConditionTrue:
		conditions.True(kind, v.reason, v.message)
	case metav1.ConditionFalse:
		conditions.False(kind, v.reason, v.message)
	default:
		conditions.Unknown(kind, v.reason, v.message)
	}
}

// decide is pure: what it returns follows from its arguments alone.
func decide(machine *v1alpha1.VirtualMachine, seen observed, now time.Time) decision {
	next := decision{status: *machine.Status.DeepCopy()}
	next.status.ObservedGeneration = machine.Generation
	conditions := report.ConditionsOf(&next.status.Conditions, machine.Generation, now)

	present := next.place(machine, seen)
	present.tell(conditions, v1alpha1.ConditionPresent)
	present.tell(conditions, v1alpha1.ConditionReady)
	if present.reason == v1alpha1.ReasonDuplicateID || present.reason == v1alpha1.ReasonUnidentified {
		conditions.Stalled(present.reason, present.message)
	} else {
		conditions.Settled()
	}

	next.status.Policies = nil
	for _, policy := range seen.policies {
		next.status.Policies = append(next.status.Policies, policy.Name)
	}
	slices.Sort(next.status.Policies)
	protected := protection(machine, next.status.Policies)
	protected.tell(conditions, v1alpha1.ConditionProtected)

	next.status.Images, next.status.LastRestorePoint = seen.images, restorePoint(seen.newest)
	next.status.RPO = strictest(seen.policies)
	next.compliance(present, protected, now).tell(conditions, v1alpha1.ConditionRPOMet)
	return next
}

// place finds out where the machine is, and takes over what is said of it there. Facts of a machine that is not ours to see, or that is gone, stay as they
// were last.
func (d *decision) place(machine *v1alpha1.VirtualMachine, seen observed) verdict {
	if seen.id == "" {
		return no(v1alpha1.ReasonUnidentified, fmt.Sprintf(
			"the object does not tell which virtual machine it stands for: restore its label %s, or delete it: it is made anew", v1alpha1.LabelVirtualMachineID))
	}
	d.labels = map[string]string{v1alpha1.LabelVirtualMachineID: seen.id}
	if len(seen.places) == 0 {
		return d.absent(seen)
	}
	lead, unique := inventory.Lead(seen.places, machine.Status.HostName)
	if namespace := inventory.Namespace(lead.Host.Spec, lead.Facts.DisplayName); namespace != machine.Namespace {
		return no(v1alpha1.ReasonMovedAway, "the placement rules of its host put the virtual machine into another namespace; the images that were taken here stay here")
	}
	d.status.HostName = lead.Host.Name
	d.status.Facts = lead.Facts.DeepCopy()
	d.labels[v1alpha1.LabelHost] = lead.Host.Name
	if !unique {
		message := fmt.Sprintf("several hosts have a virtual machine with this id: %s; it is not backed up until the copies are removed or given ids of their own", hosts(seen.places))
		d.status.Facts.Concerns = append(d.status.Facts.Concerns, v1alpha1.Concern{
			Reason: v1alpha1.ReasonDuplicateID, Severity: v1alpha1.ConcernCritical, Message: message,
		})
		return no(v1alpha1.ReasonDuplicateID, message)
	}
	return yes(v1alpha1.ReasonFound, fmt.Sprintf("the virtual machine is on host %s", lead.Host.Name))
}

func (d *decision) absent(seen observed) verdict {
	if seen.scanning {
		d.wait = report.Wait{For: scanWait, Because: "the host's inventory is being written"}
		for _, c := range d.status.Conditions {
			if c.Type == v1alpha1.ConditionPresent {
				return verdict{c.Status, c.Reason, c.Message}
			}
		}
	}
	return no(v1alpha1.ReasonNotFound, "no host has the virtual machine any more; its images stay")
}

func hosts(places []inventory.Place) string {
	var names []string
	for _, place := range places {
		names = append(names, place.Host.Name)
	}
	return strings.Join(names, ", ")
}

func protection(machine *v1alpha1.VirtualMachine, policies []string) verdict {
	switch {
	case len(policies) > 0:
		return yes(v1alpha1.ReasonSelected, "selected by "+strings.Join(policies, ", "))
	case machine.Spec.Exemption != nil:
		return no(v1alpha1.ReasonExempt, "exempt: "+machine.Spec.Exemption.Reason)
	default:
		return no(v1alpha1.ReasonUnprotected, "no policy selects the virtual machine: add it to one, or set spec.exemption")
	}
}

// strictest is the shortest RPO of the policies. One that cannot be read promises nothing; the policy says so itself.
func strictest(policies []*v1alpha1.BackupPolicy) *v1alpha1.Age {
	var rpo *v1alpha1.Age
	var shortest time.Duration
	for _, policy := range policies {
		if policy.Spec.Objectives == nil {
			continue
		}
		age := policy.Spec.Objectives.RPO
		if length, err := age.Duration(); err == nil && (rpo == nil || length < shortest) {
			rpo, shortest = &age, length
		}
	}
	return rpo
}

func restorePoint(image *v1alpha1.BackupImage) *v1alpha1.RestorePoint {
	if image == nil {
		return nil
	}
	return &v1alpha1.RestorePoint{
		ImageRef:    v1alpha1.ImageReference{Name: image.Name},
		Time:        image.Spec.Summary.SnapshotTime,
		Consistency: image.Spec.Summary.Consistency,
		Method:      image.Spec.Summary.Method,
	}
}

// compliance compares the newest restore point, counted from its checkpoint, with the RPO. Its message names no age: it would change all the time.
func (d *decision) compliance(present, protected verdict, now time.Time) verdict {
	switch {
	case present.status != metav1.ConditionTrue && present.reason != v1alpha1.ReasonDuplicateID:
		return open(present.reason, "an RPO is measured while the virtual machine is present")
	case protected.status != metav1.ConditionTrue:
		return open(protected.reason, protected.message)
	case d.status.RPO == nil:
		return open(v1alpha1.ReasonNoObjective, "no policy that selects the virtual machine has an RPO")
	case d.status.LastRestorePoint == nil:
		return no(v1alpha1.ReasonNeverBackedUp, "there is no usable image of the virtual machine")
	}
	// strictest has read it already.
	rpo, _ := d.status.RPO.Duration()
	point := d.status.LastRestorePoint
	deadline := point.Time.Add(rpo)
	missed := deadline.Add(time.Second) // times have whole seconds
	if !now.Before(missed) {
		return no(v1alpha1.ReasonRPOMissed, fmt.Sprintf("the newest image %s is of %s: the RPO of %s was missed at %s",
			point.ImageRef.Name, utc(point.Time.Time), *d.status.RPO, utc(deadline)))
	}
	d.wait = d.wait.Sooner(report.Until(now, missed, "the RPO is missed then"))
	return yes(v1alpha1.ReasonRPOMet, fmt.Sprintf("the newest image %s is of %s; the next is needed by %s",
		point.ImageRef.Name, utc(point.Time.Time), utc(deadline)))
}

func utc(t time.Time) string { return t.UTC().Format(time.RFC3339) }
