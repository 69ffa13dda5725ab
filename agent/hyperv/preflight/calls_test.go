package preflight

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestTheListOfCallsIsWhole reads the code that knows Hyper-V: every property that it reads, every method that it calls and every parameter that it gives
// stands in the list that a preflight compares with a host.
func TestTheListOfCallsIsWhole(t *testing.T) {
	properties, methods := map[string]bool{}, map[string]map[string]bool{}
	for _, uses := range calls {
		for _, u := range uses {
			for _, name := range append(append([]string{}, u.reads...), u.optional...) {
				properties[name] = true
			}
			for name, parameters := range u.methods {
				if methods[name] == nil {
					methods[name] = map[string]bool{}
				}
				for _, p := range parameters {
					methods[name][p] = true
				}
			}
		}
	}
	found := readSource(t)
	if len(found.properties) < 30 || len(found.methods) < 8 {
		t.Fatalf("the code was not understood: %d properties, %d methods", len(found.properties), len(found.methods))
	}
	for name, at := range found.properties {
		if !properties[name] {
			t.Errorf("%s reads the property %s, which is not in calls.go", at, name)
		}
	}
	for name, call := range found.methods {
		if methods[name] == nil {
			t.Errorf("%s calls %s, which is not in calls.go", call.at, name)
			continue
		}
		for _, p := range call.parameters {
			if !methods[name][p] {
				t.Errorf("%s gives %s the parameter %s, which is not in calls.go", call.at, name, p)
			}
		}
	}
}

type call struct {
	at         token.Position
	parameters []string
}

// source is what the code asks of a host.
type source struct {
	files      *token.FileSet
	properties map[string]token.Position
	methods    map[string]call
}

func readSource(t *testing.T) source {
	t.Helper()
	s := source{files: token.NewFileSet(), properties: map[string]token.Position{}, methods: map[string]call{}}
	names, err := filepath.Glob("../*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(s.files, name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if c, ok := n.(*ast.CallExpr); ok {
				s.see(c)
			}
			return true
		})
	}
	return s
}

// readers read one property, which they are given by name; callers call a method, whose name is the argument of this number.
var (
	readers = map[string]bool{
		"text": true, "texts": true, "number": true, "numbers": true, "flag": true, "time": true, "first": true,
		"String": true, "Strings": true, "Int": true, "Ints": true, "Bool": true,
	}
	callers = map[string]int{"callService": 2, "Call": 4}
)

func (s source) see(c *ast.CallExpr) {
	selector, ok := c.Fun.(*ast.SelectorExpr)
	if !ok {
		return
	}
	name := selector.Sel.Name
	if readers[name] && len(c.Args) == 1 {
		if property, ok := literal(c.Args[0]); ok {
			s.properties[property] = s.files.Position(c.Pos())
		}
	}
	at, calls := callers[name]
	if !calls || len(c.Args) != at+2 {
		return
	}
	method, ok := literal(c.Args[at])
	if !ok {
		return
	}
	found := s.methods[method]
	found.at = s.files.Position(c.Pos())
	if params, ok := c.Args[at+1].(*ast.CompositeLit); ok {
		for _, element := range params.Elts {
			if parameter, ok := literal(element.(*ast.KeyValueExpr).Key); ok {
				found.parameters = append(found.parameters, parameter)
			}
		}
	}
	s.methods[method] = found
}

func literal(e ast.Expr) (string, bool) {
	l, ok := e.(*ast.BasicLit)
	if !ok || l.Kind != token.STRING {
		return "", false
	}
	text, err := strconv.Unquote(l.Value)
	return text, err == nil
}
