//go:build windows

package com

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"unsafe"

	"github.com/go-ole/go-ole"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

// object is an automation object. Whoever holds one owns a reference, and releases it.
type object struct{ *ole.IDispatch }

func (o object) release() {
	if o.IDispatch != nil {
		o.Release()
	}
}

// dispatchParams is DISPPARAMS, and exception EXCEPINFO (oaidl.h).
type (
	dispatchParams struct {
		arguments     *ole.VARIANT
		named         *int32
		argumentCount uint32
		namedCount    uint32
	}
	exception struct {
		_           uint32
		source      *uint16
		description *uint16
		helpFile    *uint16
		_           uint32
		_           uintptr
		_           uintptr
		code        uint32
	}
)

// invocation is everything that one call hands to COM. It lies on the heap as a whole: the library keeps the id of a property put on the stack as a bare
// number, where it is lost when the stack grows.
type invocation struct {
	params    dispatchParams
	named     int32
	arguments []ole.VARIANT
	result    ole.VARIANT
	exception exception
}

var nullIID ole.GUID // IID_NULL

// invoke calls a member by name. The arguments stay the caller's; the result is the caller's to clear.
func (o object) invoke(kind int16, name string, arguments ...ole.VARIANT) (ole.VARIANT, error) {
	op := name
	if o.IDispatch == nil {
		return ole.VARIANT{}, fmt.Errorf("%s: %w: there is no object", op, wmi.ErrProperty)
	}
	id, err := o.GetSingleIDOfName(name)
	if err != nil {
		return ole.VARIANT{}, explain(op, err)
	}
	call := &invocation{arguments: make([]ole.VARIANT, len(arguments)), named: ole.DISPID_PROPERTYPUT}
	for i, argument := range arguments {
		call.arguments[len(arguments)-1-i] = argument // the last one comes first
	}
	if len(arguments) > 0 {
		call.params.arguments, call.params.argumentCount = &call.arguments[0], uint32(len(arguments))
	}
	if kind == ole.DISPATCH_PROPERTYPUT {
		call.params.named, call.params.namedCount = &call.named, 1
	}
	hr, _, _ := syscall.SyscallN(o.VTable().Invoke, uintptr(unsafe.Pointer(o.IDispatch)), uintptr(id), uintptr(unsafe.Pointer(&nullIID)),
		uintptr(ole.GetUserDefaultLCID()), uintptr(kind), uintptr(unsafe.Pointer(&call.params)), uintptr(unsafe.Pointer(&call.result)),
		uintptr(unsafe.Pointer(&call.exception)), 0)
	if code := uint32(hr); code != 0 {
		return ole.VARIANT{}, call.exception.explain(op, code)
	}
	return call.result, nil
}

// explain frees what the exception holds.
func (e *exception) explain(op string, code uint32) error {
	out := &Error{Op: op, Code: code}
	if e.description != nil {
		out.Text = strings.TrimRight(ole.BstrToString(e.description), ". \r\n")
	}
	if code == hrException && e.code != 0 {
		out.Code = e.code
	}
	for _, text := range []*uint16{e.source, e.description, e.helpFile} {
		_ = ole.SysFreeString((*int16)(unsafe.Pointer(text))) // it knows no failure
	}
	return out
}

func (o object) get(name string) (ole.VARIANT, error) {
	return o.invoke(ole.DISPATCH_PROPERTYGET, name)
}

func (o object) put(name string, value ole.VARIANT) error {
	result, err := o.invoke(ole.DISPATCH_PROPERTYPUT, name, value)
	return errors.Join(err, clearVariant(&result))
}

// text reads a member that is a text, "" for NULL.
func (o object) text(name string) (string, error) {
	v, err := o.get(name)
	if err != nil {
		return "", err
	}
	value, err := decode(v, cimString, false)
	text, _ := value.(string)
	return text, errors.Join(err, clearVariant(&v))
}

// child reads a member that is an object. It may be a nil one: methods without parameters have such.
func (o object) child(name string) (object, error) { return asObject(o.get(name)) }

// call calls a method with texts, or objects, that returns an object.
func (o object) call(name string, arguments ...any) (object, error) {
	return asObject(o.callValue(name, arguments...))
}

func (o object) callValue(name string, arguments ...any) (ole.VARIANT, error) {
	encoded := make([]ole.VARIANT, 0, len(arguments))
	for _, a := range arguments {
		switch x := a.(type) {
		case string:
			v := textVariant(x)
			defer clearVariant(&v) //nolint:errcheck // a text can always be freed
			encoded = append(encoded, v)
		case int32:
			encoded = append(encoded, ole.NewVariant(ole.VT_I4, int64(x)))
		case object:
			encoded = append(encoded, ole.NewVariant(ole.VT_DISPATCH, int64(uintptr(unsafe.Pointer(x.IDispatch)))))
		default:
			return ole.VARIANT{}, fmt.Errorf("%s: %w: a %T is no argument", name, wmi.ErrInvalidParameter, a)
		}
	}
	return o.invoke(ole.DISPATCH_METHOD, name, encoded...)
}

func asObject(v ole.VARIANT, err error) (object, error) {
	if err != nil {
		return object{}, err
	}
	switch v.VT {
	case ole.VT_DISPATCH:
		return object{v.ToIDispatch()}, nil
	case ole.VT_NULL, ole.VT_EMPTY:
		return object{}, nil
	}
	return object{}, errors.Join(fmt.Errorf("%w: a variant %#x is no object", wmi.ErrProperty, v.VT), clearVariant(&v))
}

// each calls f with every object of a collection, which it releases afterwards. WMI tells most errors of queries only here.
func (o object) each(op string, f func(object) error) error {
	v, err := o.get("_NewEnum")
	if err != nil {
		return err
	}
	defer clearVariant(&v) //nolint:errcheck // it holds an interface
	unknown := v.ToIUnknown()
	if unknown == nil {
		return fmt.Errorf("%s: %w: a collection without an enumeration", op, wmi.ErrProperty)
	}
	items, err := unknown.IEnumVARIANT(ole.IID_IEnumVariant)
	if err != nil {
		return explain(op, err)
	}
	defer items.Release()
	for {
		item, n, err := items.Next(1)
		if n == 0 {
			if err = explain(op, err); hasCode(err, hrFalse) {
				return nil
			}
			return err
		}
		element, err := asObject(item, nil)
		if err == nil {
			err = f(element)
		}
		element.release()
		if err != nil {
			return err
		}
	}
}

// clearVariant frees what a variant holds.
func clearVariant(v *ole.VARIANT) error { return explain("free a variant", ole.VariantClear(v)) }
