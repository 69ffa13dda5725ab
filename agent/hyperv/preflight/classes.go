package preflight

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hyperkeep/hyperkeep/agent/hyperv"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

// checkClasses compares the classes of the host with what the agent calls: a class, property, method or parameter that is not there fails at the first
// backup that needs it, and better here.
func (p *Preflight) checkClasses(ctx context.Context, r *Report, info hyperv.HostInfo) {
	sessions := p.sessions()
	for _, namespace := range slices.Sorted(maps.Keys(sessions)) {
		describer, able := sessions[namespace].(wmi.Describer)
		if !able {
			r.add(SectionClasses, namespace, Unchecked, "this connection cannot describe classes", "")
			continue
		}
		c := comparison{report: r, namespace: namespace, describer: describer, unneeded: namespace == wmi.NamespaceCluster && info.Cluster == nil}
		c.run(ctx)
	}
}

// comparison is of one namespace.
type comparison struct {
	report    *Report
	namespace string
	describer wmi.Describer
	// unneeded says that the host has nothing in the namespace, which need not answer then.
	unneeded bool

	classes, methods, differences int
}

func (c *comparison) run(ctx context.Context) {
	for _, u := range calls[c.namespace] {
		class, err := c.describer.Describe(ctx, u.class)
		switch {
		case errors.Is(err, wmi.ErrInvalidNamespace) && c.unneeded:
			c.report.pass(SectionClasses, c.namespace, "not there: the host is in no failover cluster")
			return
		case err != nil && c.unneeded:
			c.report.pass(SectionClasses, c.namespace, "cannot be asked, and need not: the host is in no failover cluster")
			return
		case errors.Is(err, wmi.ErrInvalidNamespace):
			c.report.fail(SectionClasses, c.namespace, err, "Install the Hyper-V role with its management tools.")
			return
		case errors.Is(err, wmi.ErrInvalidMethod):
			c.report.add(SectionClasses, c.namespace, Unchecked, err.Error(), "")
			return
		case errors.Is(err, wmi.ErrInvalidClass) && u.lacking:
			c.report.pass(SectionClasses, u.class, "no such class in this version of Windows; the agent does without")
			continue
		case err != nil:
			c.differ(u.class, err.Error())
			continue
		}
		c.compare(u, class)
	}
	if c.differences == 0 {
		c.report.pass(SectionClasses, c.namespace, "%d classes and %d methods are as expected", c.classes, c.methods)
	}
}

// compare adds a check for each thing that a class lacks.
func (c *comparison) compare(u use, class wmi.Class) {
	c.classes++
	for _, name := range u.reads {
		if !has(class.Properties, name) {
			c.differ(u.class+"."+name, "no such property")
		}
	}
	for _, name := range u.optional {
		if !has(class.Properties, name) {
			c.report.add(SectionClasses, u.class+"."+name, Passed, "no such property in this version of Windows; the agent does without", "")
		}
	}
	for _, name := range slices.Sorted(maps.Keys(u.methods)) {
		c.methods++
		method, there := folded(class.Methods, name)
		if !there {
			c.differ(u.class+"."+name, "no such method")
			continue
		}
		for _, parameter := range u.methods[name] {
			if !has(method.In, parameter) && !has(method.Out, parameter) {
				c.differ(fmt.Sprintf("%s.%s(%s)", u.class, name, parameter), "no such parameter")
			}
		}
	}
}

func (c *comparison) differ(what, found string) {
	c.differences++
	c.report.add(SectionClasses, what, Failed, found,
		"This version of Windows differs from those that the agent knows. Report it with a recording of this host (--record FILE --redact).")
}

func has(types map[string]string, name string) bool {
	_, there := folded(types, name)
	return there
}

// folded looks a name up without regard to case, as WMI does.
func folded[T any](all map[string]T, name string) (T, bool) {
	if value, there := all[name]; there {
		return value, true
	}
	for other, value := range all {
		if strings.EqualFold(other, name) {
			return value, true
		}
	}
	var none T
	return none, false
}
