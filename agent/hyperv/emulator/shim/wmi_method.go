package shim

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/emulator/internal/schema"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

// parametersClass is the class of the parameters of a method.
const parametersClass = "__PARAMETERS"

func (o *wmiObject) methods() automation {
	var declared map[string]schema.Method
	if o.class != nil {
		declared = o.class.Methods
	}
	return &collection{
		of: kindMethods,
		list: func(context.Context) ([]automation, error) {
			out := make([]automation, 0, len(declared))
			for _, name := range slices.Sorted(maps.Keys(declared)) {
				out = append(out, &method{o, declared[name]})
			}
			return out, nil
		},
		item: func(name string) (automation, bool) {
			m, ok := o.method(name)
			return &method{o, m}, ok
		},
	}
}

// method finds a method without regard to case.
func (o *wmiObject) method(name string) (schema.Method, bool) {
	if o.class != nil {
		for exact, m := range o.class.Methods {
			if strings.EqualFold(exact, name) {
				return m, true
			}
		}
	}
	return schema.Method{}, false
}

// method is SWbemMethod.
type method struct {
	object   *wmiObject
	declared schema.Method
}

func (m *method) kind() kind { return kindMethod }

func (m *method) members() members {
	return members{asGet: {
		"Name": func(context.Context, []any) (any, error) { return m.declared.Name, nil },
		"InParameters": func(context.Context, []any) (any, error) {
			return m.object.services.parameters(m.declared, false, nil), nil
		},
		"OutParameters": func(context.Context, []any) (any, error) {
			return m.object.services.parameters(m.declared, true, nil), nil
		},
	}}
}

// parameters makes the object of the input or output parameters; no object where there are none. The methods of a cluster's classes return nothing.
func (s *connection) parameters(m schema.Method, out bool, values map[string]any) any {
	types := map[string]schema.Type{}
	for _, p := range m.Parameters {
		if out && p.Out || !out && p.In {
			types[p.Name] = parameterType(p)
		}
	}
	if out && !strings.EqualFold(s.namespace, wmi.NamespaceCluster) {
		types["ReturnValue"] = "uint32"
	}
	if len(types) == 0 {
		return Object(0)
	}
	if values == nil {
		values = map[string]any{}
	}
	return &wmiObject{services: s, name: parametersClass, types: types, values: values}
}

// parameterType is the type of a parameter as WMI declares it: embedded instances of a class travel as text.
func parameterType(p schema.Parameter) schema.Type {
	if p.Class == "" {
		return p.Type
	}
	if _, array := element(p.Type); array {
		return "string[]"
	}
	return "string"
}

// execute calls a method with an object of parameters.
func (o *wmiObject) execute(ctx context.Context, args []any) (any, error) {
	name, err := text(args, 0)
	if err != nil {
		return nil, err
	}
	m, ok := o.method(name)
	if !ok || o.path == "" {
		return nil, fail(hrMethod, "%s has no method %s", o.name, name)
	}
	var in wmi.Params
	if len(args) > 1 {
		parameters, err := o.services.p.argument(args[1])
		if err != nil {
			return nil, err
		}
		if in, err = o.services.read(ctx, m, parameters); err != nil {
			return nil, err
		}
	}
	result, err := o.services.session.Invoke(ctx, o.path, m.Name, in)
	if err != nil {
		return nil, err
	}
	values := map[string]any{"ReturnValue": int64(result.ReturnValue)}
	maps.Copy(values, result.Out)
	return o.services.parameters(m, true, values), nil
}

// argument returns an object that was handed in.
func (p *automationProcess) argument(value any) (*wmiObject, error) {
	found, status := p.object([]any{value})
	o, ok := found.(*wmiObject)
	if status != hrOK || !ok {
		return nil, fail(hrParameter, "the argument is no object of parameters")
	}
	return o, nil
}

// read converts parameters. Embedded instances come as text.
func (s *connection) read(ctx context.Context, m schema.Method, parameters *wmiObject) (wmi.Params, error) {
	parameters.mu.Lock()
	defer parameters.mu.Unlock()
	in := wmi.Params{}
	for _, p := range m.Parameters {
		value := parameters.values[p.Name]
		if !p.In || value == nil {
			continue
		}
		var err error
		if texts, array := value.([]string); array && p.Class != "" {
			value, err = s.parseTexts(ctx, texts)
		} else if text, one := value.(string); one && p.Class != "" {
			value, err = s.parseText(ctx, text)
		}
		if err != nil {
			return nil, err
		}
		in[p.Name] = value
	}
	return in, nil
}

func (s *connection) parseTexts(ctx context.Context, texts []string) ([]wmi.Object, error) {
	out := make([]wmi.Object, 0, len(texts))
	for _, t := range texts {
		o, err := s.parseText(ctx, t)
		if err != nil {
			return nil, err
		}
		out = append(out, o)
	}
	return out, nil
}
