package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strings"
)

// class is what the generated code tells of one class itself, without its bases.
type class struct {
	name       string
	base       string
	properties map[string]string // types by name
	methods    map[string][]parameter
}

type parameter struct {
	direction string // "", "out " or "inout "
	name      string
	kind      string
}

// source is the folder of one namespace.
type source struct {
	dir     string
	classes map[string]*class
	named   map[string]string // CIM types of classes and enumerations, by name
}

func (s *source) file(name string) (*ast.File, error) {
	return parser.ParseFile(token.NewFileSet(), filepath.Join(s.dir, name+".go"), nil, parser.ParseComments)
}

// class reads a class.
func (s *source) class(name string) (*class, error) {
	if c := s.classes[name]; c != nil {
		return c, nil
	}
	file, err := s.file(name)
	if err != nil {
		return nil, err
	}
	c := &class{name: name, properties: map[string]string{}, methods: map[string][]parameter{}}
	for _, declaration := range file.Decls {
		switch d := declaration.(type) {
		case *ast.GenDecl:
			if t, ok := d.Specs[0].(*ast.TypeSpec); ok && t.Name.Name == name {
				err = s.fields(c, t.Type.(*ast.StructType))
			}
		case *ast.FuncDecl:
			if method, ok := invoked(d); ok && d.Recv != nil {
				c.methods[method], err = s.parameters(file, d)
			}
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	s.classes[name] = c
	return c, nil
}

// fields reads the properties and the base class, which is embedded.
func (s *source) fields(c *class, t *ast.StructType) error {
	for _, f := range t.Fields.List {
		if len(f.Names) == 0 {
			if base, ok := f.Type.(*ast.StarExpr).X.(*ast.Ident); ok {
				c.base = base.Name
			}
			continue
		}
		kind, err := s.kind(f.Type)
		if err != nil {
			return err
		}
		c.properties[f.Names[0].Name] = kind
	}
	return nil
}

var basic = map[string]string{
	"bool": "bool", "string": "string", "float32": "real32", "float64": "real64", "uint8": "uint8", "uint16": "uint16", "uint32": "uint32", "uint64": "uint64",
	"int8": "int8", "int16": "int16", "int32": "int32", "int64": "int64",
}

// enumeration is the CIM type of most of the types that the generated code counts as an int.
const enumeration = "uint16"

// kind is the CIM type of a Go type. A class is a reference to an instance of it.
func (s *source) kind(t ast.Expr) (string, error) {
	switch t := t.(type) {
	case *ast.ArrayType:
		element, err := s.kind(t.Elt)
		return element + "[]", err
	case *ast.Ident:
		if kind := basic[t.Name]; kind != "" {
			return kind, nil
		}
		return s.namedKind(t.Name)
	}
	return "", fmt.Errorf("a type %T", t)
}

// namedKind is the CIM type of a class or an enumeration.
func (s *source) namedKind(name string) (string, error) {
	if kind := s.named[name]; kind != "" {
		return kind, nil
	}
	file, err := s.file(name)
	if err != nil {
		return "", err
	}
	for _, declaration := range file.Decls {
		d, ok := declaration.(*ast.GenDecl)
		if !ok || d.Tok != token.TYPE {
			continue
		}
		switch t := d.Specs[0].(*ast.TypeSpec).Type.(type) {
		case *ast.StructType:
			s.named[name] = "ref"
		case *ast.Ident:
			s.named[name] = basic[t.Name]
			if t.Name == "int" {
				s.named[name] = enumeration
			}
		}
	}
	if s.named[name] == "" {
		return "", fmt.Errorf("%s is no type", name)
	}
	return s.named[name], nil
}

// invoked tells which method of the class a function calls.
func invoked(f *ast.FuncDecl) (string, bool) {
	name := ""
	ast.Inspect(f, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		target, ok := call.Fun.(*ast.SelectorExpr)
		if !ok || !strings.HasPrefix(target.Sel.Name, "InvokeMethod") {
			return true
		}
		if literal, ok := call.Args[0].(*ast.BasicLit); ok {
			name = strings.Trim(literal.Value, `"`)
		}
		return true
	})
	return name, name != ""
}

// parameters reads a function's parameters, each of which has its direction in a comment before it. The function's own, marked as custom, are none of
// the method's.
func (s *source) parameters(file *ast.File, f *ast.FuncDecl) ([]parameter, error) {
	directions := map[string]string{"IN": "", "OPTIONAL IN": "", "OUT": "out ", "OPTIONAL OUT": "out ", "IN/OUT": "inout ", "OPTIONAL IN/OUT": "inout "}
	var out []parameter
	previous := f.Type.Params.Opening
	for _, field := range f.Type.Params.List {
		for _, comment := range file.Comments {
			if comment.Pos() < previous || comment.End() > field.Pos() {
				continue
			}
			text := strings.Trim(comment.List[0].Text, "/* ")
			if strings.HasPrefix(text, "Cust") { // so misspelt in places
				continue
			}
			direction, ok := directions[text]
			if !ok {
				return nil, fmt.Errorf("%s: a parameter is %q", f.Name.Name, text)
			}
			kind, err := s.kind(field.Type)
			if err != nil {
				return nil, err
			}
			out = append(out, parameter{direction, field.Names[0].Name, kind})
		}
		previous = field.End()
	}
	return out, nil
}
