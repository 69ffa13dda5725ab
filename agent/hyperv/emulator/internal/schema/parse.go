package schema

import (
	_ "embed"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
)

//go:embed schema.txt
var text string

// Schema is the classes of all namespaces.
type Schema struct {
	classes []*Class
}

// Load returns all classes with all of their members.
var Load = sync.OnceValues(func() (*Schema, error) { return parse(text) })

// At returns what a version of Windows has, by its build number.
func (s *Schema) At(build int) *Schema {
	out := &Schema{}
	for _, c := range s.classes {
		if c.since[""] > build {
			continue
		}
		at := *c
		at.full = c
		at.Properties, at.Methods = maps.Clone(c.Properties), maps.Clone(c.Methods)
		for name, since := range c.since {
			if since > build {
				delete(at.Properties, name)
				delete(at.Methods, name)
			}
		}
		out.classes = append(out.classes, &at)
	}
	return out
}

// HasNamespace says whether the host has a namespace.
func (s *Schema) HasNamespace(namespace string) bool {
	return slices.ContainsFunc(s.classes, func(c *Class) bool { return strings.EqualFold(c.Namespace, namespace) })
}

// Class finds a class of a namespace.
func (s *Schema) Class(namespace, name string) (*Class, bool) {
	for _, c := range s.classes {
		if strings.EqualFold(c.Namespace, namespace) && strings.EqualFold(c.Name, name) {
			return c, true
		}
	}
	return nil, false
}

// Derived returns the classes that are, or derive from, the named one. It is empty when nothing of that name exists.
func (s *Schema) Derived(namespace, name string) []*Class {
	var out []*Class
	for _, c := range s.classes {
		if strings.EqualFold(c.Namespace, namespace) && c.Is(name) {
			out = append(out, c)
		}
	}
	return out
}

func parse(text string) (*Schema, error) {
	s := &Schema{}
	namespace := ""
	var current *Class
	for n, line := range strings.Split(text, "\n") {
		word, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		var err error
		switch {
		case word == "" || strings.HasPrefix(word, "#"):
		case word == "namespace":
			namespace = rest
		case word == "class":
			names := strings.Split(rest, " : ")
			current = &Class{
				Namespace: namespace, Name: names[0], Bases: names[1:], Properties: map[string]Type{}, Methods: map[string]Method{}, since: map[string]int{},
			}
			s.classes = append(s.classes, current)
		case current == nil:
			err = fmt.Errorf("%q stands outside of a class", word)
		case word == "key":
			current.Keys = strings.Fields(rest)
		case word == "association":
			current.Association = true
		case word == "since":
			err = current.addSince(rest)
		case word == "method":
			err = current.addMethod(rest)
		default:
			for _, name := range strings.Fields(rest) {
				current.Properties[name] = Type(word)
			}
		}
		if err != nil {
			return nil, fmt.Errorf("schema.txt line %d: %w", n+1, err)
		}
	}
	return s, nil
}

// addSince notes members, or with none the class itself, that versions before a build lack.
func (c *Class) addSince(words string) error {
	number, members, _ := strings.Cut(words, " ")
	build, err := strconv.Atoi(number)
	if err != nil {
		return err
	}
	if members == "" {
		c.since[""] = build
	}
	for name := range strings.FieldsSeq(members) {
		c.since[name] = build
	}
	return nil
}

func (c *Class) addMethod(declaration string) error {
	name, rest, ok := strings.Cut(strings.TrimSuffix(declaration, ")"), "(")
	if !ok {
		return fmt.Errorf("%q is no method", declaration)
	}
	m := Method{Name: name}
	for p := range strings.SplitSeq(rest, ", ") {
		words := strings.Fields(p)
		if len(words) == 0 {
			continue
		}
		in, out := words[0] != "out", words[0] == "out" || words[0] == "inout"
		if out {
			words = words[1:]
		}
		if len(words) != 2 {
			return fmt.Errorf("%q is no parameter", p)
		}
		t, class, _ := strings.Cut(words[1], ":")
		m.Parameters = append(m.Parameters, Parameter{Name: words[0], Type: Type(t), Class: class, In: in, Out: out})
	}
	c.Methods[name] = m
	return nil
}
