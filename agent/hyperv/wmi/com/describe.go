//go:build windows

package com

import (
	"context"
	"fmt"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

// Describe implements wmi.Describer.
func (s *session) Describe(ctx context.Context, class string) (wmi.Class, error) {
	return call(ctx, s, func(c *connection) (wmi.Class, error) {
		definition, err := c.get(class)
		if hasCode(err, hrNotFound) {
			return wmi.Class{}, fmt.Errorf("%w: %s", wmi.ErrInvalidClass, class)
		}
		if err != nil {
			return wmi.Class{}, err
		}
		defer definition.release()
		return definition.class()
	})
}

// class reads the definition of a class.
func (o object) class() (out wmi.Class, err error) {
	if out.Name, err = o.system("__CLASS"); err != nil {
		return out, err
	}
	if out.Properties, err = o.types(); err != nil {
		return out, err
	}
	methods, err := o.child("Methods_")
	if err != nil {
		return out, err
	}
	defer methods.release()
	out.Methods = map[string]wmi.Method{}
	err = methods.each("Methods_", func(m object) error {
		name, err := m.text("Name")
		if err != nil {
			return err
		}
		out.Methods[name], err = m.method()
		return err
	})
	return out, err
}

func (o object) method() (m wmi.Method, err error) {
	if m.In, err = o.parameterTypes("InParameters"); err != nil {
		return m, err
	}
	m.Out, err = o.parameterTypes("OutParameters")
	delete(m.Out, returnValue)
	return m, err
}

func (o object) parameterTypes(direction string) (map[string]string, error) {
	parameters, err := o.child(direction)
	if err != nil || parameters.IDispatch == nil {
		return map[string]string{}, err
	}
	defer parameters.release()
	return parameters.types()
}

// types are those of all properties.
func (o object) types() (map[string]string, error) {
	out := map[string]string{}
	err := o.eachProperty(func(name string, p object) error {
		t, array, err := p.cimType()
		out[name] = typeNames[t]
		if array {
			out[name] += "[]"
		}
		return err
	})
	return out, err
}
