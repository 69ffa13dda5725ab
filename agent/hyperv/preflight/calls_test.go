package preflight

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/emulator"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

// TestTheListOfCallsIsWhole reads the code that knows Hyper-V: every property that it reads, every method that it calls and every parameter that it gives
// stands in the list that a preflight compares with a host.
func TestTheListOfCallsIsWhole(t *testing.T) {
	classes, properties, methods := map[string]bool{}, map[string]bool{}, map[string]map[string]bool{}
	for _, uses := range calls {
		for _, u := range uses {
			classes[u.class] = true
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
	if len(found.classes) < 20 || len(found.properties) < 30 || len(found.methods) < 8 {
		t.Fatalf("the code was not understood: %d classes, %d properties, %d methods", len(found.classes), len(found.properties), len(found.methods))
	}
	for name, at := range found.classes {
		if !classes[name] {
			t.Errorf("%s names the class %s, which is not in calls.go", at, name)
		}
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

// kinds are the readers of the agent's code, and the types of properties that they read.
var kinds = map[string]*regexp.Regexp{
	"text": regexp.MustCompile(`^(string|datetime|ref|object)$`), "time": regexp.MustCompile(`^datetime$`),
	"number": regexp.MustCompile(`^u?int\d+$`), "flag": regexp.MustCompile(`^bool$`),
	"texts": regexp.MustCompile(`^(string|ref)\[\]$`), "first": regexp.MustCompile(`^(string|ref)\[\]$`),
	"numbers": regexp.MustCompile(`^u?int\d+\[\]$`),
}

// TestPropertiesAreReadAsWhatTheyAre compares how the code reads a property with its type in the classes that it is read from.
func TestPropertiesAreReadAsWhatTheyAre(t *testing.T) {
	host, err := emulator.Open(t.TempDir(), emulator.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = host.Close() })
	types := map[string]map[string]bool{}
	for namespace, uses := range calls {
		for _, u := range uses {
			class, err := host.Session(namespace).(wmi.Describer).Describe(t.Context(), u.class)
			if errors.Is(err, wmi.ErrInvalidNamespace) || errors.Is(err, wmi.ErrInvalidClass) {
				continue // the emulated host is in no cluster, and does without some classes as the agent does
			}
			for _, name := range slices.Concat(u.reads, u.optional) {
				if types[name] == nil {
					types[name] = map[string]bool{}
				}
				types[name][class.Properties[name]] = true
			}
		}
	}
	read := 0
	for _, r := range readSource(t).reads {
		fits := kinds[r.reader]
		if fits == nil || len(types[r.property]) == 0 {
			continue
		}
		read++
		if !slices.ContainsFunc(slices.Collect(maps.Keys(types[r.property])), fits.MatchString) {
			t.Errorf("%s reads %s as %s, and it is of the types %v", r.at, r.property, r.reader, types[r.property])
		}
	}
	if read < 40 {
		t.Fatalf("the code was not understood: %d properties are read", read)
	}
}

type call struct {
	at         token.Position
	parameters []string
}

// source is what the code asks of a host.
type source struct {
	files      *token.FileSet
	classes    map[string]token.Position
	properties map[string]token.Position
	methods    map[string]call
	reads      []read
}

// read is one place where the code reads a property.
type read struct {
	at               token.Position
	reader, property string
}

func readSource(t *testing.T) *source {
	t.Helper()
	s := &source{files: token.NewFileSet(), classes: map[string]token.Position{}, properties: map[string]token.Position{}, methods: map[string]call{}}
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
			switch n := n.(type) {
			case *ast.CallExpr:
				s.see(n)
			case *ast.CompositeLit:
				s.seeProperties(n)
			case *ast.BasicLit:
				text, _ := literal(n)
				for _, class := range className.FindAllString(text, -1) {
					s.classes[class] = s.files.Position(n.Pos())
				}
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
	callers = map[string]int{"callService": 2, "Call": 4, "Invoke": 2}
	// className is a class of Hyper-V, Windows or the cluster, anywhere in a text.
	className = regexp.MustCompile(`\b(Msvm|Win32|MSCluster)_[A-Za-z]+\b`)
)

func (s *source) see(c *ast.CallExpr) {
	selector, ok := c.Fun.(*ast.SelectorExpr)
	if !ok {
		return
	}
	name := selector.Sel.Name
	if readers[name] && len(c.Args) == 1 {
		if property, ok := literal(c.Args[0]); ok {
			s.properties[property] = s.files.Position(c.Pos())
			s.reads = append(s.reads, read{s.files.Position(c.Pos()), name, property})
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

// seeProperties takes note of the properties that a map[string]any sets in an embedded instance.
func (s *source) seeProperties(c *ast.CompositeLit) {
	if m, ok := c.Type.(*ast.MapType); !ok || len(c.Elts) == 0 {
		return
	} else if value, ok := m.Value.(*ast.Ident); !ok || value.Name != "any" {
		return
	}
	for _, element := range c.Elts {
		if property, ok := literal(element.(*ast.KeyValueExpr).Key); ok {
			s.properties[property] = s.files.Position(element.Pos())
		}
	}
}

func literal(e ast.Expr) (string, bool) {
	l, ok := e.(*ast.BasicLit)
	if !ok || l.Kind != token.STRING {
		return "", false
	}
	text, err := strconv.Unquote(l.Value)
	return text, err == nil
}
