package test_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A code that nothing emits misleads those who wait for it; one that is spelled out beside its constant can change alone.
func TestHouse_ReasonsAreEmittedByTheirConstants(t *testing.T) {
	t.Parallel()
	file, err := parser.ParseFile(token.NewFileSet(), "../reason/reason.go", nil, 0)
	require.NoError(t, err)
	texts := make(map[string]string) // by text
	for _, decl := range file.Decls {
		if group, ok := decl.(*ast.GenDecl); ok && group.Tok == token.CONST {
			for _, spec := range group.Specs {
				value := spec.(*ast.ValueSpec) //nolint:forcetypeassert // of a group of constants
				text, err := strconv.Unquote(value.Values[0].(*ast.BasicLit).Value)
				require.NoError(t, err)
				texts[text] = value.Names[0].Name
			}
		}
	}
	used := make(map[string]bool)
	for _, source := range sourceFiles(t) {
		path := strings.TrimPrefix(source.path, "../")
		switch dir, _, _ := strings.Cut(path, "/"); dir {
		case "reason", "examples", "event", "config": // kinds of event and fields of documents have words of their own
			continue
		}
		ast.Inspect(source.file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.SelectorExpr:
				if of, ok := n.X.(*ast.Ident); ok && of.Name == "reason" {
					used[n.Sel.Name] = true
				}
			case *ast.BasicLit:
				text, err := strconv.Unquote(n.Value)
				if name := texts[text]; err == nil && strings.ContainsAny(text, "_ ") {
					require.Empty(t, name, "%s: %q is reason.%s", source.at(n.Pos()), text, name)
				}
			}
			return true
		})
	}
	for text, name := range texts {
		require.True(t, used[name], "nothing emits reason.%s, %q", name, text)
	}
}
