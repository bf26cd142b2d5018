package test_test

import (
	"cmp"
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const (
	top             = ".." // of the repository
	modulePath      = "github.com/capreg/registry"
	toolsModuleFile = "tools/go.mod"
)

// exportedAtMost bounds the exported names of packages whose names are a budget.
var exportedAtMost = map[string]int{".": 70, "selection": 22}

func TestHouse_PackagesStayWithinTheirBudgetOfExportedNames(t *testing.T) {
	t.Parallel()
	for dir, most := range exportedAtMost {
		names := exportedNames(t, dir)
		t.Logf("%s has %d of %d names: %s", dir, len(names), most, strings.Join(names, " "))
		require.LessOrEqual(t, len(names), most, "%s: %v", dir, names)
	}
}

func TestHouse_EveryExportedSymbolIsDocumented(t *testing.T) {
	t.Parallel()
	for _, dir := range packageDirs(t) {
		for name, file := range parseDir(t, dir) {
			require.Empty(t, undocumented(file), "%s: exported symbols without a comment", name)
		}
	}
}

func TestHouse_EveryModuleIsInWorkspaceAndReplacesRoot(t *testing.T) {
	t.Parallel()
	work := goEdit(t, "work", "go.work")
	for _, file := range modFiles(t) {
		if file == toolsModuleFile {
			continue
		}
		dir := filepath.ToSlash(filepath.Dir(file))
		require.True(t, slices.ContainsFunc(work.Use, func(use struct{ DiskPath string }) bool {
			return filepath.ToSlash(filepath.Clean(use.DiskPath)) == dir
		}), "%s is not in go.work", file)
		if dir == "." {
			continue
		}
		want, err := filepath.Rel(dir, ".")
		require.NoError(t, err)
		require.True(t, slices.ContainsFunc(goEdit(t, "mod", file).Replace, func(r replacement) bool {
			return r.Old.Path == modulePath && filepath.Clean(r.New.Path) == want
		}), "%s does not replace the root by %s", file, want)
	}
}

func TestHouse_RootModuleDependsOnNothingElse(t *testing.T) {
	t.Parallel()
	var direct []string
	for _, required := range goEdit(t, "mod", "go.mod").Require {
		if !required.Indirect {
			direct = append(direct, required.Path)
		}
	}
	slices.Sort(direct)
	require.Equal(t, []string{
		"github.com/cenkalti/backoff/v4", "github.com/sony/gobreaker/v2", "github.com/stretchr/testify",
		"go.uber.org/goleak", "go.uber.org/zap", "golang.org/x/time",
	}, direct)
}

// tier is how high a package of the root module stands. A package imports those of its own
// tier and of lower ones: mechanisms know no word of the domain, engines know the words and never
// the root, and only _test files import the kit of the tests.
type tier int

const (
	mechanism tier = iota
	vocabulary
	engine
	root
	besideRoot
	tests
)

// tiers has every package of the root module but those beside the root, which is where a
// package stands that is not listed.
var tiers = map[string]tier{
	"internal/bitset": mechanism, "internal/check": mechanism, "internal/drift": mechanism,
	"internal/errtree": mechanism,
	"internal/figures": mechanism, "internal/graph": mechanism, "internal/jsonform": mechanism, "internal/jsontext": mechanism, "internal/oneline": mechanism,
	"internal/histogram": mechanism, "internal/ranked": mechanism, "internal/record": mechanism, "internal/ring": mechanism, "internal/schedule": mechanism,
	"internal/slots":   mechanism,
	"internal/striped": mechanism, "internal/version": mechanism, "internal/window": mechanism,

	"event": vocabulary, "health": vocabulary, "metrics": vocabulary, "reason": vocabulary, "selection": vocabulary, "startup": vocabulary, "status": vocabulary,
	"verdict": vocabulary, "internal/choice": vocabulary,

	"internal/attemptctx": engine, "internal/breaker": engine, "internal/bus": engine, "internal/claim": engine,
	"internal/changeset": engine, "internal/comeback": engine, "internal/cooldown": engine, "internal/domain": engine, "internal/drain": engine, "internal/effects": engine, "internal/failure": engine, "internal/fault": engine, "internal/hook": engine,
	"internal/judge": engine, "internal/option": engine, "internal/lazy": engine, "internal/lifecycle": engine, "internal/limit": engine, "internal/meter": engine, "internal/outcome": engine, "internal/overall": engine, "internal/pick": engine,
	"internal/override": engine, "internal/pace": engine, "internal/probe": engine, "internal/query": engine, "internal/queueing": engine, "internal/typed": engine, "internal/refusal": engine, "internal/request": mechanism, "internal/sight": engine, "internal/tasks": engine,

	".": root,

	"internal/testkit": tests, "internal/testkit/hosts": tests,
}

// only has packages that import fewer than their tier may.
var only = map[string][]string{
	"event":     {"internal/jsonform"},
	"health":    {"internal/errtree", "internal/jsonform"},
	"verdict":   {"internal/oneline", "internal/errtree", "internal/jsonform"},
	"metrics":   {"event", "health", "reason", "status", "verdict", "internal/jsonform"},
	"reason":    {},
	"selection": {"health", "reason", "internal/check", "internal/choice", "internal/jsonform", "internal/version"},
	"startup":   {"internal/graph", "internal/oneline", "internal/figures", "internal/jsonform"},
	"status":    {"reason", "verdict", "internal/jsonform"},
	"probes":    {"health", "internal/oneline", "internal/fault"},
	"selectors": {"selection", "health", "reason", "internal/choice"},

	"internal/choice": {"health"},
}

func TestHouse_ImportsRunFromRootToMechanisms(t *testing.T) {
	t.Parallel()
	for _, dir := range packageDirs(t) {
		from, listed := tiers[dir]
		if !listed {
			require.False(t, strings.HasPrefix(dir, "internal/"), "%s is in no tier", dir)
			from = besideRoot
		}
		for name, file := range parseDir(t, dir) {
			for _, imported := range file.Imports {
				path := strings.Trim(imported.Path.Value, `"`)
				inside, ok := strings.CutPrefix(path, modulePath)
				if !ok {
					continue
				}
				inside = cmp.Or(strings.TrimPrefix(inside, "/"), ".")
				to, listed := tiers[inside]
				if !listed {
					to = besideRoot
				}
				require.LessOrEqual(t, to, from, "%s imports %s", name, path)
				if allowed, ok := only[dir]; ok {
					require.Contains(t, allowed, inside, "%s imports %s", name, path)
				}
			}
		}
	}
}

// packageDirs returns the folders of the root module that hold Go files.
func packageDirs(t *testing.T) []string {
	t.Helper()
	nested := make(map[string]bool)
	for _, file := range modFiles(t) {
		nested[filepath.ToSlash(filepath.Dir(file))] = file != "go.mod"
	}
	var dirs []string
	walk(t, func(path string, entry fs.DirEntry) error {
		if entry.IsDir() && nested[path] {
			return fs.SkipDir
		}
		if dir := filepath.ToSlash(filepath.Dir(path)); strings.HasSuffix(path, ".go") && !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
		return nil
	})
	return dirs
}

func modFiles(t *testing.T) []string {
	t.Helper()
	var files []string
	walk(t, func(path string, _ fs.DirEntry) error {
		if filepath.Base(path) == "go.mod" {
			files = append(files, filepath.ToSlash(path))
		}
		return nil
	})
	return files
}

// walk visits the files and folders of the repository, by their paths from its top.
func walk(t *testing.T, visit func(path string, entry fs.DirEntry) error) {
	t.Helper()
	require.NoError(t, fs.WalkDir(os.DirFS(top), ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && path != "." && (strings.HasPrefix(entry.Name(), ".") || entry.Name() == "testdata") {
			return fs.SkipDir
		}
		return visit(path, entry)
	}))
}

func parseDir(t *testing.T, dir string) map[string]*ast.File {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(top, dir, "*.go"))
	require.NoError(t, err)
	files := make(map[string]*ast.File)
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		files[name], err = parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments|parser.SkipObjectResolution)
		require.NoError(t, err)
	}
	return files
}

func exportedNames(t *testing.T, dir string) []string {
	t.Helper()
	var names []string
	for _, file := range parseDir(t, dir) {
		for _, declaration := range file.Decls {
			for _, symbol := range symbols(declaration) {
				if !symbol.method {
					names = append(names, symbol.name)
				}
			}
		}
	}
	slices.Sort(names)
	return names
}

func undocumented(file *ast.File) []string {
	var without []string
	for _, declaration := range file.Decls {
		for _, symbol := range symbols(declaration) {
			if !symbol.documented {
				without = append(without, symbol.name)
			}
		}
	}
	return without
}

// symbol is an exported name of a package, or an exported method of one.
type symbol struct {
	name       string
	method     bool
	documented bool
}

func symbols(declaration ast.Decl) []symbol {
	switch d := declaration.(type) {
	case *ast.FuncDecl:
		if d.Name.IsExported() && (d.Recv == nil || receiverIsExported(d.Recv.List[0].Type)) {
			return []symbol{{name: d.Name.Name, method: d.Recv != nil, documented: d.Doc != nil}}
		}
	case *ast.GenDecl:
		var found []symbol
		for _, spec := range d.Specs {
			switch s := spec.(type) {
			case *ast.TypeSpec:
				if s.Name.IsExported() {
					found = append(found, symbol{name: s.Name.Name, documented: d.Doc != nil || s.Doc != nil})
				}
			case *ast.ValueSpec:
				for _, name := range s.Names {
					if name.IsExported() {
						found = append(found, symbol{name: name.Name, documented: d.Doc != nil || s.Doc != nil})
					}
				}
			}
		}
		return found
	}
	return nil
}

func receiverIsExported(receiver ast.Expr) bool {
	for {
		switch r := receiver.(type) {
		case *ast.StarExpr:
			receiver = r.X
		case *ast.IndexExpr:
			receiver = r.X
		case *ast.IndexListExpr:
			receiver = r.X
		case *ast.Ident:
			return r.IsExported()
		default:
			return false
		}
	}
}

type replacement struct{ Old, New struct{ Path string } }

// edited is what `go mod edit -json` and `go work edit -json` print.
type edited struct {
	Use     []struct{ DiskPath string }
	Replace []replacement
	Require []struct {
		Path     string
		Indirect bool
	}
}

func goEdit(t *testing.T, kind, file string) edited {
	t.Helper()
	text, err := exec.CommandContext(t.Context(), "go", kind, "edit", "-json", filepath.Join(top, file)).Output()
	require.NoError(t, err)
	var parsed edited
	require.NoError(t, json.Unmarshal(text, &parsed))
	return parsed
}
