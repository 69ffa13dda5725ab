package transition

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestEvents(t *testing.T) {
	condition := func(kind, status, reason string) []metav1.Condition {
		return []metav1.Condition{{Type: kind, Status: metav1.ConditionStatus(status), Reason: reason, Message: "100% sure"}}
	}
	cases := map[string]struct {
		before, after []metav1.Condition
		want          string
	}{
		"nothing changed":              {condition("Ready", "True", "Alive"), condition("Ready", "True", "Alive"), ""},
		"it became true":               {condition("Ready", "False", "Lost"), condition("Ready", "True", "Alive"), "Normal Alive: 100% sure"},
		"it became false":              {condition("Ready", "True", "Alive"), condition("Ready", "False", "Lost"), "Warning Lost: 100% sure"},
		"it is false the first time":   {nil, condition("Ready", "False", "Lost"), "Warning Lost: 100% sure"},
		"another reason":               {condition("Ready", "False", "Lost"), condition("Ready", "False", "Taken"), "Warning Taken: 100% sure"},
		"it became unknown":            {condition("Ready", "True", "Alive"), condition("Ready", "Unknown", "Asking"), ""},
		"it went away":                 {condition("Ready", "True", "Alive"), nil, ""},
		"it stalled":                   {nil, condition("Stalled", "True", "Taken"), "Warning Taken: 100% sure"},
		"two say the same":             {nil, append(condition("Ready", "False", "Taken"), condition("Stalled", "True", "Taken")...), "Warning Taken: 100% sure"},
		"a condition nobody asked for": {nil, condition("Other", "True", "Taken"), ""},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			var got string
			for _, event := range Events(c.before, c.after, "Ready", "Stalled") {
				got += event.String()
			}
			if got != c.want {
				t.Errorf("events %q, want %q", got, c.want)
			}
		})
	}
}
