package test_test

import (
	"go/ast"
	"testing"

	"github.com/stretchr/testify/require"
)

// The fast path of a call skips what Effects keeps unless Track came first, which its own methods make sure of.
func TestEffects_FlagIsSetInOnePlaceAndNeverCleared(t *testing.T) {
	t.Parallel()
	stores := 0
	for _, file := range parseDir(t, "internal/effects") {
		for _, f := range functionsOf(file) {
			ast.Inspect(f, func(node ast.Node) bool {
				if call, ok := node.(*ast.SelectorExpr); ok && call.Sel.Name == "Store" {
					if of, ok := call.X.(*ast.SelectorExpr); ok && of.Sel.Name == "tracked" {
						stores++
						require.Equal(t, "Track", f.Name.Name)
					}
				}
				return true
			})
		}
	}
	require.Equal(t, 1, stores, "one setter, and nothing that clears it")
}

// Each provider has the one that it was made with.
func TestEffects_NoFunctionOfTheRootMakesItsOwn(t *testing.T) {
	t.Parallel()
	for name, file := range parseDir(t, ".") {
		for _, f := range functionsOf(file) {
			require.False(t, mentions(f, func(like string) bool { return like == "Effects" }), "%s: %s", name, f.Name.Name)
		}
	}
}
