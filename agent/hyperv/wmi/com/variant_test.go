//go:build windows

package com

import (
	"errors"
	"math"
	"reflect"
	"testing"
	"unsafe"

	"github.com/go-ole/go-ole"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

func bits(vt ole.VT, value int64) ole.VARIANT { return ole.NewVariant(vt, value) }

// bareArray makes an array of bare values, which WMI may return although it has never been seen to.
func bareArray(t *testing.T, vt ole.VT, values ...ole.VARIANT) ole.VARIANT {
	t.Helper()
	array, _, _ := safeArrayCreateVector.Call(uintptr(vt), 0, uintptr(len(values)))
	for i := range values {
		index := int32(i)
		data := uintptr(unsafe.Pointer(&values[i].Val))
		if vt == ole.VT_BSTR {
			data = uintptr(values[i].Val)
		}
		if hr, _, _ := safeArrayPutElement.Call(array, uintptr(unsafe.Pointer(&index)), data); hr != 0 {
			t.Fatalf("%#x", hr)
		}
	}
	return ole.NewVariant(ole.VT_ARRAY|vt, int64(array))
}

func array(t *testing.T, values ...ole.VARIANT) ole.VARIANT {
	t.Helper()
	v, err := arrayVariant(values)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestVariantsAreReadByTheirCIMType(t *testing.T) {
	bad := errors.New("refused")
	for name, c := range map[string]struct {
		v     ole.VARIANT
		t     cimType
		array bool
		want  any
	}{
		"NULL":                           {v: bits(ole.VT_NULL, 0), t: cimString, want: nil},
		"empty":                          {v: bits(ole.VT_EMPTY, 0), t: cimUint16, array: true, want: nil},
		"a uint32 with its sign bit":     {v: bits(ole.VT_I4, -1), t: cimUint32, want: int64(math.MaxUint32)},
		"a sint32 with its sign bit":     {v: bits(ole.VT_I4, int64(uint32(math.MaxUint32))), t: cimSint32, want: int64(-1)},
		"a uint16 as 32 bits":            {v: bits(ole.VT_I4, 65535), t: cimUint16, want: int64(65535)},
		"a uint8":                        {v: bits(ole.VT_UI1, 200), t: cimUint8, want: int64(200)},
		"a uint8 with a sign":            {v: bits(ole.VT_I1, -56), t: cimUint8, want: int64(200)},
		"a sint8 as 16 bits":             {v: bits(ole.VT_I2, int64(uint16(math.MaxUint16))), t: cimSint8, want: int64(-1)},
		"a sint16":                       {v: bits(ole.VT_I2, int64(uint16(math.MaxUint16))), t: cimSint16, want: int64(-1)},
		"a char16":                       {v: bits(ole.VT_I2, -1), t: cimChar16, want: int64(65535)},
		"rubbish above the value":        {v: bits(ole.VT_I4, 0x7700000002), t: cimUint32, want: int64(2)},
		"a uint64 as text":               {v: textVariant("9223372036854775807"), t: cimUint64, want: int64(math.MaxInt64)},
		"a uint64 beyond int64":          {v: textVariant("18446744073709551615"), t: cimUint64, want: int64(math.MaxInt64)},
		"a uint64 as a number":           {v: bits(ole.VT_UI8, -1), t: cimUint64, want: int64(math.MaxInt64)},
		"a sint64 as text":               {v: textVariant("-5"), t: cimSint64, want: int64(-5)},
		"a sint64 as a number":           {v: bits(ole.VT_I8, -5), t: cimSint64, want: int64(-5)},
		"true":                           {v: bits(ole.VT_BOOL, 0xffff), t: cimBoolean, want: true},
		"false, with rubbish above":      {v: bits(ole.VT_BOOL, 0x770000), t: cimBoolean, want: false},
		"text":                           {v: textVariant("a\x00b漢🙂"), t: cimString, want: "a\x00b漢🙂"},
		"a datetime":                     {v: textVariant("20260101000000.000000+000"), t: cimDatetime, want: "20260101000000.000000+000"},
		"a real":                         {v: bits(ole.VT_R8, int64(math.Float64bits(1.5))), t: cimReal64, want: "1.5"},
		"no object":                      {v: bits(ole.VT_DISPATCH, 0), t: cimObject, want: nil},
		"an array of variants":           {v: array(t, bits(ole.VT_I4, 1), bits(ole.VT_I4, -1)), t: cimUint32, array: true, want: []int64{1, math.MaxUint32}},
		"an array of uint64":             {v: array(t, textVariant("1"), textVariant("2")), t: cimUint64, array: true, want: []int64{1, 2}},
		"an array of texts":              {v: array(t, textVariant(""), textVariant("x")), t: cimString, array: true, want: []string{"", "x"}},
		"an array of booleans":           {v: array(t, bits(ole.VT_BOOL, 0xffff), bits(ole.VT_BOOL, 0)), t: cimBoolean, array: true, want: []int64{1, 0}},
		"an array of nothing":            {v: array(t), t: cimReference, array: true, want: []string{}},
		"an array of no numbers":         {v: array(t), t: cimUint16, array: true, want: []int64{}},
		"a bare array of integers":       {v: bareArray(t, ole.VT_I4, bits(ole.VT_I4, -1)), t: cimUint32, array: true, want: []int64{math.MaxUint32}},
		"a bare array of texts":          {v: bareArray(t, ole.VT_BSTR, textVariant("x")), t: cimString, array: true, want: []string{"x"}},
		"a bare array of booleans":       {v: bareArray(t, ole.VT_BOOL, bits(ole.VT_BOOL, 0xffff)), t: cimBoolean, array: true, want: []int64{1}},
		"an array with a NULL in it":     {v: array(t, bits(ole.VT_NULL, 0)), t: cimUint32, array: true, want: bad},
		"an array that is none":          {v: bits(ole.VT_I4, 1), t: cimUint32, array: true, want: bad},
		"an integer that is text":        {v: textVariant("x"), t: cimUint64, want: bad},
		"an integer that is no number":   {v: bits(ole.VT_BOOL, 0), t: cimUint16, want: bad},
		"text that is a number":          {v: bits(ole.VT_I4, 1), t: cimString, want: bad},
		"an object that is text":         {v: textVariant("x"), t: cimObject, want: bad},
		"a boolean that is a number":     {v: bits(ole.VT_I4, 1), t: cimBoolean, want: bad},
		"a type that there is not":       {v: bits(ole.VT_I4, 1), t: 99, want: bad},
		"one where there should be more": {v: array(t, bits(ole.VT_I4, 1)), t: cimUint32, want: bad},
	} {
		got, err := decode(c.v, c.t, c.array)
		if errors.Is(err, wmi.ErrProperty) {
			got = bad
		} else if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s is %T %v", name, got, got)
		}
		if err := clearVariant(&c.v); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestWrittenVariantsAreReadAgain shows too that each is of the kind that WMI itself would return.
func TestWrittenVariantsAreReadAgain(t *testing.T) {
	for name, c := range map[string]struct {
		value any
		t     cimType
		array bool
		kind  ole.VT
	}{
		"text":               {value: "a\x00b漢🙂", t: cimString, kind: ole.VT_BSTR},
		"a reference":        {value: `\\.\root\cimv2:X.Y="z"`, t: cimReference, kind: ole.VT_BSTR},
		"true":               {value: true, t: cimBoolean, kind: ole.VT_BOOL},
		"false":              {value: false, t: cimBoolean, kind: ole.VT_BOOL},
		"a uint8":            {value: int64(200), t: cimUint8, kind: ole.VT_UI1},
		"a sint8":            {value: int64(-1), t: cimSint8, kind: ole.VT_I2},
		"a sint16":           {value: int64(-1), t: cimSint16, kind: ole.VT_I2},
		"a uint16":           {value: int64(65535), t: cimUint16, kind: ole.VT_I4},
		"a sint32":           {value: int64(-1), t: cimSint32, kind: ole.VT_I4},
		"a large uint32":     {value: int64(math.MaxUint32), t: cimUint32, kind: ole.VT_I4},
		"a uint64":           {value: int64(math.MaxInt64), t: cimUint64, kind: ole.VT_BSTR},
		"a sint64":           {value: int64(math.MinInt64), t: cimSint64, kind: ole.VT_BSTR},
		"NULL":               {value: nil, t: cimUint64, kind: ole.VT_NULL},
		"texts":              {value: []string{"", "x"}, t: cimString, array: true, kind: ole.VT_ARRAY | ole.VT_VARIANT},
		"no texts":           {value: []string{}, t: cimString, array: true, kind: ole.VT_ARRAY | ole.VT_VARIANT},
		"large uint32s":      {value: []int64{0, math.MaxUint32}, t: cimUint32, array: true, kind: ole.VT_ARRAY | ole.VT_VARIANT},
		"uint64s":            {value: []int64{math.MaxInt64}, t: cimUint64, array: true, kind: ole.VT_ARRAY | ole.VT_VARIANT},
		"a list that is nil": {value: nil, t: cimString, array: true, kind: ole.VT_NULL},
	} {
		v, err := (&connection{}).encode(c.value, c.t, c.array)
		if err != nil || v.VT != c.kind {
			t.Errorf("%s is a variant %#x: %v", name, v.VT, err)
			continue
		}
		if got, err := decode(v, c.t, c.array); err != nil || !reflect.DeepEqual(got, c.value) {
			t.Errorf("%s became %T %v, %v", name, got, got, err)
		}
		if err := clearVariant(&v); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, c := range map[string]struct {
		value any
		t     cimType
		array bool
	}{
		"a list for one": {value: []string{"x"}, t: cimString}, "one for a list": {value: "x", t: cimString, array: true},
		"text for a number": {value: "1", t: cimUint16}, "a number for text": {value: int64(1), t: cimString}, "a number for a bool": {value: int64(1), t: cimBoolean},
		"too large": {value: int64(1 << 16), t: cimUint16}, "below zero": {value: int64(-1), t: cimUint64}, "too large in a list": {value: []int64{1, 256}, t: cimUint8, array: true},
		"another kind of number": {value: 1, t: cimUint16}, "a float": {value: 1.5, t: cimReal64},
	} {
		if v, err := (&connection{}).encode(c.value, c.t, c.array); err == nil {
			t.Errorf("%s became a variant %#x", name, v.VT)
		}
	}
}
