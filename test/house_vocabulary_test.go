package test_test

import (
	"encoding"
	"go/ast"
	"go/parser"
	"go/token"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/event"
	"github.com/capreg/registry/health"
	"github.com/capreg/registry/reason"
	"github.com/capreg/registry/startup"
	"github.com/capreg/registry/status"
	"github.com/capreg/registry/verdict"
)

// constants returns the texts of the string constants of a file.
func constants(t *testing.T, path string) (texts []string) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
	require.NoError(t, err)
	for _, decl := range file.Decls {
		group, ok := decl.(*ast.GenDecl)
		if !ok || group.Tok != token.CONST {
			continue
		}
		for _, spec := range group.Specs {
			value := spec.(*ast.ValueSpec) //nolint:forcetypeassert // of a group of constants
			text, err := strconv.Unquote(value.Values[0].(*ast.BasicLit).Value)
			require.NoError(t, err)
			texts = append(texts, text)
		}
	}
	return texts
}

// Adapters go through these lists: what is in none of them would be shown by none.
func TestHouse_ListsOfWordsHaveAllConstants(t *testing.T) {
	t.Parallel()
	var kinds, reasons []string
	for _, kind := range event.Kinds() {
		kinds = append(kinds, string(kind))
	}
	for _, code := range reason.Codes() {
		reasons = append(reasons, string(code))
	}
	for _, why := range reason.Whys() {
		reasons = append(reasons, string(why))
	}
	require.ElementsMatch(t, constants(t, "../event/event.go"), kinds)
	require.ElementsMatch(t, constants(t, "../reason/reason.go"), reasons)
}

// names returns the names of an enumeration.
func names[T interface {
	~uint8
	encoding.TextMarshaler
}]() (all []string) {
	for value := T(0); ; value++ {
		name, err := value.MarshalText()
		if err != nil {
			return all
		}
		all = append(all, string(name))
	}
}

// shownWords returns every word that adapters show, with the packages that have it.
func shownWords() map[string]string {
	of := make(map[string]string)
	for place, words := range map[string][]string{
		"verdict": names[verdict.Class](), "health": names[health.State](), "startup": names[startup.State](), "status": names[status.BreakerState](),
	} {
		for _, word := range words {
			of[word] += place + " "
		}
	}
	for _, kind := range event.Kinds() {
		of[string(kind)] += "event "
	}
	for _, code := range reason.Codes() {
		of[string(code)] += "reason "
	}
	for _, why := range reason.Whys() {
		of[string(why)] += "reason "
	}
	return of
}

// A word that is spelled beside its package can change alone. Adapters spell none at all; elsewhere short words mean other
// things as well.
func TestHouse_WordsAreSpelledByTheirPackagesAlone(t *testing.T) {
	t.Parallel()
	words := shownWords()
	allowed := map[string]string{ // words that mean something else there
		"setting.go": "attempt timeout", "internal/fault/sentinels.go": "attempt timeout",
	}
	for _, source := range sourceFiles(t) {
		path := strings.TrimPrefix(source.path, "../")
		dir, _, _ := strings.Cut(path, "/")
		adapter := strings.HasPrefix(path, "contrib/prometheus/") || strings.HasPrefix(path, "contrib/otel/")
		if dir == "examples" || dir == "benchmarks" || dir == "config" || strings.HasPrefix(path, "internal/sdktest/") || strings.HasPrefix(path, "internal/prooftest/") {
			continue // programs, tests, and fields of documents
		}
		ast.Inspect(source.file, func(n ast.Node) bool {
			literal, ok := n.(*ast.BasicLit)
			if !ok || literal.Kind != token.STRING {
				return true
			}
			text, err := strconv.Unquote(literal.Value)
			require.NoError(t, err)
			of := words[text]
			if of == "" || strings.Contains(of, dir+" ") || allowed[path] == text || !adapter && !strings.ContainsAny(text, "_ ") {
				return true
			}
			require.Fail(t, "spelled again", "%s: %q is a word of %s", source.at(n.Pos()), text, of)
			return true
		})
	}
}
