//go:build windows

package com

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"unsafe"

	"github.com/go-ole/go-ole"
	"golang.org/x/sys/windows"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

// cimType is WbemCimtypeEnum.
type cimType int32

const (
	cimSint16    cimType = 2
	cimSint32    cimType = 3
	cimReal32    cimType = 4
	cimReal64    cimType = 5
	cimString    cimType = 8
	cimBoolean   cimType = 11
	cimObject    cimType = 13
	cimSint8     cimType = 16
	cimUint8     cimType = 17
	cimUint16    cimType = 18
	cimUint32    cimType = 19
	cimSint64    cimType = 20
	cimUint64    cimType = 21
	cimDatetime  cimType = 101
	cimReference cimType = 102
	cimChar16    cimType = 103
)

// typeNames are the types as wmi.Class has them.
var typeNames = map[cimType]string{
	cimSint8: "int8", cimSint16: "int16", cimSint32: "int32", cimSint64: "int64",
	cimUint8: "uint8", cimUint16: "uint16", cimUint32: "uint32", cimUint64: "uint64", cimChar16: "uint16",
	cimReal32: "real32", cimReal64: "real64", cimBoolean: "bool", cimString: "string", cimDatetime: "datetime", cimReference: "ref", cimObject: "object",
}

// decode converts a variant by the CIM type of its property. The variant stays the caller's.
func decode(v ole.VARIANT, t cimType, array bool) (any, error) {
	if v.VT == ole.VT_NULL || v.VT == ole.VT_EMPTY {
		return nil, nil
	}
	if array {
		return decodeArray(v, t)
	}
	switch t {
	case cimBoolean:
		if v.VT == ole.VT_BOOL {
			return v.Value(), nil
		}
	case cimString, cimDatetime, cimReference:
		if v.VT == ole.VT_BSTR {
			return v.ToString(), nil
		}
	case cimObject:
		if v.VT == ole.VT_DISPATCH {
			return object{v.ToIDispatch()}.xml()
		}
	case cimReal32, cimReal64:
		if v.VT == ole.VT_R4 || v.VT == ole.VT_R8 {
			return fmt.Sprint(v.Value()), nil
		}
	default:
		return decodeInteger(v, t)
	}
	return nil, fmt.Errorf("%w: a variant %#x is no %s", wmi.ErrProperty, v.VT, typeNames[t])
}

// decodeInteger reads an integer, which may have come with the wrong sign or as text.
func decodeInteger(v ole.VARIANT, t cimType) (any, error) {
	var n int64
	switch v.VT {
	case ole.VT_I1, ole.VT_I2, ole.VT_I4, ole.VT_I8, ole.VT_UI1, ole.VT_UI2, ole.VT_UI4, ole.VT_INT, ole.VT_UINT:
		n = v.Val
	case ole.VT_UI8:
		return clamp(uint64(v.Val)), nil
	case ole.VT_BSTR:
		return parseInteger(v.ToString(), t)
	default:
		return nil, fmt.Errorf("%w: a variant %#x is no %s", wmi.ErrProperty, v.VT, typeNames[t])
	}
	switch t {
	case cimSint8:
		return int64(int8(n)), nil
	case cimUint8:
		return int64(uint8(n)), nil
	case cimSint16:
		return int64(int16(n)), nil
	case cimUint16, cimChar16:
		return int64(uint16(n)), nil
	case cimSint32:
		return int64(int32(n)), nil
	case cimUint32:
		return int64(uint32(n)), nil
	case cimSint64, cimUint64:
		return n, nil
	}
	return nil, fmt.Errorf("%w: unknown CIM type %d", wmi.ErrProperty, t)
}

func parseInteger(text string, t cimType) (any, error) {
	if t == cimUint64 {
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", wmi.ErrProperty, err)
		}
		return clamp(n), nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", wmi.ErrProperty, err)
	}
	return n, nil
}

func clamp(n uint64) int64 { return int64(min(n, math.MaxInt64)) }

// decodeArray returns []int64 for integers and booleans, and []string for everything else.
func decodeArray(v ole.VARIANT, t cimType) (any, error) {
	ints, texts := []int64{}, []string{}
	err := elements(v, func(element ole.VARIANT) error {
		value, err := decode(element, t, false)
		switch x := value.(type) {
		case int64:
			ints = append(ints, x)
		case bool:
			n := int64(0)
			if x {
				n = 1
			}
			ints = append(ints, n)
		case string:
			texts = append(texts, x)
		case nil:
			err = errors.Join(err, fmt.Errorf("%w: a NULL within an array", wmi.ErrProperty))
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	switch t {
	case cimString, cimDatetime, cimReference, cimObject, cimReal32, cimReal64:
		return texts, nil
	}
	return ints, nil
}

var (
	oleaut32              = windows.NewLazySystemDLL("oleaut32.dll")
	safeArrayGetElement   = oleaut32.NewProc("SafeArrayGetElement")
	safeArrayPutElement   = oleaut32.NewProc("SafeArrayPutElement")
	safeArrayCreateVector = oleaut32.NewProc("SafeArrayCreateVector")
	errNoArray            = fmt.Errorf("%w: a variant is no array", wmi.ErrProperty)
)

// elements calls f with each element of an array, and frees it afterwards.
func elements(v ole.VARIANT, f func(ole.VARIANT) error) error {
	array := v.ToArray()
	if array == nil || array.Array == nil {
		return errNoArray
	}
	kind, err := array.GetType()
	if err != nil {
		return explain("read an array", err)
	}
	n, err := array.TotalElements(0)
	if err != nil {
		return explain("read an array", err)
	}
	for i := range n {
		element := new(ole.VARIANT)
		target := unsafe.Pointer(element)
		if ole.VT(kind) != ole.VT_VARIANT { // an array of bare values: the variant is made around one
			element.VT, target = ole.VT(kind), unsafe.Pointer(&element.Val)
		}
		hr, _, _ := safeArrayGetElement.Call(uintptr(unsafe.Pointer(array.Array)), uintptr(unsafe.Pointer(&i)), uintptr(target))
		if code := uint32(hr); code != 0 {
			return &Error{Op: "read an array", Code: code}
		}
		if err := errors.Join(f(*element), clearVariant(element)); err != nil {
			return err
		}
	}
	return nil
}

// arrayVariant makes an array of variants, the only one that scripts make and so the one that WMI surely takes. The elements are copied.
func arrayVariant(values []ole.VARIANT) (ole.VARIANT, error) {
	array, _, _ := safeArrayCreateVector.Call(uintptr(ole.VT_VARIANT), 0, uintptr(len(values)))
	if array == 0 {
		return ole.VARIANT{}, errors.New("no memory for an array")
	}
	v := ole.NewVariant(ole.VT_ARRAY|ole.VT_VARIANT, int64(array))
	for i := range values {
		index := int32(i)
		hr, _, _ := safeArrayPutElement.Call(array, uintptr(unsafe.Pointer(&index)), uintptr(unsafe.Pointer(&values[i])))
		if code := uint32(hr); code != 0 {
			return ole.VARIANT{}, errors.Join(&Error{Op: "make an array", Code: code}, clearVariant(&v))
		}
	}
	return v, nil
}

func textVariant(text string) ole.VARIANT {
	return ole.NewVariant(ole.VT_BSTR, int64(uintptr(unsafe.Pointer(ole.SysAllocStringLen(text)))))
}
