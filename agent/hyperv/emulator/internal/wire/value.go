// Package wire is how the emulator and its clients write WMI values, calls and errors as JSON.
package wire

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

// Values are properties or parameters by name. Unlike plain JSON they keep their types: int64, []string and []int64 stay what they are, an empty
// array keeps the type of its elements.
type Values map[string]any

// tagged is a value that JSON alone would not tell apart.
type tagged struct {
	Strings *[]string `json:"strings,omitempty"`
	Ints    *[]int64  `json:"ints,omitempty"`
	Object  *object   `json:"object,omitempty"`
	Objects *[]object `json:"objects,omitempty"`
}

type object struct {
	Class      string `json:"class"`
	Path       string `json:"path,omitempty"`
	Properties Values `json:"properties,omitempty"`
}

// MarshalJSON implements json.Marshaler.
func (v Values) MarshalJSON() ([]byte, error) {
	out := make(map[string]any, len(v))
	for name, value := range v {
		switch x := value.(type) {
		case nil, bool, string, int64:
			out[name] = x
		case []string:
			x = append([]string{}, x...) // an empty array must not become null
			out[name] = tagged{Strings: &x}
		case []int64:
			x = append([]int64{}, x...)
			out[name] = tagged{Ints: &x}
		case wmi.Object:
			o := fromObject(x)
			out[name] = tagged{Object: &o}
		case []wmi.Object:
			all := make([]object, 0, len(x))
			for _, o := range x {
				all = append(all, fromObject(o))
			}
			out[name] = tagged{Objects: &all}
		default:
			return nil, fmt.Errorf("%w: %s is a %T", wmi.ErrInvalidParameter, name, value)
		}
	}
	return json.Marshal(out)
}

// UnmarshalJSON implements json.Unmarshaler.
func (v *Values) UnmarshalJSON(text []byte) error {
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(text, &raw); err != nil {
		return err
	}
	*v = make(Values, len(raw))
	for name, r := range raw {
		value, err := decode(r)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		(*v)[name] = value
	}
	return nil
}

func decode(text json.RawMessage) (any, error) {
	if bytes.HasPrefix(text, []byte("{")) {
		return decodeTagged(text)
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	var value any
	if err := decoder.Decode(&value); err != nil {
		return nil, err
	}
	switch x := value.(type) {
	case nil, bool, string:
		return x, nil
	case json.Number:
		return x.Int64()
	}
	return nil, fmt.Errorf("a %T is no value", value)
}

func decodeTagged(text json.RawMessage) (any, error) {
	var t tagged
	if err := json.Unmarshal(text, &t); err != nil {
		return nil, err
	}
	switch {
	case t.Strings != nil:
		return *t.Strings, nil
	case t.Ints != nil:
		return *t.Ints, nil
	case t.Object != nil:
		return t.Object.wmi(), nil
	case t.Objects != nil:
		all := make([]wmi.Object, 0, len(*t.Objects))
		for _, o := range *t.Objects {
			all = append(all, o.wmi())
		}
		return all, nil
	}
	return nil, fmt.Errorf("%s is no value", text)
}

func fromObject(o wmi.Object) object {
	return object{Class: o.Class, Path: o.Path, Properties: o.Properties}
}

func (o object) wmi() wmi.Object {
	return wmi.Object{Class: o.Class, Path: o.Path, Properties: o.Properties}
}
