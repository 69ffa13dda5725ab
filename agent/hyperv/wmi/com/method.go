//go:build windows

package com

import (
	"fmt"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

// returnValue is how WMI names what a method itself returns, among its output parameters.
const returnValue = "ReturnValue"

// execute calls a method by name, after its parameters have been set and found to fit.
func (c *connection) execute(target object, method string, in wmi.Params) (wmi.Result, error) {
	definition, err := methodOf(target, method)
	if err != nil {
		return wmi.Result{}, err
	}
	defer definition.release()
	parameters, err := c.parameters(definition, in)
	if err != nil {
		return wmi.Result{}, err
	}
	defer parameters.release()
	arguments := []any{method}
	if parameters.IDispatch != nil {
		arguments = append(arguments, parameters)
	}
	answer, err := target.call("ExecMethod_", arguments...)
	if err != nil {
		return wmi.Result{}, err
	}
	defer answer.release()
	return result(answer)
}

func methodOf(target object, method string) (object, error) {
	methods, err := target.child("Methods_")
	if err != nil {
		return object{}, err
	}
	defer methods.release()
	definition, err := methods.call("Item", method)
	if hasCode(err, hrNotFound) {
		return object{}, wmi.ErrInvalidMethod
	}
	return definition, err
}

// parameters makes the object of input parameters. There is none for a method that takes none.
func (c *connection) parameters(definition object, in wmi.Params) (object, error) {
	if len(in) == 0 {
		return object{}, nil
	}
	class, err := definition.child("InParameters")
	if err != nil {
		return object{}, err
	}
	if class.IDispatch == nil {
		return object{}, fmt.Errorf("%w: it takes none", wmi.ErrInvalidParameter)
	}
	defer class.release()
	parameters, err := class.call("SpawnInstance_")
	if err != nil {
		return object{}, err
	}
	if err := c.fill(parameters, in); err != nil {
		parameters.release()
		return object{}, err
	}
	return parameters, nil
}

// result reads the output parameters. A void method, as the cluster's are, has no return value: that it ran is its success.
func result(answer object) (wmi.Result, error) {
	r := wmi.Result{Out: map[string]any{}}
	if answer.IDispatch == nil {
		return r, nil
	}
	all, err := answer.properties()
	if err != nil {
		return r, err
	}
	for name, value := range all {
		code, isInteger := value.(int64)
		switch {
		case name == returnValue && isInteger:
			r.ReturnValue = uint32(code)
		case name == returnValue:
			return r, fmt.Errorf("%w: the method returned a %T", wmi.ErrProperty, value)
		case value != nil:
			r.Out[name] = value
		}
	}
	return r, nil
}
