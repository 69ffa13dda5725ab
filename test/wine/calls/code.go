package main

import (
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
	kindLibrary = "DLL"
)

// call is one method or function of Windows.
type call struct{ kind, name string }

// invokers are the functions through which all WMI methods are called: with the method's name as a literal, or passed on from their own caller.
var invokers = []string{"callService", "Call", "Invoke"}

// callsInCode lists what the Go code below a folder can call, tests and the emulated host left out, with the first place of each.
func callsInCode(folder string) (map[call]string, error) {
	found := map[call]string{}
	files := token.NewFileSet()
	err := filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && entry.Name() == "emulator" {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		file, err := parser.ParseFile(files, path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		return callsInFile(files, file, found)
	})
	return found, err
}

func callsInFile(files *token.FileSet, file *ast.File, found map[call]string) (err error) {
	add := func(kind, name string, at token.Pos) {
		if _, known := found[call{kind, name}]; !known {
			found[call{kind, name}] = files.Position(at).String()
		}
	}
	disks := importName(file, "github.com/Microsoft/go-winio/vhd")
	ast.Inspect(file, func(node ast.Node) bool {
		expression, isCall := node.(*ast.CallExpr)
		if !isCall {
			return true
		}
		callee, receiver := calleeOf(expression)
		switch {
		case slices.Contains(invokers, callee):
			name, passedOn := methodOf(expression)
			if name != "" {
				add(kindWMI, name, expression.Pos())
			} else if !passedOn {
				err = fmt.Errorf("%s: the WMI method is named neither by a literal nor by a parameter called method", files.Position(expression.Pos()))
			}
		case callee == "NewProc" && len(expression.Args) == 1:
			if name, ok := literal(expression.Args[0]); ok {
				add(kindLibrary, name, expression.Pos())
			}
		case disks != "" && receiver == disks && exported[callee] != "":
			add(kindLibrary, exported[callee], expression.Pos())
		}
		return true
	})
	return err
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
