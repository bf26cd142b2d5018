package test_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode"

	"github.com/stretchr/testify/require"
)

// personWordsAtMost bounds the words for persons in the comments of all code but tests: the subject of
// a comment is a thing.
const personWordsAtMost = 15

var personWord = regexp.MustCompile(`(?i)\b(who|whom|whoever|somebody|someone|nobody|everybody|everyone|anybody|anyone)\b`)

// retired are words that the code once had for things that have a common name. They are neither parts of
// names nor words of comments, in any inflection that is listed.
var retired = map[string]string{
	"sprint": "fast path, first attempt", "sprints": "fast path",
	"asker": "caller", "askers": "callers", "wishes": "query, requirements",
	"displaced": "replaced", "displace": "replace",
	"anew": "again, from the start", "tenure": "override, owner",
	"standin": "replacement", "stand-in": "replacement",
	"deserted": "abandoned, stopped", "wellness": "health", "unready": "not ready",
	"unravel": "break the deadlock", "summon": "start", "summons": "starts",
	"recycle": "restart", "recycled": "restarted", "outlast": "wait for", "outlasts": "waits for",
	"downed": "stopped", "verbatim": "unquoted, raw",
	"knot": "deadlock, cycle", "adopt": "wrap", "adopts": "wraps", "maker": "lazy instance, factory",
	"weigh": "apply, score", "recall": "stop", "hadturn": "tried before", "cutshort": "cut early, shortened", "forgivescut": "cuts in a row", "glance": "peek, preview",
}

// definition matches a comment that defines its subject by a question.
var definition = regexp.MustCompile(`^//\s*(\S+) (is|are) (how|what|when|who|whom|why|where)\b`)

// sourceFile is a Go file that is no test.
type sourceFile struct {
	path string
	fset *token.FileSet
	file *ast.File
}

func (s *sourceFile) at(position token.Pos) string {
	return fmt.Sprintf("%s:%d", s.path, s.fset.Position(position).Line)
}

// sourceFiles returns the Go files of all modules but for the tests.
func sourceFiles(t *testing.T) (files []*sourceFile) {
	t.Helper()
	walk(t, func(path string, entry fs.DirEntry) error {
		if entry.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		s := &sourceFile{path: path, fset: token.NewFileSet()}
		var err error
		s.file, err = parser.ParseFile(s.fset, filepath.Join(top, path), nil, parser.ParseComments|parser.SkipObjectResolution)
		require.NoError(t, err)
		if !ast.IsGenerated(s.file) {
			files = append(files, s)
		}
		return nil
	})
	require.NotEmpty(t, files)
	return files
}

// lines calls found for every line of a comment.
func (s *sourceFile) lines(found func(at, line string)) {
	for _, group := range s.file.Comments {
		for _, comment := range group.List {
			for i, line := range strings.Split(comment.Text, "\n") {
				found(fmt.Sprintf("%s:%d", s.path, s.fset.Position(comment.Pos()).Line+i), line)
			}
		}
	}
}

func TestHouse_CommentsAreAboutThings(t *testing.T) {
	t.Parallel()
	var found []string
	for _, s := range sourceFiles(t) {
		s.lines(func(at, line string) {
			for _, word := range personWord.FindAllString(line, -1) {
				found = append(found, at+" "+word)
			}
		})
	}
	t.Logf("%d of %d: %v", len(found), personWordsAtMost, found)
	require.LessOrEqual(t, len(found), personWordsAtMost, "%v", found)
}

func TestHouse_RetiredWordsDoNotReturn(t *testing.T) {
	t.Parallel()
	word := regexp.MustCompile(`[A-Za-z]+(-[A-Za-z]+)*`)
	for _, s := range sourceFiles(t) {
		s.lines(func(at, line string) {
			for _, each := range word.FindAllString(line, -1) {
				if better, banned := retired[strings.ToLower(each)]; banned {
					t.Errorf("%s: %q; say: %s", at, each, better)
				}
			}
		})
		for name := range declared(s.file) {
			parts := camelParts(name.Name)
			for i, part := range parts {
				joined := part
				if i+1 < len(parts) {
					joined += parts[i+1]
				}
				for _, each := range []string{part, joined} {
					if better, banned := retired[each]; banned {
						t.Errorf("%s: %s has %q; say: %s", s.at(name.Pos()), name.Name, each, better)
					}
				}
			}
		}
	}
}

func TestHouse_DocsSayWhatThingsDo(t *testing.T) {
	t.Parallel()
	for _, s := range sourceFiles(t) {
		for _, group := range s.file.Comments {
			first := group.List[0]
			if subject := definition.FindStringSubmatch(first.Text); subject != nil && subject[1] != "which" {
				t.Errorf("%s: %q defines by a question; write what the thing is, holds or reports", s.at(first.Pos()), first.Text)
			}
		}
	}
}

// declared yields every name that a file declares, fields, parameters and variables of functions too.
func declared(file *ast.File) func(yield func(*ast.Ident) bool) {
	return func(yield func(*ast.Ident) bool) {
		all := true
		names := func(idents ...*ast.Ident) {
			for _, ident := range idents {
				all = all && yield(ident)
			}
		}
		ast.Inspect(file, func(node ast.Node) bool {
			switch n := node.(type) {
			case *ast.FuncDecl:
				names(n.Name)
			case *ast.TypeSpec:
				names(n.Name)
			case *ast.ValueSpec:
				names(n.Names...)
			case *ast.Field:
				names(n.Names...)
			case *ast.AssignStmt:
				if n.Tok == token.DEFINE {
					for _, left := range n.Lhs {
						if ident, ok := left.(*ast.Ident); ok {
							names(ident)
						}
					}
				}
			}
			return all
		})
	}
}

// camelParts returns the words of a name, in lower case.
func camelParts(name string) (parts []string) {
	begin := 0
	runes := []rune(name)
	for i := 1; i <= len(runes); i++ {
		if i == len(runes) || unicode.IsUpper(runes[i]) && !unicode.IsUpper(runes[i-1]) {
			parts = append(parts, strings.ToLower(string(runes[begin:i])))
			begin = i
		}
	}
	return parts
}
