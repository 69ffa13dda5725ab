package delegation

import (
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
	"github.com/hyperkeep/hyperkeep/controllers/report"
	"github.com/hyperkeep/hyperkeep/controllers/transition"
)

// announce adds the events about what has changed for the run as a whole.
func (d *decider) announce() {
	before, after := d.run.Status.Conditions, d.next.Status.Conditions
	kinds := []string{v1alpha1.ConditionSucceeded, v1alpha1.ConditionCheckpointReleased}
	if !Terminal(d.next.Status) {
		kinds = append(kinds, v1alpha1.ConditionStalled)
		d.announceProgress(before, after)
	}
	d.next.Events = append(d.next.Events, transition.Events(before, after, kinds...)...)
}

func (d *decider) announceProgress(before, after []metav1.Condition) {
	was, is := meta.FindStatusCondition(before, v1alpha1.ConditionSucceeded), meta.FindStatusCondition(after, v1alpha1.ConditionSucceeded)
	if is == nil || was != nil && was.Reason == is.Reason {
		return
	}
	switch is.Reason {
	case v1alpha1.ReasonPlaced:
		d.next.Events = append(d.next.Events, report.Normal(is.Reason, "%s", is.Message))
	case v1alpha1.ReasonRetrying, v1alpha1.ReasonHostUnreachable:
		d.next.Events = append(d.next.Events, report.Warning(is.Reason, "%s", is.Message))
	}
}
