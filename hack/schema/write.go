package main

import (
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strings"
)

// build23H2 is Windows Server, version 23H2. What it has more than Windows Server 2019 counts as new in it, though 2022 may have had some of it.
const build23H2 = "25398"

// flat is a class with all that it inherits.
type flat struct {
	name       string
	bases      []string
	keys       []string
	properties map[string]string
	methods    map[string][]parameter
	since      map[string]string // build by member; "" is the class
}

func (n *namespace) write(out io.Writer, dir string) error {
	fmt.Fprintf(out, "\nnamespace %s\n", n.name)
	older := &source{dir: filepath.Join(dir, "server2019", n.folder), classes: map[string]*class{}, named: map[string]string{}}
	newer := &source{dir: filepath.Join(dir, "server23h2", n.folder), classes: map[string]*class{}, named: map[string]string{}}
	for _, name := range n.classes {
		f, err := n.flatten(older, name)
		if err != nil {
			return err
		}
		later, err := n.flatten(newer, name)
		if err != nil {
			return err
		}
		f.add(later)
		f.write(out, n.associations[name])
	}
	return n.unused()
}

// flatten reads a class and its bases.
func (n *namespace) flatten(s *source, name string) (*flat, error) {
	f := &flat{name: name, properties: map[string]string{}, methods: map[string][]parameter{}, since: map[string]string{}}
	for next := name; next != ""; {
		c, err := s.class(next)
		if err != nil {
			return nil, err
		}
		if next != name {
			f.bases = append(f.bases, next)
		}
		if f.keys == nil {
			f.keys = n.keys[next]
		}
		n.take(f, c)
		next = c.base
	}
	return f, nil
}

// take adds what one class declares, unless a derived one has declared it anew.
func (n *namespace) take(f *flat, c *class) {
	n.used[c.name] = true
	if build := n.since[c.name]; build != "" && c.name == f.name {
		f.since[""] = build
	}
	for member, kind := range c.properties {
		kind = n.typed(kind, c.name, member)
		if _, declared := f.properties[member]; declared {
			continue
		}
		f.properties[member] = kind
		if build := n.since[c.name+"."+member]; build != "" {
			f.since[member] = build
		}
	}
	for member, parameters := range c.methods {
		parameters = slices.Clone(parameters)
		for i, p := range parameters {
			parameters[i].kind = n.typed(p.kind, c.name, member, p.name)
		}
		n.used[c.name+"."+member] = true
		if _, declared := f.methods[member]; declared {
			continue
		}
		f.methods[member] = parameters
		if build := n.since[c.name+"."+member]; build != "" {
			f.since[member] = build
		}
	}
}

// add takes over what only a later version has.
func (f *flat) add(later *flat) {
	for member, kind := range later.properties {
		if _, known := f.properties[member]; !known {
			f.properties[member], f.since[member] = kind, build23H2
		}
	}
	for member, parameters := range later.methods {
		if _, known := f.methods[member]; !known {
			f.methods[member], f.since[member] = parameters, build23H2
		}
	}
}

func (f *flat) write(out io.Writer, association bool) {
	fmt.Fprintf(out, "\nclass %s\n", strings.Join(append([]string{f.name}, f.bases...), " : "))
	if len(f.keys) > 0 {
		fmt.Fprintf(out, "  key %s\n", strings.Join(f.keys, " "))
	}
	if association {
		fmt.Fprintln(out, "  association")
	}
	if build := f.since[""]; build != "" {
		fmt.Fprintf(out, "  since %s\n", build)
		delete(f.since, "")
	}
	lines(out, f.properties)
	for _, member := range slices.Sorted(maps.Keys(f.methods)) {
		var parameters []string
		for _, p := range f.methods[member] {
			parameters = append(parameters, p.direction+p.name+" "+p.kind)
		}
		fmt.Fprintf(out, "  method %s(%s)\n", member, strings.Join(parameters, ", "))
	}
	since := map[string]string{}
	for member, build := range f.since {
		since[member] = "since " + build
	}
	lines(out, since)
}

// lines writes names behind the word that they have in common.
func lines(out io.Writer, words map[string]string) {
	const width = 150
	groups := map[string][]string{}
	for _, name := range slices.Sorted(maps.Keys(words)) {
		groups[words[name]] = append(groups[words[name]], name)
	}
	for _, word := range slices.Sorted(maps.Keys(groups)) {
		line := "  " + word
		for _, name := range groups[word] {
			if len(line)+len(name) > width {
				fmt.Fprintln(out, line)
				line = "  " + word
			}
			line += " " + name
		}
		fmt.Fprintln(out, line)
	}
}
