package shim

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
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

func appendValue(b []byte, v any) ([]byte, error) {
	start := len(b)
	b = append(b, 0, 0, 0, 0, 0, 0)
	le := binary.LittleEndian
	var kind VARTYPE
	switch v := v.(type) {
	case nil:
		kind = Null
	case Missing:
		kind = Empty
	case bool:
		kind = Bool
		b = append(b, 0)
		if v {
			b[len(b)-1] = 1
		}
	case int8:
		kind, b = Int8, append(b, byte(v))
	case uint8:
		kind, b = Uint8, append(b, v)
	case int16:
		kind, b = Int16, le.AppendUint16(b, uint16(v))
	case uint16:
		kind, b = Uint16, le.AppendUint16(b, v)
	case int32:
		kind, b = Int32, le.AppendUint32(b, uint32(v))
	case uint32:
		kind, b = Uint32, le.AppendUint32(b, v)
	case int64:
		kind, b = Int64, le.AppendUint64(b, uint64(v))
	case uint64:
		kind, b = Uint64, le.AppendUint64(b, v)
	case Object:
		kind, b = Dispatch, le.AppendUint64(b, uint64(v))
	case float32:
		kind, b = Float32, le.AppendUint32(b, math.Float32bits(v))
	case float64:
		kind, b = Float64, le.AppendUint64(b, math.Float64bits(v))
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
			var err error
			if b, err = appendValue(b, item); err != nil {
				return nil, err
			}
		}
	default:
		return nil, fmt.Errorf("%w: a %T cannot be sent", errMalformed, v)
	}
	le.PutUint16(b[start:], uint16(kind))
	le.PutUint32(b[start+2:], uint32(len(b)-start-6))
	return b, nil
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

// widths are the sizes of what has one size.
var widths = map[VARTYPE]int{
	Empty: 0, Null: 0, Bool: 1, Int8: 1, Uint8: 1, Int16: 2, Uint16: 2, Int32: 4, Uint32: 4, Float32: 4, Int64: 8, Uint64: 8, Float64: 8, Dispatch: 8,
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
	}
	if width, known := widths[kind]; !known || width != len(data) {
		return nil, fmt.Errorf("%w: type %d with %d bytes", errMalformed, kind, len(data))
	}
	le := binary.LittleEndian
	switch kind {
	case Empty:
		return Missing{}, nil
	case Bool:
		return data[0] != 0, nil
	case Int8:
		return int8(data[0]), nil
	case Uint8:
		return data[0], nil
	case Int16:
		return int16(le.Uint16(data)), nil
	case Uint16:
		return le.Uint16(data), nil
	case Int32:
		return int32(le.Uint32(data)), nil
	case Uint32:
		return le.Uint32(data), nil
	case Float32:
		return math.Float32frombits(le.Uint32(data)), nil
	case Int64:
		return int64(le.Uint64(data)), nil
	case Uint64:
		return le.Uint64(data), nil
	case Float64:
		return math.Float64frombits(le.Uint64(data)), nil
	case Dispatch:
		return Object(le.Uint64(data)), nil
	}
	return nil, nil // Null
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
