package schema

import (
	"fmt"
	"slices"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

// CheckParams says whether a method takes these input parameters. Errors wrap wmi.ErrInvalidParameter.
func (s *Schema) CheckParams(c *Class, m Method, in wmi.Params) error {
	for name, value := range in {
		i := slices.IndexFunc(m.Parameters, func(p Parameter) bool { return p.Name == name && p.In })
		if i < 0 {
			return fmt.Errorf("%w: %s.%s takes no %s", wmi.ErrInvalidParameter, c.Name, m.Name, name)
		}
		if err := s.checkParam(c.Namespace, m.Parameters[i], value); err != nil {
			return fmt.Errorf("%w: %s.%s: %s: %w", wmi.ErrInvalidParameter, c.Name, m.Name, name, err)
		}
	}
	return nil
}

func (s *Schema) checkParam(namespace string, p Parameter, value any) error {
	switch v := value.(type) {
	case wmi.Object:
		if p.Type == "object" && p.Class != "" {
			return s.checkObject(namespace, p.Class, v)
		}
	case []wmi.Object:
		if p.Type == "object[]" {
			for _, o := range v {
				if err := s.checkObject(namespace, p.Class, o); err != nil {
					return err
				}
			}
			return nil
		}
	default:
		return p.Type.Check(value)
	}
	return fmt.Errorf("a %T is no %s", value, p.Type)
}

func (s *Schema) checkObject(namespace, want string, o wmi.Object) error {
	c, ok := s.Class(namespace, o.Class)
	if !ok {
		return fmt.Errorf("no class %s", o.Class)
	}
	if !c.Is(want) {
		return fmt.Errorf("a %s is no %s", o.Class, want)
	}
	for name, value := range o.Properties {
		t, ok := c.Properties[name]
		if !ok {
			return fmt.Errorf("class %s has no property %s", o.Class, name)
		}
		if err := t.Check(value); err != nil {
			return fmt.Errorf("%s.%s: %w", o.Class, name, err)
		}
	}
	return nil
}
