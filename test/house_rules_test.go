package test_test

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// longestFile is the number of lines that a file may have, tests too.
const longestFile = 600

var (
	testName  = regexp.MustCompile(`^Test[A-Z]\w*_[A-Z]\w*$`)
	otherName = regexp.MustCompile(`^(Fuzz|Benchmark)[A-Z]\w*(_[A-Z]\w*)?$`)
	nameWord  = regexp.MustCompile(`[A-Z][a-z]*`)
)

// persons are words that name a person where a test is about a thing.
var persons = []string{
	"Who", "Whom", "Whoever", "Somebody", "Someone", "Nobody", "Everybody", "Everyone", "Anybody", "Anyone",
	"He", "His", "Him",
}

func TestHouse_RootTestFilesStandBesideTheirSource(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob(filepath.Join(top, "*_test.go"))
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		subject := strings.TrimSuffix(filepath.Base(file), "_test.go")
		if subject == "main" || subject == "export" || strings.HasPrefix(subject, "example") {
			continue
		}
		beside := false
		for name := subject; name != "" && !beside; name = name[:max(strings.LastIndex(name, "_"), 0)] {
			beside = isFile(t, name+".go")
		}
		require.True(t, beside, "%s is neither x_test.go nor x_aspect_test.go of an x.go", file)
	}
}

func TestHouse_TestNamesAreSubjectAndBehaviour(t *testing.T) {
	t.Parallel()
	packages := testFilesByPackage(t)
	for dir, files := range packages {
		for _, file := range files {
			for _, f := range functionsOf(file) {
				name := f.Name.Name
				switch {
				case f.Recv != nil || name == "TestMain":
				case strings.HasPrefix(name, "Test"):
					require.Regexp(t, testName, name, dir)
				case strings.HasPrefix(name, "Fuzz"), strings.HasPrefix(name, "Benchmark"):
					require.Regexp(t, otherName, name, dir)
				}
			}
		}
	}
}

func TestHouse_TestNamesAreAboutThings(t *testing.T) {
	t.Parallel()
	packages := testFilesByPackage(t)
	for dir, files := range packages {
		for _, file := range files {
			for _, f := range functionsOf(file) {
				for _, word := range nameWord.FindAllString(f.Name.Name, -1) {
					require.NotContains(t, persons, word, "%s: %s", dir, f.Name.Name)
				}
			}
		}
	}
}

func TestHouse_ContributingSaysWhatEachRootFileIsFor(t *testing.T) {
	t.Parallel()
	text := readText(t, "CONTRIBUTING.md")
	for name := range parseDir(t, ".") {
		require.Contains(t, text, "`"+filepath.Base(name)+"`")
	}
}

func TestHouse_NoFileIsTooLong(t *testing.T) {
	t.Parallel()
	walk(t, func(path string, entry fs.DirEntry) error {
		if entry.IsDir() || !strings.HasSuffix(path, ".go") {
			return nil
		}
		text := readText(t, path)
		lines := strings.Count(text, "\n")
		if ast.IsGenerated(parsedHead(t, text)) {
			return nil
		}
		require.LessOrEqual(t, lines, longestFile, path)
		return nil
	})
}

// parsedHead returns a file up to its package clause.
func parsedHead(t *testing.T, text string) *ast.File {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "", bytes.NewBufferString(text), parser.PackageClauseOnly|parser.ParseComments)
	require.NoError(t, err)
	return file
}

func isFile(t *testing.T, name string) bool {
	t.Helper()
	matches, err := filepath.Glob(filepath.Join(top, name))
	require.NoError(t, err)
	return len(matches) == 1
}

// testFilesByPackage returns the test files of every module, by folder.
func testFilesByPackage(t *testing.T) map[string][]*ast.File {
	t.Helper()
	packages := make(map[string][]*ast.File)
	walk(t, func(path string, entry fs.DirEntry) error {
		if entry.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(top, path), nil, parser.SkipObjectResolution)
		require.NoError(t, err)
		dir := filepath.ToSlash(filepath.Dir(path))
		packages[dir] = append(packages[dir], file)
		return nil
	})
	return packages
}

func TestHouse_EveryTestPackageChecksGoroutineLeaks(t *testing.T) {
	t.Parallel()
	for dir, files := range testFilesByPackage(t) {
		require.True(t, slices.ContainsFunc(files, func(file *ast.File) bool {
			return slices.ContainsFunc(functionsOf(file), func(f *ast.FuncDecl) bool {
				return f.Name.Name == "TestMain" && mentions(f, func(name string) bool { return name == "VerifyTestMain" })
			})
		}), "%s: no TestMain with goleak.VerifyTestMain", dir)
	}
}

// A line of code that only a test without assertions reaches would count as covered and not be tested.
func TestHouse_EveryTestAsserts(t *testing.T) {
	t.Parallel()
	kit := map[string]bool{}
	for _, file := range parseDir(t, "internal/testkit") {
		for _, f := range functionsOf(file) {
			if mentions(f, func(name string) bool { return name == "require" }) {
				kit["testkit."+f.Name.Name] = true
			}
		}
	}
	require.NotEmpty(t, kit)
	for dir, files := range testFilesByPackage(t) {
		asserting := map[string]bool{"require": true, "t.Error": true, "Errorf": true, "Fatal": true, "Fatalf": true, "registrytest.TestProbe": true, "federationtest.TestStore": true, "hosts.TestCuts": true, "registrytest.TestSource": true, "registrytest.TestSelector": true}
		maps.Copy(asserting, kit)
		for found := true; found; { // helpers assert for their callers
			found = false
			for _, file := range files {
				for _, f := range functionsOf(file) {
					if !asserting[f.Name.Name] && mentions(f, func(name string) bool { return asserting[name] }) {
						asserting[f.Name.Name], found = true, true
					}
				}
			}
		}
		for _, file := range files {
			for _, f := range functionsOf(file) {
				if name := f.Name.Name; name != "TestMain" && (strings.HasPrefix(name, "Test") || strings.HasPrefix(name, "Fuzz")) {
					if !asserting[name] {
						t.Errorf("%s: %s asserts nothing", dir, name)
					}
				}
			}
		}
	}
}

func TestHouse_ReliabilityPageNamesExistingTests(t *testing.T) {
	t.Parallel()
	there := testNames(t)
	promises, _, _ := strings.Cut(readText(t, "docs/reliability.md"), "## Figures")
	named := regexp.MustCompile("`((?:Test|Fuzz)\\w+)`").FindAllStringSubmatch(promises, -1)
	require.NotEmpty(t, named)
	for _, name := range named {
		require.True(t, there[name[1]], "there is no %s", name[1])
	}
}

// testNames returns the names of all functions in test files.
func testNames(t *testing.T) map[string]bool {
	t.Helper()
	there := make(map[string]bool)
	for _, files := range testFilesByPackage(t) {
		for _, file := range files {
			for _, f := range functionsOf(file) {
				there[f.Name.Name] = true
			}
		}
	}
	return there
}

func functionsOf(file *ast.File) (functions []*ast.FuncDecl) {
	for _, declaration := range file.Decls {
		if f, ok := declaration.(*ast.FuncDecl); ok && f.Body != nil {
			functions = append(functions, f)
		}
	}
	return functions
}

// mentions reports whether the body of the function has an identifier like that, or
// one with what stands before its dot.
func mentions(f *ast.FuncDecl, like func(name string) bool) (found bool) {
	ast.Inspect(f.Body, func(node ast.Node) bool {
		switch n := node.(type) {
		case *ast.Ident:
			found = found || like(n.Name)
		case *ast.SelectorExpr:
			if of, ok := n.X.(*ast.Ident); ok {
				found = found || like(of.Name+"."+n.Sel.Name)
			}
		}
		return !found
	})
	return found
}
