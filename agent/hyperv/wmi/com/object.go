//go:build windows

package com

import (
	"errors"
	"fmt"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

// wmiDTD20 asks GetText_ for CIM DTD 2.0, the form of the embedded instances that Hyper-V reads (wbemObjectTextFormatCIMDTD20).
const wmiDTD20 = 1

// text1 returns the object as XML.
func (o object) text1() (string, error) {
	v, err := o.callValue("GetText_", int32(wmiDTD20))
	if err != nil {
		return "", err
	}
	value, err := decode(v, cimString, false)
	text, _ := value.(string)
	return text, errors.Join(err, clearVariant(&v))
}

// xml returns an embedded object as text; a nil one is NULL.
func (o object) xml() (any, error) {
	if o.IDispatch == nil {
		return nil, nil
	}
	return o.text1()
}

// cimType is the type of a property.
func (o object) cimType() (t cimType, array bool, err error) {
	kind, err := o.get("CIMType")
	if err != nil {
		return 0, false, err
	}
	n, err := decodeInteger(kind, cimSint32)
	if err != nil {
		return 0, false, err
	}
	number, _ := n.(int64)
	flag, err := o.get("IsArray")
	if err != nil {
		return 0, false, err
	}
	isArray, err := decode(flag, cimBoolean, false)
	array, _ = isArray.(bool)
	return cimType(number), array, err
}

// value is the value of a property.
func (o object) value() (any, error) {
	t, array, err := o.cimType()
	if err != nil {
		return nil, err
	}
	v, err := o.get("Value")
	if err != nil {
		return nil, err
	}
	value, err := decode(v, t, array)
	return value, errors.Join(err, clearVariant(&v))
}

// eachProperty calls f with every property.
func (o object) eachProperty(f func(name string, property object) error) error {
	properties, err := o.child("Properties_")
	if err != nil {
		return err
	}
	defer properties.release()
	return properties.each("Properties_", func(p object) error {
		name, err := p.text("Name")
		if err != nil {
			return err
		}
		if err := f(name, p); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		return nil
	})
}

// properties reads all properties.
func (o object) properties() (map[string]any, error) {
	out := map[string]any{}
	err := o.eachProperty(func(name string, p object) (err error) {
		out[name], err = p.value()
		return err
	})
	return out, err
}

// system reads a system property, such as "__CLASS"; "" for NULL.
func (o object) system(name string) (string, error) {
	all, err := o.child("SystemProperties_")
	if err != nil {
		return "", err
	}
	defer all.release()
	p, err := all.call("Item", name)
	if err != nil {
		return "", err
	}
	defer p.release()
	return p.text("Value")
}

// instance reads an instance.
func (o object) instance() (i wmi.Instance, err error) {
	if i.Class, err = o.system("__CLASS"); err != nil {
		return wmi.Instance{}, err
	}
	if i.Path, err = o.system("__PATH"); err != nil {
		return wmi.Instance{}, err
	}
	if i.Path == "" { // an instance within another one knows no host and namespace
		if i.Path, err = o.system("__RELPATH"); err != nil {
			return wmi.Instance{}, err
		}
	}
	if i.Properties, err = o.properties(); err != nil {
		return wmi.Instance{}, fmt.Errorf("%s: %w", i.Class, err)
	}
	return i, nil
}
