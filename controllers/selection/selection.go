// Package selection says which virtual machines a policy protects.
package selection

import (
	"fmt"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
)

// Selects says whether a policy selects a virtual machine. It never selects one of another namespace, and a policy that selects all leaves exempt ones
// out; naming an exempt one, or selecting it by a label, is taken at its word. A selector that cannot be read selects nothing: see Check.
func Selects(policy *v1alpha1.BackupPolicy, machine *v1alpha1.VirtualMachine) bool {
	if policy.Namespace != machine.Namespace {
		return false
	}
	selection := policy.Spec.Selection
	switch {
	case selection.All != nil:
		return *selection.All && machine.Spec.Exemption == nil
	case selection.Selector != nil:
		selector, err := metav1.LabelSelectorAsSelector(selection.Selector)
		return err == nil && selector.Matches(labels.Set(machine.Labels))
	default:
		return slices.Contains(selection.Names, machine.Name)
	}
}

// Check returns why the selection of a policy cannot be evaluated. The schema cannot tell whether a label selector is well-formed.
func Check(policy *v1alpha1.BackupPolicy) error {
	if _, err := metav1.LabelSelectorAsSelector(policy.Spec.Selection.Selector); err != nil {
		return fmt.Errorf("selection.selector: %w", err)
	}
	return nil
}
