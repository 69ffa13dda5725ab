package shim

import (
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"
	"unicode/utf16"
)

// VARTYPE is the kind of a value on the wire ([MS-OAUT] 2.2.7).
type VARTYPE uint16

// The kinds that are used. An array has its element's kind with Array added; its data are whole values.
const (
	Empty    VARTYPE = 0
	Null     VARTYPE = 1
	Int16    VARTYPE = 2
	Int32    VARTYPE = 3
	Float32  VARTYPE = 4
	Float64  VARTYPE = 5
	Text     VARTYPE = 8 // BSTR: UTF-16 without an end mark
	Dispatch VARTYPE = 9 // an Object
	Bool     VARTYPE = 11
	Variant  VARTYPE = 12
	Int8     VARTYPE = 16
	Uint8    VARTYPE = 17
	Uint16   VARTYPE = 18
	Uint32   VARTYPE = 19
	Int64    VARTYPE = 20
	Uint64   VARTYPE = 21
	Array    VARTYPE = 0x2000
	Bytes            = Array | Uint8 // data are the bytes themselves
)

// Values are nil (Null), bool, the sized integers and floats, string, []byte, List, Object and Missing, each for the VARTYPE of its name.
type (
	// Object is the number of an object that the server keeps for the process; zero is no object.
	Object uint64
	// List is an array. Items are of the kind Of, or of any when that is Variant.
	List struct {
		Of    VARTYPE
		Items []any
	}
	// Missing is VT_EMPTY: no value at all, which is not the same as null.
	Missing struct{}
)

var errMalformed = errors.New("malformed value")

// numbers are the Go types of the kinds that have one size; their data are the number itself.
var numbers = map[VARTYPE]reflect.Type{
	Bool: reflect.TypeFor[bool](), Int8: reflect.TypeFor[int8](), Uint8: reflect.TypeFor[uint8](), Int16: reflect.TypeFor[int16](),
	Uint16: reflect.TypeFor[uint16](), Int32: reflect.TypeFor[int32](), Uint32: reflect.TypeFor[uint32](), Int64: reflect.TypeFor[int64](),
	Uint64: reflect.TypeFor[uint64](), Float32: reflect.TypeFor[float32](), Float64: reflect.TypeFor[float64](), Dispatch: reflect.TypeFor[Object](),
}

func appendValue(b []byte, v any) ([]byte, error) {
	start := len(b)
	b = append(b, 0, 0, 0, 0, 0, 0)
	le := binary.LittleEndian
	var kind VARTYPE
	var err error
	switch v := v.(type) {
	case nil:
		kind = Null
	case Missing:
		kind = Empty
	case string:
		kind = Text
		for _, unit := range utf16.Encode([]rune(v)) {
			b = le.AppendUint16(b, unit)
		}
	case []byte:
		kind, b = Bytes, append(b, v...)
	case List:
		kind = Array | v.Of
		for _, item := range v.Items {
			if b, err = appendValue(b, item); err != nil {
				return nil, err
			}
		}
	default:
		if kind, b, err = appendNumber(b, v); err != nil {
			return nil, err
		}
	}
	le.PutUint16(b[start:], uint16(kind))
	le.PutUint32(b[start+2:], uint32(len(b)-start-6))
	return b, nil
}

func appendNumber(b []byte, v any) (VARTYPE, []byte, error) {
	for kind, goType := range numbers {
		if goType == reflect.TypeOf(v) {
			out, err := binary.Append(b, binary.LittleEndian, v)
			return kind, out, err
		}
	}
	return 0, nil, fmt.Errorf("%w: a %T cannot be sent", errMalformed, v)
}

// decode reads values up to the end of the data.
func decode(b []byte) ([]any, error) {
	var out []any
	for len(b) > 0 {
		if len(b) < 6 {
			return nil, errMalformed
		}
		kind, size := VARTYPE(binary.LittleEndian.Uint16(b)), uint64(binary.LittleEndian.Uint32(b[2:]))
		if size > uint64(len(b)-6) {
			return nil, errMalformed
		}
		v, err := decodeOne(kind, b[6:6+size])
		if err != nil {
			return nil, err
		}
		out, b = append(out, v), b[6+size:]
	}
	return out, nil
}

func decodeOne(kind VARTYPE, data []byte) (any, error) {
	switch {
	case kind == Bytes:
		return append([]byte{}, data...), nil
	case kind&Array != 0:
		items, err := decode(data)
		return List{Of: kind &^ Array, Items: items}, err
	case kind == Text:
		return decodeText(data)
	case kind == Empty && len(data) == 0:
		return Missing{}, nil
	case kind == Null && len(data) == 0:
		return nil, nil
	}
	goType := numbers[kind]
	if goType == nil || int(goType.Size()) != len(data) {
		return nil, fmt.Errorf("%w: type %d with %d bytes", errMalformed, kind, len(data))
	}
	number := reflect.New(goType)
	_, err := binary.Decode(data, binary.LittleEndian, number.Interface())
	return number.Elem().Interface(), err
}

func decodeText(data []byte) (string, error) {
	if len(data)%2 != 0 {
		return "", fmt.Errorf("%w: text of %d bytes", errMalformed, len(data))
	}
	units := make([]uint16, len(data)/2)
	for i := range units {
		units[i] = binary.LittleEndian.Uint16(data[2*i:])
	}
	return string(utf16.Decode(units)), nil
}
