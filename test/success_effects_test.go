package test_test

import (
	"go/ast"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// The fast path of a call skips what successEffects keeps unless trackSuccess came first, which only its own
// methods make sure of.
func TestSuccessEffects_FieldsAreUsedByTheirMethodsOnly(t *testing.T) {
	t.Parallel()
	files := parseDir(t, ".")
	fields := fieldsOf(files[filepath.Join(top, "success_effects.go")], "successEffects")
	require.Contains(t, fields, "tracked")
	stores := 0
	for name, file := range files {
		ast.Inspect(file, func(node ast.Node) bool {
			selected, ok := node.(*ast.SelectorExpr)
			if !ok || !fields[selected.Sel.Name] {
				return true
			}
			if of, ok := selected.X.(*ast.SelectorExpr); ok && of.Sel.Name == "effects" {
				t.Errorf("%s uses the field %s", name, selected.Sel.Name)
			}
			return true
		})
		for _, f := range functionsOf(file) {
			if mentions(f, func(like string) bool { return like == "successEffects" }) {
				t.Errorf("%s: %s makes or names a successEffects of its own", name, f.Name.Name)
			}
			ast.Inspect(f, func(node ast.Node) bool {
				if call, ok := node.(*ast.SelectorExpr); ok && call.Sel.Name == "Store" {
					if of, ok := call.X.(*ast.SelectorExpr); ok && of.Sel.Name == "tracked" {
						stores++
						require.Equal(t, "trackSuccess", f.Name.Name)
					}
				}
				return true
			})
		}
	}
	require.Equal(t, 1, stores, "one setter, and nothing that clears it")
}

// fieldsOf returns the names of the fields of a struct.
func fieldsOf(file *ast.File, name string) map[string]bool {
	fields := make(map[string]bool)
	ast.Inspect(file, func(node ast.Node) bool {
		spec, ok := node.(*ast.TypeSpec)
		if !ok || spec.Name.Name != name {
			return true
		}
		structure, ok := spec.Type.(*ast.StructType)
		if !ok {
			return true
		}
		for _, field := range structure.Fields.List {
			for _, named := range field.Names {
				fields[named.Name] = true
			}
		}
		return false
	})
	return fields
}
