package wql

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// truth is the three-valued logic of SQL: a comparison with NULL is neither true nor false.
type truth int8

const (
	no truth = iota
	unknown
	yes
)

func of(b bool) truth {
	if b {
		return yes
	}
	return no
}

type expression interface {
	eval(lookup func(string) any) (truth, error)
	properties(names []string) []string
}

type (
	and struct{ left, right expression }
	or  struct{ left, right expression }
	not struct{ e expression }

	isNull struct {
		property string
		negated  bool
	}
	comparison struct {
		property string
		operator string
		value    any
	}
	isa struct{ property, class string }

	// reference is a property in the place of a constant.
	reference string
)

// Object is what a lookup returns for an object that is tested by ISA.
type Object interface{ Is(class string) bool }

func (e and) eval(lookup func(string) any) (truth, error) {
	left, err := e.left.eval(lookup)
	if err != nil || left == no {
		return no, err
	}
	right, err := e.right.eval(lookup)
	return min(left, right), err
}

func (e or) eval(lookup func(string) any) (truth, error) {
	left, err := e.left.eval(lookup)
	if err != nil || left == yes {
		return left, err
	}
	right, err := e.right.eval(lookup)
	return max(left, right), err
}

func (e not) eval(lookup func(string) any) (truth, error) {
	t, err := e.e.eval(lookup)
	return yes - t, err
}

func (e isNull) eval(lookup func(string) any) (truth, error) {
	return of((lookup(e.property) == nil) != e.negated), nil
}

func (e comparison) eval(lookup func(string) any) (truth, error) {
	property := lookup(e.property)
	if property == nil {
		return unknown, nil
	}
	value := e.value
	if name, ok := value.(reference); ok {
		if value = lookup(string(name)); value == nil {
			return unknown, nil
		}
	}
	order, err := compare(property, value)
	if err != nil {
		return no, fmt.Errorf("%s: %w", e.property, err)
	}
	switch e.operator {
	case "=":
		return of(order == 0), nil
	case "<>", "!=":
		return of(order != 0), nil
	case "<":
		return of(order < 0), nil
	case "<=":
		return of(order <= 0), nil
	case ">":
		return of(order > 0), nil
	case ">=":
		return of(order >= 0), nil
	}
	text, ok := property.(string)
	if !ok {
		return no, fmt.Errorf("%s: LIKE needs a text", e.property)
	}
	return of(like([]rune(strings.ToLower(text)), []rune(strings.ToLower(e.value.(string))))), nil
}

func (e isa) eval(lookup func(string) any) (truth, error) {
	switch o := lookup(e.property).(type) {
	case nil:
		return unknown, nil
	case Object:
		return of(o.Is(e.class)), nil
	}
	return no, fmt.Errorf("%s is no object", e.property)
}

// Target returns the class that every instance must have which the query matches, "" when it names none: by that class WMI knows what to watch.
func (q Query) Target(property string) string { return target(q.where, property) }

func target(e expression, property string) string {
	switch x := e.(type) {
	case isa:
		if strings.EqualFold(x.property, property) {
			return x.class
		}
	case and:
		if class := target(x.left, property); class != "" {
			return class
		}
		return target(x.right, property)
	}
	return ""
}

// compare orders two values of one type. Texts are compared without regard to case.
func compare(a, b any) (int, error) {
	switch x := a.(type) {
	case string:
		if y, ok := b.(string); ok {
			return strings.Compare(strings.ToLower(x), strings.ToLower(y)), nil
		}
	case int64:
		if y, ok := b.(int64); ok {
			return cmp.Compare(x, y), nil
		}
	case bool:
		if y, ok := b.(bool); ok {
			if x == y {
				return 0, nil
			}
			return 1, nil
		}
	default:
		return 0, fmt.Errorf("a %T cannot be compared", a)
	}
	return 0, fmt.Errorf("a %T cannot be compared with a %T", a, b)
}

// like matches a pattern in which % is any text, _ any character and [abc], [a-z], [^a] a character of, or not of, a set.
func like(text, pattern []rune) bool {
	for len(pattern) > 0 {
		switch pattern[0] {
		case '%':
			for i := 0; i <= len(text); i++ {
				if like(text[i:], pattern[1:]) {
					return true
				}
			}
			return false
		case '[':
			end := slices.Index(pattern, ']')
			if end < 0 || len(text) == 0 || !inSet(text[0], pattern[1:end]) {
				return false
			}
			text, pattern = text[1:], pattern[end+1:]
		default:
			if len(text) == 0 || pattern[0] != '_' && pattern[0] != text[0] {
				return false
			}
			text, pattern = text[1:], pattern[1:]
		}
	}
	return len(text) == 0
}

func inSet(c rune, set []rune) bool {
	negated := len(set) > 0 && set[0] == '^'
	if negated {
		set = set[1:]
	}
	for i := 0; i < len(set); i++ {
		if i+2 < len(set) && set[i+1] == '-' {
			if set[i] <= c && c <= set[i+2] {
				return !negated
			}
			i += 2
		} else if set[i] == c {
			return !negated
		}
	}
	return negated
}

func (e and) properties(names []string) []string { return e.right.properties(e.left.properties(names)) }
func (e or) properties(names []string) []string  { return e.right.properties(e.left.properties(names)) }
func (e not) properties(names []string) []string { return e.e.properties(names) }

func (e isNull) properties(names []string) []string { return append(names, e.property) }
func (e isa) properties(names []string) []string    { return append(names, e.property) }
func (e comparison) properties(names []string) []string {
	if name, ok := e.value.(reference); ok {
		names = append(names, string(name))
	}
	return append(names, e.property)
}
