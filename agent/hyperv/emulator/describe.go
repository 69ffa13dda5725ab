package emulator

import (
	"context"
	"fmt"
	"strings"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/emulator/internal/schema"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

var _ wmi.Describer = (*session)(nil)

// Describe implements wmi.Describer.
func (s *session) Describe(ctx context.Context, class string) (wmi.Class, error) {
	if err := s.begin(ctx); err != nil {
		return wmi.Class{}, err
	}
	c, ok := s.host.schema.Class(s.namespace, class)
	if !ok {
		return wmi.Class{}, fmt.Errorf("%w: %s", wmi.ErrInvalidClass, class)
	}
	out := wmi.Class{Name: c.Name, Properties: map[string]string{}, Methods: map[string]wmi.Method{}}
	for name, t := range c.Properties {
		out.Properties[name] = string(t)
	}
	for name, m := range c.Methods {
		described := wmi.Method{In: map[string]string{}, Out: map[string]string{}}
		for _, p := range m.Parameters {
			if p.Out {
				described.Out[p.Name] = typeName(p)
			}
			if p.In {
				described.In[p.Name] = typeName(p)
			}
		}
		out.Methods[name] = described
	}
	return out, nil
}

// typeName is the type as WMI names it: embedded instances travel as text.
func typeName(p schema.Parameter) string {
	if p.Class != "" {
		return "string" + strings.TrimPrefix(string(p.Type), "object")
	}
	return string(p.Type)
}
