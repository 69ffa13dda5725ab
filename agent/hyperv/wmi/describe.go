package wmi

import "context"

// Describer is a Session that can say what its classes look like. Whoever only works needs none; a preflight compares the host's classes with
// what the agent calls, before it calls anything.
type Describer interface {
	// Describe describes one class as the host has it, inherited members included. ErrInvalidClass when the namespace lacks it,
	// ErrInvalidNamespace when the host lacks the namespace.
	Describe(ctx context.Context, class string) (Class, error)
}

// Class is the definition of one class. Names are spelt as the host spells them; WMI compares them without regard to case.
//
// Types are "bool", "string", "datetime", "ref", "object", "uint8" to "uint64", "int8" to "int64", "real32" and "real64", with "[]" behind them for
// arrays. An embedded instance that travels as text is a "string".
type Class struct {
	Name       string            `json:"name"`
	Properties map[string]string `json:"properties,omitempty"`
	Methods    map[string]Method `json:"methods,omitempty"`
}

// Method is one method of a class: the types of its parameters by name. An in/out parameter is in both.
type Method struct {
	In  map[string]string `json:"in,omitempty"`
	Out map[string]string `json:"out,omitempty"`
}
