package v1alpha1

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Age is a length of time as people say it of backups: weeks, days, hours and minutes in that order, such as "2w", "36h" or "1d12h".
//
// +kubebuilder:validation:MinLength=2
// +kubebuilder:validation:MaxLength=32
// +kubebuilder:validation:Pattern=`^([0-9]+w)?([0-9]+d)?([0-9]+h)?([0-9]+m)?$`
type Age string

// Duration converts the age. An age that the schema would refuse is an error.
func (a Age) Duration() (time.Duration, error) {
	units := []struct {
		suffix string
		length time.Duration
	}{{"w", 7 * 24 * time.Hour}, {"d", 24 * time.Hour}, {"h", time.Hour}, {"m", time.Minute}}
	rest := string(a)
	var total time.Duration
	for _, unit := range units {
		number, after, found := strings.Cut(rest, unit.suffix)
		if !found {
			continue
		}
		n, err := strconv.ParseUint(number, 10, 32)
		if err != nil {
			return 0, fmt.Errorf("age %q: %q is not a number of %s", a, number, unit.suffix)
		}
		total += time.Duration(n) * unit.length
		rest = after
	}
	if rest != "" || a == "" {
		return 0, fmt.Errorf("age %q is not of the form 1w2d3h4m", a)
	}
	return total, nil
}
