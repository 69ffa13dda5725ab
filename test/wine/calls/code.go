package main

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Kinds of calls that leave the agent for Windows.
const (
	kindWMI     = "WMI"
	kindVSS     = "VSS"
	kindLibrary = "DLL"
)

// call is one method or function of Windows.
type call struct{ kind, name string }

// invokers are the functions through which all WMI methods are called: with the method's name as a literal, or passed on from their own caller.
var invokers = []string{"callService", "Call", "Invoke"}

// slotPrefix is what the constants are named with that have the places of VSS's methods in their interfaces: it has no other list of them.
const slotPrefix = "slot"

// source is a parsed file.
type source struct {
	*ast.File
	folder string
}

// code is what a folder's Go files can call, tests and the emulated host left out, with the first place of each call.
type code struct {
	positions *token.FileSet
	files     []source
	// libraries are the variables that hold DLLs, by their folder and name. Of these only the ones that shims stand in for are Hyper-V's.
	libraries map[[2]string]string
	shims     []string
	found     map[call]string
}

// callsInCode lists what the Go code below a folder can call of WMI, VSS and the DLLs for which the folder shims has definitions.
func callsInCode(folder, shims string) (map[call]string, error) {
	definitions, err := filepath.Glob(filepath.Join(shims, "*.def"))
	if err != nil {
		return nil, err
	}
	c := &code{positions: token.NewFileSet(), libraries: map[[2]string]string{}, found: map[call]string{}}
	for _, definition := range definitions {
		c.shims = append(c.shims, strings.TrimSuffix(filepath.Base(definition), ".def")+".dll")
	}
	if err := filepath.WalkDir(folder, c.parse); err != nil {
		return nil, err
	}
	for _, file := range c.files {
		ast.Inspect(file.File, func(node ast.Node) bool { c.noteLibraries(file, node); return true })
	}
	for _, file := range c.files {
		var failed error
		ast.Inspect(file.File, func(node ast.Node) bool {
			failed = errors.Join(failed, c.visit(file, node))
			return true
		})
		if failed != nil {
			return nil, failed
		}
	}
	return c.found, nil
}

// parse implements fs.WalkDirFunc.
func (c *code) parse(path string, entry fs.DirEntry, err error) error {
	if err != nil {
		return err
	}
	if entry.IsDir() && (entry.Name() == "emulator" || strings.HasSuffix(entry.Name(), "test")) {
		return filepath.SkipDir
	}
	if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
		return nil
	}
	file, err := parser.ParseFile(c.positions, path, nil, parser.SkipObjectResolution)
	c.files = append(c.files, source{file, filepath.Dir(path)})
	return err
}

// noteLibraries remembers the variables that are declared as NewLazySystemDLL("NAME").
func (c *code) noteLibraries(file source, node ast.Node) {
	declared, ok := node.(*ast.ValueSpec)
	if !ok || len(declared.Values) != len(declared.Names) {
		return
	}
	for i, value := range declared.Values {
		expression, isCall := value.(*ast.CallExpr)
		if !isCall {
			continue
		}
		if callee, _ := calleeOf(expression); callee != "NewLazySystemDLL" || len(expression.Args) != 1 {
			continue
		}
		if name, ok := literal(expression.Args[0]); ok {
			c.libraries[[2]string{file.folder, declared.Names[i].Name}] = name
		}
	}
}

func (c *code) add(kind, name string, at token.Pos) {
	if _, known := c.found[call{kind, name}]; !known {
		c.found[call{kind, name}] = c.positions.Position(at).String()
	}
}

func (c *code) visit(file source, node ast.Node) error {
	switch node := node.(type) {
	case *ast.ValueSpec:
		for _, name := range node.Names {
			if method, isSlot := strings.CutPrefix(name.Name, slotPrefix); isSlot {
				c.add(kindVSS, method, name.Pos())
			}
		}
	case *ast.CallExpr:
		return c.visitCall(file, node)
	}
	return nil
}

func (c *code) visitCall(file source, expression *ast.CallExpr) error {
	callee, receiver := calleeOf(expression)
	disks := importName(file.File, "github.com/Microsoft/go-winio/vhd")
	switch {
	case callee == "Call" && receiver != importName(file.File, "github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"):
	case slices.Contains(invokers, callee):
		name, passedOn := methodOf(expression)
		if name != "" {
			c.add(kindWMI, name, expression.Pos())
		} else if !passedOn {
			return fmt.Errorf("%s: the WMI method is named neither by a literal nor by a parameter called method", c.positions.Position(expression.Pos()))
		}
	case callee == "NewProc" && len(expression.Args) == 1:
		name, ok := literal(expression.Args[0])
		if ok && slices.Contains(c.shims, c.libraries[[2]string{file.folder, receiver}]) {
			c.add(kindLibrary, name, expression.Pos())
		}
	case disks != "" && receiver == disks:
		if exported[callee] == "" {
			return fmt.Errorf("%s: it is not known which function of virtdisk.dll is behind %s", c.positions.Position(expression.Pos()), callee)
		}
		c.add(kindLibrary, exported[callee], expression.Pos())
	}
	return nil
}

// exported names the functions of virtdisk.dll behind those of go-winio.
var exported = map[string]string{
	"OpenVirtualDisk": "OpenVirtualDisk", "OpenVirtualDiskWithParameters": "OpenVirtualDisk", "CreateVirtualDisk": "CreateVirtualDisk",
	"AttachVirtualDisk": "AttachVirtualDisk", "DetachVirtualDisk": "DetachVirtualDisk", "GetVirtualDiskPhysicalPath": "GetVirtualDiskPhysicalPath",
}

// importName is what a file calls an import, "" when it has none such.
func importName(file *ast.File, path string) string {
	for _, spec := range file.Imports {
		if spec.Path.Value != strconv.Quote(path) {
			continue
		}
		if spec.Name != nil {
			return spec.Name.Name
		}
		return filepath.Base(path)
	}
	return ""
}

func calleeOf(expression *ast.CallExpr) (name, receiver string) {
	switch function := expression.Fun.(type) {
	case *ast.Ident:
		return function.Name, ""
	case *ast.SelectorExpr:
		if of, ok := function.X.(*ast.Ident); ok {
			receiver = of.Name
		}
		return function.Sel.Name, receiver
	}
	return "", ""
}

// methodOf finds the name of the WMI method among the arguments: the first text. passedOn says that it is the variable method.
func methodOf(expression *ast.CallExpr) (name string, passedOn bool) {
	for _, argument := range expression.Args {
		if text, ok := literal(argument); ok {
			return text, false
		}
		if variable, ok := argument.(*ast.Ident); ok && variable.Name == "method" {
			passedOn = true
		}
	}
	return "", passedOn
}

func literal(expression ast.Expr) (string, bool) {
	text, ok := expression.(*ast.BasicLit)
	if !ok || text.Kind != token.STRING {
		return "", false
	}
	value, err := strconv.Unquote(text.Value)
	return value, err == nil
}
