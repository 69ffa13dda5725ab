package v1alpha1_test

import (
	"testing"
	"time"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
)

func TestAgeDuration(t *testing.T) {
	cases := map[string]struct {
		age   v1alpha1.Age
		want  time.Duration
		fails bool
	}{
		"one unit":                     {age: "24h", want: 24 * time.Hour},
		"all units":                    {age: "1w2d3h4m", want: 9*24*time.Hour + 3*time.Hour + 4*time.Minute},
		"minutes alone":                {age: "90m", want: 90 * time.Minute},
		"nothing":                      {age: "", fails: true},
		"a number without a unit":      {age: "5", fails: true},
		"units out of order":           {age: "1h2d", fails: true},
		"a unit without a number":      {age: "h", fails: true},
		"a negative number":            {age: "-1h", fails: true},
		"a number beyond all measures": {age: "99999999999w", fails: true},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			got, err := c.age.Duration()
			if (err != nil) != c.fails || got != c.want {
				t.Errorf("%q is %v, %v", c.age, got, err)
			}
		})
	}
}
