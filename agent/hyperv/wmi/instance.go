package wmi

import (
	"errors"
	"fmt"
)

// Instance is one object as WMI returned it. Its properties are nil, bool, string (texts, references, datetimes as
// yyyymmddHHMMSS.mmmmmm+UUU), int64 (integers of every width), []string and []int64.
type Instance struct {
	// Path is the object path (__PATH), good for Get, Associators, Invoke and as a reference parameter.
	Path       string         `json:"path"`
	Class      string         `json:"class"`
	Properties map[string]any `json:"properties"`
}

// ErrProperty means that an instance lacks a property that we read, or has it with another type: a host that differs from what we know.
var ErrProperty = errors.New("unexpected property")

// String returns a text property; NULL is "".
func (i Instance) String(name string) (string, error) { return property[string](i, name) }

// Int returns an integer property; NULL is 0.
func (i Instance) Int(name string) (int64, error) { return property[int64](i, name) }

// Bool returns a boolean property; NULL is false.
func (i Instance) Bool(name string) (bool, error) { return property[bool](i, name) }

// Strings returns an array of texts; NULL is empty.
func (i Instance) Strings(name string) ([]string, error) { return property[[]string](i, name) }

// Ints returns an array of integers; NULL is empty.
func (i Instance) Ints(name string) ([]int64, error) { return property[[]int64](i, name) }

func property[T any](i Instance, name string) (T, error) {
	var zero T
	value, known := i.Properties[name]
	if !known {
		return zero, fmt.Errorf("%w: %s has no %s", ErrProperty, i.Class, name)
	}
	if value == nil {
		return zero, nil
	}
	typed, ok := value.(T)
	if !ok {
		return zero, fmt.Errorf("%w: %s.%s is a %T, not a %T", ErrProperty, i.Class, name, value, zero)
	}
	return typed, nil
}
