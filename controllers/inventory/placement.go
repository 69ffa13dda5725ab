package inventory

import (
	"regexp"
	"slices"
	"strings"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
)

// Namespace returns where the object of a virtual machine with this name in Hyper-V appears: the first placement rule that matches counts.
func Namespace(host v1alpha1.HyperVHostSpec, displayName string) string {
	for _, rule := range host.Placement {
		if matches(rule.NamePattern, displayName) {
			return rule.Namespace
		}
	}
	return host.VirtualMachineNamespace
}

// Namespaces returns all namespaces in which virtual machines of a host can appear, sorted.
func Namespaces(host v1alpha1.HyperVHostSpec) []string {
	namespaces := []string{host.VirtualMachineNamespace}
	for _, rule := range host.Placement {
		namespaces = append(namespaces, rule.Namespace)
	}
	slices.Sort(namespaces)
	return slices.Compact(namespaces)
}

// matches compares a whole name with a pattern, without regard to case. Go's regular expressions take linear time, whatever the pattern.
func matches(pattern, name string) bool {
	expression := strings.NewReplacer(`\*`, `.*`, `\?`, `.`).Replace(regexp.QuoteMeta(pattern))
	return regexp.MustCompile(`(?is)^` + expression + `$`).MatchString(name)
}
