package shim

import (
	"strconv"
	"strings"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/emulator/internal/schema"
)

// typeObject is the type of a property that holds an instance itself, as those of events do.
const typeObject schema.Type = "object"

// cimTypes are WbemCimtypeEnum.
var cimTypes = map[schema.Type]int32{
	"int16": 2, "int32": 3, "string": 8, "bool": 11, typeObject: 13, "int8": 16, "uint8": 17, "uint16": 18, "uint32": 19, "int64": 20,
	"uint64": 21, "datetime": 101, "ref": 102,
}

// element returns the type of a property's values, and whether it is an array.
func element(t schema.Type) (schema.Type, bool) {
	base, array := strings.CutSuffix(string(t), "[]")
	return schema.Type(base), array
}

// toVariant gives a value the form in which automation has it (IWbemClassObject::Get): unsigned integers become signed ones of the same bits,
// 64-bit ones decimal text, arrays such of variants.
func toVariant(t schema.Type, value any) any {
	of, array := element(t)
	if !array {
		return toScalar(of, value)
	}
	out := List{Of: Variant, Items: []any{}}
	switch x := value.(type) {
	case []string:
		for _, s := range x {
			out.Items = append(out.Items, s)
		}
	case []int64:
		for _, n := range x {
			out.Items = append(out.Items, toScalar(of, n))
		}
	default:
		return nil
	}
	return out
}

func toScalar(t schema.Type, value any) any {
	n, ok := value.(int64)
	if !ok {
		return value // text, bool, null
	}
	switch t {
	case "uint8":
		return uint8(n)
	case "int8", "int16":
		return int16(n)
	case "int64", "uint64":
		return strconv.FormatInt(n, 10)
	}
	return int32(n)
}

// fromVariant reads what a program puts into a property. Automation converts little, and nothing silently: a value of another type or beyond its
// range is refused.
func fromVariant(t schema.Type, value any) (any, error) {
	of, array := element(t)
	switch x := value.(type) {
	case nil, Missing:
		return nil, nil
	case List:
		if array {
			return fromList(of, x)
		}
	default:
		if !array {
			return fromScalar(of, value)
		}
	}
	return nil, fail(hrTypeMismatch, "a %T is no %s", value, t)
}

func fromList(t schema.Type, list List) (any, error) {
	texts, numbers := []string{}, []int64{}
	for _, item := range list.Items {
		value, err := fromScalar(t, item)
		if err != nil {
			return nil, err
		}
		switch x := value.(type) {
		case string:
			texts = append(texts, x)
		case int64:
			numbers = append(numbers, x)
		default:
			return nil, fail(hrTypeMismatch, "a %T within an array of %s", item, t)
		}
	}
	if cimTypes[t] == cimTypes["string"] || t == "ref" || t == "datetime" {
		return texts, nil
	}
	return numbers, nil
}

func fromScalar(t schema.Type, value any) (any, error) {
	switch x := value.(type) {
	case bool:
		if t == "bool" {
			return x, nil
		}
	case string:
		switch t {
		case "string", "ref", "datetime":
			if err := t.Check(x); err != nil {
				return nil, fail(hrTypeMismatch, "%v", err)
			}
			return x, nil
		case "int64", "uint64":
			n, err := strconv.ParseInt(x, 10, 64)
			if err != nil {
				return nil, fail(hrTypeMismatch, "%q is no %s", x, t)
			}
			return inRange(t, n)
		}
	case int8, int16, int32, uint8:
		if strings.Contains(string(t), "int") {
			n, _ := integer(x)
			return inRange(t, n)
		}
	}
	return nil, fail(hrTypeMismatch, "a %T is no %s", value, t)
}

func inRange(t schema.Type, n int64) (any, error) {
	if t == "uint32" && n < 0 { // the bits of a large one
		n += 1 << 32
	}
	if t.Check(n) != nil {
		return nil, fail(hrOutOfRange, "%d is no %s", n, t)
	}
	return n, nil
}

// integer returns a value that is an integer of any width.
func integer(value any) (int64, bool) {
	switch x := value.(type) {
	case int8:
		return int64(x), true
	case int16:
		return int64(x), true
	case int32:
		return int64(x), true
	case uint8:
		return int64(x), true
	case uint16:
		return int64(x), true
	case uint32:
		return int64(x), true
	}
	return 0, false
}
