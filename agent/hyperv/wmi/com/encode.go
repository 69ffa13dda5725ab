//go:build windows

package com

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/go-ole/go-ole"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

// integerRanges are the values that each integer type holds.
var integerRanges = map[cimType][2]int64{
	cimSint8: {-1 << 7, 1<<7 - 1}, cimSint16: {-1 << 15, 1<<15 - 1}, cimSint32: {-1 << 31, 1<<31 - 1}, cimSint64: {-1 << 63, 1<<63 - 1},
	cimUint8: {0, 1<<8 - 1}, cimUint16: {0, 1<<16 - 1}, cimUint32: {0, 1<<32 - 1}, cimUint64: {0, 1<<63 - 1}, cimChar16: {0, 1<<16 - 1},
}

// encodeInteger makes the variant that WMI itself would return for an integer of this type (IWbemClassObject::Put).
func encodeInteger(n int64, t cimType) (ole.VARIANT, error) {
	limits, ok := integerRanges[t]
	if !ok {
		return ole.VARIANT{}, fmt.Errorf("an integer is no %s", typeNames[t])
	}
	if n < limits[0] || n > limits[1] {
		return ole.VARIANT{}, fmt.Errorf("%d is no %s", n, typeNames[t])
	}
	switch t {
	case cimUint8:
		return ole.NewVariant(ole.VT_UI1, n), nil
	case cimSint8, cimSint16, cimChar16:
		return ole.NewVariant(ole.VT_I2, int64(uint16(n))), nil
	case cimSint64, cimUint64:
		return textVariant(strconv.FormatInt(n, 10)), nil
	}
	return ole.NewVariant(ole.VT_I4, int64(uint32(n))), nil
}

// encode makes a variant for a property of a CIM type, which the caller clears. Every error means that the value does not fit.
func (c *connection) encode(value any, t cimType, array bool) (ole.VARIANT, error) {
	if value == nil {
		return ole.NewVariant(ole.VT_NULL, 0), nil
	}
	if !array {
		return c.encodeScalar(value, t)
	}
	switch x := value.(type) {
	case []string:
		return encodeArray(c, x, t)
	case []int64:
		return encodeArray(c, x, t)
	case []wmi.Object:
		return encodeArray(c, x, t)
	}
	return ole.VARIANT{}, fmt.Errorf("a %T is no %s[]", value, typeNames[t])
}

func encodeArray[T any](c *connection, values []T, t cimType) (ole.VARIANT, error) {
	encoded := make([]ole.VARIANT, 0, len(values))
	defer func() {
		for i := range encoded {
			_ = clearVariant(&encoded[i]) // the array has copies
		}
	}()
	for _, value := range values {
		v, err := c.encodeScalar(value, t)
		if err != nil {
			return ole.VARIANT{}, err
		}
		encoded = append(encoded, v)
	}
	return arrayVariant(encoded)
}

func (c *connection) encodeScalar(value any, t cimType) (ole.VARIANT, error) {
	switch x := value.(type) {
	case bool:
		if t == cimBoolean {
			if x {
				return ole.NewVariant(ole.VT_BOOL, 0xffff), nil // VARIANT_TRUE
			}
			return ole.NewVariant(ole.VT_BOOL, 0), nil
		}
	case int64:
		return encodeInteger(x, t)
	case string:
		if t == cimString || t == cimDatetime || t == cimReference {
			return textVariant(x), nil
		}
	case wmi.Object:
		if t == cimString { // Hyper-V takes embedded instances as text
			text, err := c.embed(x)
			if err != nil {
				return ole.VARIANT{}, err
			}
			return textVariant(text), nil
		}
	}
	return ole.VARIANT{}, fmt.Errorf("a %T is no %s", value, typeNames[t])
}

// embed makes the text of an embedded instance. The instance itself stays as it is.
func (c *connection) embed(o wmi.Object) (text string, err error) {
	var instance object
	if o.Path != "" {
		instance, err = c.get(o.Path)
	} else {
		instance, err = c.spawn(o.Class)
	}
	if err != nil {
		return "", err
	}
	defer instance.release()
	if err := c.fill(instance, o.Properties); err != nil {
		return "", err
	}
	return instance.text1()
}

// spawn makes an instance of a class, which exists only here.
func (c *connection) spawn(class string) (object, error) {
	definition, err := c.get(class)
	if hasCode(err, hrNotFound) {
		return object{}, fmt.Errorf("%w: %s", wmi.ErrInvalidClass, class)
	}
	if err != nil {
		return object{}, err
	}
	defer definition.release()
	return definition.call("SpawnInstance_")
}

// fill sets properties of an instance, each by the type that its class declares. An unknown name, or a value that does not fit, is
// wmi.ErrInvalidParameter.
func (c *connection) fill(instance object, values map[string]any) error {
	properties, err := instance.child("Properties_")
	if err != nil {
		return err
	}
	defer properties.release()
	for _, name := range slices.Sorted(maps.Keys(values)) {
		if err := c.set(properties, name, values[name]); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

func (c *connection) set(properties object, name string, value any) error {
	p, err := properties.call("Item", name)
	if hasCode(err, hrNotFound) {
		return fmt.Errorf("%w: there is none of this name", wmi.ErrInvalidParameter)
	}
	if err != nil {
		return err
	}
	defer p.release()
	t, array, err := p.cimType()
	if err != nil {
		return err
	}
	v, err := c.encode(value, t, array)
	if err != nil {
		return refused(err)
	}
	err = errors.Join(p.put("Value", v), clearVariant(&v))
	if hasCode(err, hrTypeMatch, hrOutOfRange, hrDispType, hrDispRange) {
		return refused(err)
	}
	return err
}

// refused marks an error as one of a parameter, unless the service could not be asked.
func refused(err error) error {
	if errors.Is(err, wmi.ErrDisconnected) || errors.Is(err, wmi.ErrAccessDenied) || errors.Is(err, wmi.ErrInvalidParameter) {
		return err
	}
	return fmt.Errorf("%w: %w", wmi.ErrInvalidParameter, err)
}
