package registryotel_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/event"
	"github.com/capreg/registry/health"
	"github.com/capreg/registry/reason"
	"github.com/capreg/registry/status"
	"github.com/capreg/registry/verdict"
)

// The words of attributes are those of the vocabulary: a word that is spelled out here could change alone.
func TestSource_SpellsNoWordOfTheVocabulary(t *testing.T) {
	t.Parallel()
	words := make(map[string]bool)
	for _, kind := range event.Kinds() {
		words[string(kind)] = true
	}
	for _, class := range verdict.Classes() {
		words[class.String()] = true
	}
	for _, code := range reason.Codes() {
		words[string(code)] = true
	}
	for _, why := range reason.Whys() {
		words[string(why)] = true
	}
	for state := range health.Draining + 1 {
		words[state.String()] = true
	}
	for state := range status.BreakerHalfOpen + 1 {
		words[state.String()] = true
	}
	files, err := filepath.Glob("*.go")
	require.NoError(t, err)
	read := 0
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		read++
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		require.NoError(t, err)
		ast.Inspect(file, func(n ast.Node) bool {
			if literal, ok := n.(*ast.BasicLit); ok && literal.Kind == token.STRING {
				text, err := strconv.Unquote(literal.Value)
				require.NoError(t, err)
				require.False(t, words[text], "%s spells %q", name, text)
			}
			return true
		})
	}
	require.Positive(t, read)
}
