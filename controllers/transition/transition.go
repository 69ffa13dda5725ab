// Package transition turns changes of conditions into events, so that a person who watches events learns what a person who reads the status sees.
package transition

import (
	"slices"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
	"github.com/hyperkeep/hyperkeep/controllers/report"
)

// Events returns one event for each of the given conditions whose status or reason changed to something that a person should know: a warning for
// False and for Stalled, a normal one for True; conditions that say the same share one. A condition that became Unknown or went away is no news.
func Events(before, after []metav1.Condition, kinds ...string) []report.Event {
	var events []report.Event
	for _, kind := range kinds {
		was, is := meta.FindStatusCondition(before, kind), meta.FindStatusCondition(after, kind)
		if is == nil || is.Status == metav1.ConditionUnknown || was != nil && was.Status == is.Status && was.Reason == is.Reason {
			continue
		}
		event := report.Normal(is.Reason, "%s", is.Message)
		if is.Status == metav1.ConditionFalse || kind == v1alpha1.ConditionStalled {
			event = report.Warning(is.Reason, "%s", is.Message)
		}
		if !slices.Contains(events, event) {
			events = append(events, event)
		}
	}
	return events
}
