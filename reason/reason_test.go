package reason_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/reason"
)

// declared returns the constants of a type, in the order of the file.
func declared(t *testing.T, of string) (values []string) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "reason.go", nil, 0)
	require.NoError(t, err)
	for _, decl := range file.Decls {
		group, ok := decl.(*ast.GenDecl)
		if !ok || group.Tok != token.CONST {
			continue
		}
		for _, spec := range group.Specs {
			value := spec.(*ast.ValueSpec) //nolint:forcetypeassert // of a group of constants
			if typed, ok := value.Type.(*ast.Ident); !ok || typed.Name != of {
				continue
			}
			text, err := strconv.Unquote(value.Values[0].(*ast.BasicLit).Value) //nolint:forcetypeassert // the test fails
			require.NoError(t, err)
			values = append(values, text)
		}
	}
	return values
}

func TestCodes_ListsEveryConstantOnce(t *testing.T) {
	t.Parallel()
	codes := make([]string, 0, len(reason.Codes()))
	for _, code := range reason.Codes() {
		codes = append(codes, string(code))
	}
	require.Equal(t, declared(t, "Code"), codes)
}

func TestWhys_ListsEveryConstantOnce(t *testing.T) {
	t.Parallel()
	whys := make([]string, 0, len(reason.Whys()))
	for _, why := range reason.Whys() {
		whys = append(whys, string(why))
	}
	require.Equal(t, declared(t, "Why"), whys)
}
