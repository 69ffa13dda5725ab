package main

import (
	"fmt"
	"strings"
)

// overlay is classes.txt.
type overlay struct{ namespaces []*namespace }

// namespace is the classes of one namespace that are wanted, and what the generated code does not tell of them. Facts are about the class that declares
// the property or method, which may be a base class.
type namespace struct {
	name, folder string
	classes      []string
	associations map[string]bool
	keys         map[string][]string // by class
	types        map[string]string   // by CLASS.PROPERTY or CLASS.METHOD.PARAMETER
	since        map[string]string   // build by CLASS or CLASS.MEMBER
	used         map[string]bool     // facts that were of use; the others are mistakes
}

func parseOverlay(text string) (*overlay, error) {
	o := &overlay{}
	for number, line := range strings.Split(text, "\n") {
		words := strings.Fields(line)
		if len(words) == 0 || strings.HasPrefix(words[0], "#") {
			continue
		}
		if words[0] == "namespace" && len(words) == 3 {
			o.namespaces = append(o.namespaces, &namespace{
				name: words[1], folder: words[2], associations: map[string]bool{}, keys: map[string][]string{}, types: map[string]string{},
				since: map[string]string{}, used: map[string]bool{},
			})
			continue
		}
		if len(o.namespaces) == 0 || len(words) < 2 || !o.namespaces[len(o.namespaces)-1].fact(words[0], words[1:]) {
			return nil, fmt.Errorf("line %d: %q is not understood", number+1, line)
		}
	}
	return o, nil
}

func (n *namespace) fact(word string, about []string) bool {
	switch word {
	case "class":
		n.classes = append(n.classes, about...)
	case "association":
		n.classes = append(n.classes, about...)
		for _, name := range about {
			n.associations[name] = true
		}
	case "key":
		n.keys[about[0]] = about[1:]
	case "since":
		for _, member := range about[1:] {
			n.since[member] = about[0]
		}
	case "type":
		for _, member := range about[1:] {
			n.types[member] = about[0]
		}
	default:
		return false
	}
	return true
}

// typed is the type of a member, unless the generated code knows it.
func (n *namespace) typed(kind string, path ...string) string {
	name := strings.Join(path, ".")
	n.used[name] = true
	if known := n.types[name]; known != "" {
		return known
	}
	return kind
}

// unused names the facts that are about nothing.
func (n *namespace) unused() error {
	for name := range n.types {
		if !n.used[name] {
			return fmt.Errorf("namespace %s: type of %s: no such member", n.name, name)
		}
	}
	for name := range n.since {
		if !n.used[name] {
			return fmt.Errorf("namespace %s: since of %s: no such member", n.name, name)
		}
	}
	return nil
}
