package report

import (
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
)

// maxConditionMessage is what the schema of metav1.Condition allows.
const maxConditionMessage = 32768

// Conditions edits the conditions of one object at one moment. A condition keeps its transition time as long as its status stays the same, so
// that setting it again changes nothing.
type Conditions struct {
	list       *[]metav1.Condition
	generation int64
	now        metav1.Time
}

// ConditionsOf edits list for the given generation of the object. Times are in whole seconds, as the API server stores them.
func ConditionsOf(list *[]metav1.Condition, generation int64, now time.Time) Conditions {
	return Conditions{list: list, generation: generation, now: Time(now)}
}

// Time is now as the API server stores it. With finer times, each status would differ from the stored one and be written again.
func Time(now time.Time) metav1.Time { return metav1.NewTime(now.Truncate(time.Second)) }

// True sets a condition to True.
func (c Conditions) True(kind, reason, message string) {
	c.set(kind, metav1.ConditionTrue, reason, message)
}

// False sets a condition to False.
func (c Conditions) False(kind, reason, message string) {
	c.set(kind, metav1.ConditionFalse, reason, message)
}

// Unknown sets a condition to Unknown.
func (c Conditions) Unknown(kind, reason, message string) {
	c.set(kind, metav1.ConditionUnknown, reason, message)
}

// Absent removes conditions.
func (c Conditions) Absent(kinds ...string) {
	for _, kind := range kinds {
		meta.RemoveStatusCondition(c.list, kind)
	}
}

// Reconciling says that work goes on by itself. kstatus reads it as InProgress.
func (c Conditions) Reconciling(reason, message string) {
	c.True(v1alpha1.ConditionReconciling, reason, message)
	c.Absent(v1alpha1.ConditionStalled)
}

// Stalled says that nothing more happens until a person acts. kstatus reads it as Failed.
func (c Conditions) Stalled(reason, message string) {
	c.True(v1alpha1.ConditionStalled, reason, message)
	c.Absent(v1alpha1.ConditionReconciling)
}

// Settled says that there is nothing to do.
func (c Conditions) Settled() {
	c.Absent(v1alpha1.ConditionReconciling, v1alpha1.ConditionStalled)
}

func (c Conditions) set(kind string, status metav1.ConditionStatus, reason, message string) {
	meta.SetStatusCondition(c.list, metav1.Condition{
		Type:               kind,
		Status:             status,
		ObservedGeneration: c.generation,
		LastTransitionTime: c.now,
		Reason:             reason,
		Message:            truncate(message, maxConditionMessage),
	})
}

// truncate cuts text to at most limit bytes, at the boundary of a character.
func truncate(text string, limit int) string {
	const ellipsis = "..."
	if len(text) <= limit {
		return text
	}
	return strings.ToValidUTF8(text[:limit-len(ellipsis)], "") + ellipsis
}
