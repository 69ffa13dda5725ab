package shim

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/emulator/internal/schema"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

// xmlInstance is an instance as GetText_ writes it ([DSP0201], CIM DTD 2.0). A property without a value is NULL.
type xmlInstance struct {
	XMLName    xml.Name      `xml:"INSTANCE"`
	Class      string        `xml:"CLASSNAME,attr"`
	Properties []xmlProperty `xml:"PROPERTY"`
	Arrays     []xmlProperty `xml:"PROPERTY.ARRAY"`
	References []xmlProperty `xml:"PROPERTY.REFERENCE"`
}

type xmlProperty struct {
	Name      string    `xml:"NAME,attr"`
	Type      string    `xml:"TYPE,attr,omitempty"`
	Value     *string   `xml:"VALUE"`
	Array     *xmlArray `xml:"VALUE.ARRAY"`
	Reference *string   `xml:"VALUE.REFERENCE>VALUE"`
}

type xmlArray struct {
	Values []string `xml:"VALUE"`
}

// xmlTypes are the names of types that differ from ours.
var xmlTypes = map[schema.Type]string{
	"bool": "boolean", "int8": "sint8", "int16": "sint16", "int32": "sint32", "int64": "sint64",
}

// instanceText writes an instance, all its properties in the order of their names.
func instanceText(class string, types map[string]schema.Type, values map[string]any) (string, error) {
	out := xmlInstance{Class: class}
	for _, name := range slices.Sorted(maps.Keys(types)) {
		of, array := element(types[name])
		p := xmlProperty{Name: name, Type: string(of)}
		if other, ok := xmlTypes[of]; ok {
			p.Type = other
		}
		value := values[name]
		switch {
		case array:
			p.Array = arrayText(value)
			out.Arrays = append(out.Arrays, p)
		case of == "ref":
			p.Type, p.Reference = "", scalarText(value)
			out.References = append(out.References, p)
		default:
			p.Value = scalarText(value)
			out.Properties = append(out.Properties, p)
		}
	}
	data, err := xml.Marshal(out)
	return string(data), err
}

func scalarText(value any) *string {
	if value == nil {
		return nil
	}
	text := fmt.Sprint(value)
	if yes, ok := value.(bool); ok {
		text = strings.ToUpper(strconv.FormatBool(yes))
	}
	return &text
}

func arrayText(value any) *xmlArray {
	switch x := value.(type) {
	case []string:
		return &xmlArray{x}
	case []int64:
		out := &xmlArray{}
		for _, n := range x {
			out.Values = append(out.Values, strconv.FormatInt(n, 10))
		}
		return out
	}
	return nil
}

// parseText reads an embedded instance as a provider does. When one of its key is there, it means that one, and differs from it in some properties.
func (s *connection) parseText(ctx context.Context, text string) (wmi.Object, error) {
	var in xmlInstance
	if err := xml.Unmarshal([]byte(text), &in); err != nil {
		return wmi.Object{}, fail(hrMethodParameter, "an embedded instance cannot be read: %v", err)
	}
	class, ok := s.p.host.Schema().Class(s.namespace, in.Class)
	if !ok {
		return wmi.Object{}, fail(hrMethodParameter, "there is no class %s", in.Class)
	}
	out := wmi.Object{Class: class.Name, Properties: map[string]any{}}
	for _, p := range slices.Concat(in.Properties, in.Arrays, in.References) {
		t, ok := class.Properties[p.Name]
		if !ok {
			return wmi.Object{}, fail(hrMethodParameter, "class %s has no property %s", class.Name, p.Name)
		}
		value, err := p.parse(t)
		if err != nil {
			return wmi.Object{}, err
		}
		if value != nil {
			out.Properties[p.Name] = value
		}
	}
	return out, s.compare(ctx, class, &out)
}

// compare finds the instance that an embedded one means, and leaves only what differs from it.
func (s *connection) compare(ctx context.Context, class *schema.Class, o *wmi.Object) error {
	for _, key := range class.Keys {
		if o.Properties[key] == nil {
			return nil
		}
	}
	path := class.Path(".", o.Properties)
	found, err := s.session.Get(ctx, path)
	if errors.Is(err, wmi.ErrNotFound) || len(class.Keys) == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	o.Path = found.Path
	maps.DeleteFunc(o.Properties, func(name string, value any) bool { return reflect.DeepEqual(value, found.Properties[name]) })
	return nil
}

// embeddedObject makes an object of the text of an instance, by the types that the text gives.
func embeddedObject(text string) (*wmiObject, error) {
	var in xmlInstance
	if err := xml.Unmarshal([]byte(text), &in); err != nil {
		return nil, err
	}
	out := &wmiObject{name: in.Class, types: map[string]schema.Type{}, values: map[string]any{}}
	for _, p := range slices.Concat(in.Properties, in.Arrays, in.References) {
		t := schema.Type(p.Type)
		for ours, theirs := range xmlTypes {
			if theirs == p.Type {
				t = ours
			}
		}
		if p.Reference != nil {
			t = "ref"
		}
		if p.Array != nil {
			t += "[]"
		}
		value, err := p.parse(t)
		if err != nil {
			return nil, err
		}
		out.types[p.Name], out.values[p.Name] = t, value
	}
	return out, nil
}

// parse reads the value of a property.
func (p xmlProperty) parse(t schema.Type) (any, error) {
	of, array := element(t)
	value := p.Value
	if of == "ref" {
		value = p.Reference
	}
	if array != (p.Array != nil) && (value != nil || p.Array != nil) {
		return nil, fail(hrMethodParameter, "%s is no %s", p.Name, t)
	}
	switch {
	case array && p.Array != nil:
		return parseArray(of, p.Array.Values)
	case value != nil:
		return parseScalar(of, *value)
	}
	return nil, nil
}

func parseScalar(t schema.Type, text string) (any, error) {
	switch t {
	case "string", "ref", "datetime":
		return text, nil
	case "bool":
		yes, err := strconv.ParseBool(text)
		if err != nil {
			return nil, fail(hrMethodParameter, "%q is no bool", text)
		}
		return yes, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || t.Check(n) != nil {
		return nil, fail(hrMethodParameter, "%q is no %s", text, t)
	}
	return n, nil
}

func parseArray(t schema.Type, values []string) (any, error) {
	texts, numbers := []string{}, []int64{}
	for _, v := range values {
		value, err := parseScalar(t, v)
		if err != nil {
			return nil, err
		}
		switch x := value.(type) {
		case string:
			texts = append(texts, x)
		case int64:
			numbers = append(numbers, x)
		}
	}
	if cimTypes[t] == cimTypes["string"] || t == "ref" || t == "datetime" {
		return texts, nil
	}
	return numbers, nil
}
