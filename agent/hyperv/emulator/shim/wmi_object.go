package shim

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/emulator/internal/schema"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

// wmiObject is SWbemObject: a class, an instance, an event, or the parameters of a method. What is put into it stays within it.
type wmiObject struct {
	services *connection
	class    *schema.Class // nil for events and parameters
	name     string
	path     string // "" of what exists only here
	inner    bool   // within another object, where it knows its key only
	types    map[string]schema.Type
	embedded map[string]*wmiObject // values of properties of typeObject

	mu     sync.Mutex
	values map[string]any
}

// definition is the object of a class.
func definition(s *connection, class *schema.Class) *wmiObject {
	return &wmiObject{services: s, class: class, name: class.Name, types: class.Properties, values: map[string]any{}}
}

func (o *wmiObject) kind() kind { return kindObject }

func (o *wmiObject) members() members {
	return members{
		asGet: {
			"Properties_":       func(context.Context, []any) (any, error) { return o.properties(), nil },
			"SystemProperties_": func(context.Context, []any) (any, error) { return o.system(), nil },
			"Methods_":          func(context.Context, []any) (any, error) { return o.methods(), nil },
		},
		asMethod: {
			"SpawnInstance_": func(context.Context, []any) (any, error) {
				return &wmiObject{services: o.services, class: o.class, name: o.name, types: o.types, values: map[string]any{}}, nil
			},
			"GetText_": o.text, "Associators_": o.associators, "ExecMethod_": o.execute,
		},
	}
}

// member implements dynamic: a property is a member.
func (o *wmiObject) member(name string) (members, bool) {
	p, ok := o.property(name)
	if !ok {
		return nil, false
	}
	return members{asGet: {name: p.value}, asPut: {name: p.set}}, true
}

// property finds a property without regard to case.
func (o *wmiObject) property(name string) (*property, bool) {
	for exact := range o.types {
		if strings.EqualFold(exact, name) {
			return &property{o, exact}, true
		}
	}
	return nil, false
}

func (o *wmiObject) properties() automation {
	return &collection{
		of: kindProperties,
		list: func(context.Context) ([]automation, error) {
			out := make([]automation, 0, len(o.types))
			for _, name := range slices.Sorted(maps.Keys(o.types)) {
				out = append(out, &property{o, name})
			}
			return out, nil
		},
		item: func(name string) (automation, bool) { return o.property(name) },
	}
}

// system is the system properties.
func (o *wmiObject) system() automation {
	values := map[string]any{"__CLASS": o.name, "__PATH": nil, "__RELPATH": nil}
	if o.path != "" {
		values["__RELPATH"] = o.path[strings.Index(o.path, ":")+1:]
	}
	if o.path != "" && !o.inner {
		values["__PATH"] = o.path
	}
	all := &wmiObject{name: o.name, types: map[string]schema.Type{"__CLASS": "string", "__PATH": "string", "__RELPATH": "string"}, values: values}
	return all.properties()
}

func (o *wmiObject) text(_ context.Context, args []any) (any, error) {
	const dtd20, wmiDTD20 = 1, 2 // wbemObjectTextFormatCIMDTD20, wbemObjectTextFormatWMIDTD20
	if len(args) < 1 {
		return nil, fail(hrParameterCount, "the format is missing")
	}
	if format, ok := integer(args[0]); !ok || format != dtd20 && format != wmiDTD20 {
		return nil, fail(hrParameter, "there is no format %v", args[0])
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return instanceText(o.name, o.types, o.values)
}

func (o *wmiObject) associators(_ context.Context, args []any) (any, error) {
	names, err := texts(args, 2)
	if err != nil {
		return nil, err
	}
	return o.services.found(func(ctx context.Context) ([]wmi.Instance, error) {
		return o.services.session.Associators(ctx, o.path, names[0], names[1])
	}), nil
}

// property is SWbemProperty.
type property struct {
	object *wmiObject
	name   string
}

func (p *property) kind() kind { return kindProperty }

func (p *property) members() members {
	readable := map[string]member{"Value": p.value}
	for name, value := range p.constants() {
		readable[name] = func(context.Context, []any) (any, error) { return value, nil }
	}
	return members{asGet: readable, asPut: {"Value": p.set}}
}

// constants implements constant.
func (p *property) constants() map[string]any {
	of, array := element(p.object.types[p.name])
	return map[string]any{"Name": p.name, "CIMType": cimTypes[of], "IsArray": array}
}

func (p *property) value(context.Context, []any) (any, error) {
	if s := p.object.services; s != nil && s.p.host.Faults().PropertyFails(p.object.name, p.name) {
		return nil, fail(hrFailed, "the provider could not read %s", p.name)
	}
	if inner := p.object.embedded[p.name]; inner != nil {
		return inner, nil
	}
	p.object.mu.Lock()
	defer p.object.mu.Unlock()
	value := p.object.values[p.name]
	if text, ok := value.(string); ok && p.object.types[p.name] == typeObject {
		return embeddedObject(text)
	}
	return toVariant(p.object.types[p.name], value), nil
}

func (p *property) set(_ context.Context, args []any) (any, error) {
	if len(args) != 1 {
		return nil, fail(hrParameterCount, "a property has one value")
	}
	value, err := fromVariant(p.object.types[p.name], args[0])
	if err != nil {
		return nil, err
	}
	p.object.mu.Lock()
	defer p.object.mu.Unlock()
	p.object.values[p.name] = value
	return Missing{}, nil
}
