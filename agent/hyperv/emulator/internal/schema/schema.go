// Package schema knows which classes, properties, methods and parameters the emulated host has. What is not in schema.txt does not exist,
// so a misspelt name is refused by the emulator as Windows would refuse it.
package schema

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

// Type is a CIM type as schema.txt writes it, such as "uint16", "string[]" or "ref". Values of a "datetime", a "ref" and an embedded "object" are strings.
type Type string

// Class is one WMI class.
type Class struct {
	Namespace  string
	Name       string
	Bases      []string
	Keys       []string
	Properties map[string]Type
	Methods    map[string]Method
	// Association says that the class ties objects together.
	Association bool

	since map[string]int // the first build that has a member; "" is the class
	full  *Class         // with the members that this version of Windows lacks; nil is the class itself
}

// Method is a method of a class, its parameters in the order of the class.
type Method struct {
	Name       string
	Parameters []Parameter
}

// Parameter is one parameter of a method.
type Parameter struct {
	Name string
	Type Type
	// Class is the class of an embedded instance, from which the actual one may be derived.
	Class string
	// In and Out say which way the value goes. Some go both ways.
	In, Out bool
}

// Is says whether the class is, or derives from, the named one. Class names are compared without regard to case, as WMI does.
func (c *Class) Is(name string) bool {
	return strings.EqualFold(c.Name, name) || slices.ContainsFunc(c.Bases, func(b string) bool { return strings.EqualFold(b, name) })
}

// Property returns the type and the exact name of a property.
func (c *Class) Property(name string) (exact string, t Type, ok bool) {
	if t, ok := c.Properties[name]; ok {
		return name, t, true
	}
	for exact, t := range c.Properties {
		if strings.EqualFold(exact, name) {
			return exact, t, true
		}
	}
	return "", "", false
}

// Instance makes an instance with the given properties; the others of the class are NULL. A property that this version of the class lacks is left
// out, and one that no version has is an error.
func (c *Class) Instance(host string, properties map[string]any) (wmi.Instance, error) {
	all := make(map[string]any, len(c.Properties))
	for name := range c.Properties {
		all[name] = nil
	}
	for name, value := range properties {
		t, ok := c.Properties[name]
		if !ok && c.full != nil && c.full.Properties[name] != "" {
			continue
		}
		if !ok {
			return wmi.Instance{}, fmt.Errorf("class %s has no property %s", c.Name, name)
		}
		if err := t.Check(value); err != nil {
			return wmi.Instance{}, fmt.Errorf("%s.%s: %w", c.Name, name, err)
		}
		all[name] = value
	}
	return wmi.Instance{Path: c.Path(host, all), Class: c.Name, Properties: all}, nil
}

// Path is the object path (__PATH) of the instance with these key properties.
func (c *Class) Path(host string, properties map[string]any) string {
	keys := make([]string, 0, len(c.Keys))
	for _, k := range c.Keys {
		text, _ := properties[k].(string)
		keys = append(keys, fmt.Sprintf(`%s="%s"`, k, strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(text)))
	}
	return fmt.Sprintf(`\\%s\%s:%s.%s`, strings.ToUpper(host), c.Namespace, c.Name, strings.Join(keys, ","))
}

// PathClass returns the class that an object path names.
func PathClass(path string) string {
	if i := strings.Index(path, ":"); strings.HasPrefix(path, `\\`) && i >= 0 {
		path = path[i+1:]
	}
	name, _, _ := strings.Cut(path, ".")
	return name
}

// SamePath says whether two object paths name the same instance. The host and the namespace may be left out, as in WMI.
func SamePath(a, b string) bool { return strings.EqualFold(relative(a), relative(b)) }

func relative(path string) string {
	if !strings.HasPrefix(path, `\\`) {
		return path
	}
	_, after, _ := strings.Cut(path, ":")
	return after
}

// Check says whether a value has the type. NULL fits every type.
func (t Type) Check(value any) error {
	switch v := value.(type) {
	case nil:
		return nil
	case bool:
		if t == "bool" {
			return nil
		}
	case string:
		return t.checkText(v)
	case int64:
		return t.checkInteger(v)
	case []string:
		if element, ok := strings.CutSuffix(string(t), "[]"); ok {
			for _, text := range v {
				if err := Type(element).checkText(text); err != nil {
					return err
				}
			}
			return nil
		}
	case []int64:
		if element, ok := strings.CutSuffix(string(t), "[]"); ok {
			for _, n := range v {
				if err := Type(element).checkInteger(n); err != nil {
					return err
				}
			}
			return nil
		}
	}
	return fmt.Errorf("a %T is no %s", value, t)
}

// A datetime is a moment or an interval ([MS-WMIO] 2.2.5). A reference is an object path, whose keys are not looked at here.
var textForms = map[Type]*regexp.Regexp{
	"string":   regexp.MustCompile(``),
	"datetime": regexp.MustCompile(`^(\d{14}\.\d{6}[+-]\d{3}|\d{14}\.\d{6}:000)$`),
	"ref":      regexp.MustCompile(`^(\\\\[^\\]+\\[^:]+:)?\w+(\.\w+=.+|=@)$`),
	"object":   regexp.MustCompile(`^<INSTANCE `),
}

func (t Type) checkText(text string) error {
	form, ok := textForms[t]
	if !ok {
		return fmt.Errorf("a text is no %s", t)
	}
	if !form.MatchString(text) {
		return fmt.Errorf("%q is no %s", text, t)
	}
	return nil
}

var integerRanges = map[Type][2]int64{
	"uint8": {0, 1<<8 - 1}, "uint16": {0, 1<<16 - 1}, "uint32": {0, 1<<32 - 1}, "uint64": {0, 1<<63 - 1},
	"int8": {-1 << 7, 1<<7 - 1}, "int16": {-1 << 15, 1<<15 - 1}, "int32": {-1 << 31, 1<<31 - 1}, "int64": {-1 << 63, 1<<63 - 1},
}

func (t Type) checkInteger(n int64) error {
	limits, ok := integerRanges[t]
	if !ok {
		return fmt.Errorf("an integer is no %s", t)
	}
	if n < limits[0] || n > limits[1] {
		return fmt.Errorf("%d is no %s", n, t)
	}
	return nil
}
