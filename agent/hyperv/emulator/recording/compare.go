package recording

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/emulator/internal/schema"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/emulator/internal/wire"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

// Difference is something that a recorded host has otherwise than the emulated one: what the emulated one must learn before tests on it say
// anything about that host.
type Difference struct {
	Namespace string `json:"namespace"`
	Class     string `json:"class"`
	// Member is a property, a method or a parameter (Method.Parameter); "" for the class itself.
	Member string `json:"member,omitempty"`
	// Host and Emulated say what either has, "" for nothing.
	Host     string `json:"host,omitempty"`
	Emulated string `json:"emulated,omitempty"`
}

func (d Difference) String() string {
	has := func(what string) string {
		if what == "" {
			return "nothing"
		}
		return what
	}
	return fmt.Sprintf("%s %s: the host has %s, the emulated host %s", d.Class, cmp.Or(d.Member, "(class)"), has(d.Host), has(d.Emulated))
}

// Compare lists, in order, how the host of a recording differs from the schema of the emulated one, as far as the recording shows: classes, properties
// and their types in every instance that the host returned, and methods and parameters where classes were described. The emulated host is taken to be of
// the recorded one's version of Windows, of the newest that it knows where the recording does not tell.
func Compare(r *Recording) ([]Difference, error) {
	all, err := schema.Load()
	if err != nil {
		return nil, fmt.Errorf("compare a recording: %w", err)
	}
	if build := r.build(); build != 0 {
		all = all.At(build)
	}
	c := comparison{schema: all, found: map[Difference]bool{}}
	for _, e := range r.entries {
		if err := c.add(e); err != nil {
			return nil, fmt.Errorf("compare a recording: %s: %w", e.Call, err)
		}
	}
	return slices.SortedFunc(maps.Keys(c.found), func(a, b Difference) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Class, b.Class), cmp.Compare(a.Member, b.Member), cmp.Compare(a.Host, b.Host))
	}), nil
}

// build is the recorded host's build of Windows, 0 when nothing tells it.
func (r *Recording) build() int {
	for _, e := range r.entries {
		var all []wire.Instance
		if e.Call != callQuery || json.Unmarshal(e.Out, &all) != nil {
			continue
		}
		for _, i := range all {
			text, _ := i.Properties["BuildNumber"].(string)
			if build, err := strconv.Atoi(text); err == nil {
				return build
			}
		}
	}
	return 0
}

type comparison struct {
	schema *schema.Schema
	found  map[Difference]bool
}

// refused says that the host answered with an error, which has nothing to compare.
func (e entry) refused() bool { return e.Error != nil }

func (c *comparison) add(e entry) error {
	var in wire.WMI
	if !strings.HasPrefix(e.Call, "wmi.") || e.refused() {
		return nil
	}
	if err := json.Unmarshal(e.In, &in); err != nil {
		return err
	}
	switch e.Call {
	case callQuery, callAssociators:
		var all []wire.Instance
		if err := json.Unmarshal(e.Out, &all); err != nil {
			return err
		}
		for _, i := range all {
			c.instance(in.Namespace, i)
		}
	case callGet:
		var i wire.Instance
		if err := json.Unmarshal(e.Out, &i); err != nil {
			return err
		}
		c.instance(in.Namespace, i)
	case callDescribe:
		var class wmi.Class
		if err := json.Unmarshal(e.Out, &class); err != nil {
			return err
		}
		c.class(in.Namespace, class)
	}
	return nil
}

// instance compares the properties that an instance has with those of the schema. What it lacks may only not have been selected.
func (c *comparison) instance(namespace string, i wire.Instance) {
	known, ok := c.schema.Class(namespace, i.Class)
	if !ok {
		c.found[Difference{Namespace: namespace, Class: i.Class, Host: "it"}] = true
		return
	}
	for name, value := range i.Properties {
		_, t, ok := known.Property(name)
		switch {
		case !ok:
			c.found[Difference{Namespace: namespace, Class: i.Class, Member: name, Host: kindOf(value)}] = true
		case t.Check(value) != nil:
			c.found[Difference{Namespace: namespace, Class: i.Class, Member: name, Host: kindOf(value), Emulated: string(t)}] = true
		}
	}
}

// kindOf is the type of a value, as far as a value tells it.
func kindOf(value any) string {
	switch value.(type) {
	case nil:
		return "NULL"
	case []string:
		return "string[]"
	case []int64:
		return "int[]"
	case int64:
		return "int"
	}
	return fmt.Sprintf("%T", value)
}

// class compares two definitions, both ways.
func (c *comparison) class(namespace string, host wmi.Class) {
	known, ok := c.schema.Class(namespace, host.Name)
	if !ok {
		c.found[Difference{Namespace: namespace, Class: host.Name, Host: "it"}] = true
		return
	}
	properties := map[string]string{}
	for name, t := range known.Properties {
		properties[name] = string(t)
	}
	c.members(Difference{Namespace: namespace, Class: host.Name}, "", host.Properties, properties)
	for name, m := range known.Methods {
		method, ok := host.Methods[name]
		if !ok {
			c.found[Difference{Namespace: namespace, Class: host.Name, Member: name, Emulated: "the method"}] = true
			continue
		}
		in, out := map[string]string{}, map[string]string{}
		for _, p := range m.Parameters {
			if p.Out {
				out[p.Name] = string(p.Type)
			}
			if p.In {
				in[p.Name] = string(p.Type)
			}
		}
		c.members(Difference{Namespace: namespace, Class: host.Name}, name+".", method.In, in)
		c.members(Difference{Namespace: namespace, Class: host.Name}, name+".out ", method.Out, out)
	}
}

// members compares types by name. Every method returns a ReturnValue, which the schema does not list.
func (c *comparison) members(d Difference, prefix string, host, emulated map[string]string) {
	for name, t := range emulated {
		if !sameType(host[name], t) {
			d.Member, d.Host, d.Emulated = prefix+name, host[name], t
			c.found[d] = true
		}
	}
	for name, t := range host {
		if _, known := emulated[name]; !known && name != "ReturnValue" {
			d.Member, d.Host, d.Emulated = prefix+name, t, ""
			c.found[d] = true
		}
	}
}

// sameType compares a type of the host with one of the schema, which writes an embedded instance that travels as text as an object.
func sameType(host, emulated string) bool {
	return host == emulated || host == strings.Replace(emulated, "object", "string", 1)
}
