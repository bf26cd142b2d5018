package test_test

import (
	"go/ast"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The measures of the root package. They only get smaller.
const (
	// rootLinesAtMost bounds the lines of its files but for tests.
	rootLinesAtMost = 9000
	// providerFieldsAtMost bounds the direct fields of the struct provider; an embedded one counts as one.
	providerFieldsAtMost = 20
	// providerFilesAtMost bounds the files in which its methods stand.
	providerFilesAtMost = 6
	// callBoolsAtMost bounds the booleans of the struct call and of the history that it embeds.
	callBoolsAtMost = 4
	// lockNotesAtMost bounds the comments that leave a lock to the caller.
	lockNotesAtMost = 40
	// homonymsAtMost bounds the types that have a method of the same name.
	homonymsAtMost = 3
	// restartLimit is the constant of the one loop that starts over on a new plan.
	restartLimit = "maxRestarts"
)

var lockNote = regexp.MustCompile(`(?i)callers?\s+(must\s+)?holds?|callers\s+that\s+hold`)

// sharedNames are methods that implement an interface of a library, or a convention, so that any number of
// types has them.
var sharedNames = []string{
	"String", "Error", "Unwrap", "Is", "As", "MarshalText", "MarshalJSON", "UnmarshalText", "UnmarshalJSON", "Verdict",
}

func TestHouse_RootStaysWithinLineBudget(t *testing.T) {
	t.Parallel()
	lines := 0
	for name := range parseDir(t, ".") {
		text := readText(t, filepath.Base(name))
		lines += strings.Count(text, "\n")
	}
	t.Logf("%d of %d lines", lines, rootLinesAtMost)
	require.LessOrEqual(t, lines, rootLinesAtMost)
}

func TestHouse_ProviderStaysSmall(t *testing.T) {
	t.Parallel()
	files := parseDir(t, ".")
	fields := countFields(structOf(t, files, "provider"))
	in := make(map[string]bool)
	for name, file := range files {
		for _, f := range functionsOf(file) {
			if f.Recv != nil && receiverName(f) == "provider" {
				in[filepath.Base(name)] = true
			}
		}
	}
	require.NotEmpty(t, in)
	t.Logf("%d of %d fields, methods in %d of %d files", fields, providerFieldsAtMost, len(in), providerFilesAtMost)
	require.LessOrEqual(t, fields, providerFieldsAtMost)
	require.LessOrEqual(t, len(in), providerFilesAtMost, "%v", slices.Sorted(maps.Keys(in)))
}

func TestHouse_StateOfCallIsNoBagOfBooleans(t *testing.T) {
	t.Parallel()
	files := parseDir(t, ".")
	var bools []string
	for _, name := range []string{"call", "history"} {
		for _, field := range structOf(t, files, name).Fields.List {
			if kind, ok := field.Type.(*ast.Ident); ok && kind.Name == "bool" {
				for _, each := range field.Names {
					bools = append(bools, each.Name)
				}
			}
		}
	}
	t.Logf("%d of %d: %v", len(bools), callBoolsAtMost, bools)
	require.LessOrEqual(t, len(bools), callBoolsAtMost)
}

func TestHouse_LocksAreSeldomLeftToCallers(t *testing.T) {
	t.Parallel()
	count := 0
	for _, file := range parseDir(t, ".") {
		for _, group := range file.Comments {
			count += len(lockNote.FindAllString(group.Text(), -1))
		}
	}
	t.Logf("%d of %d", count, lockNotesAtMost)
	require.LessOrEqual(t, count, lockNotesAtMost)
}

func TestHouse_MethodNamesAreNoHomonyms(t *testing.T) {
	t.Parallel()
	shared := make(map[string]bool)
	for _, name := range sharedNames {
		shared[name] = true
	}
	for _, dir := range packageDirs(t) {
		for _, file := range parseDir(t, dir) {
			maps.Insert(shared, maps.All(interfaceMethods(file)))
		}
	}
	types := make(map[string][]string)
	for _, file := range parseDir(t, ".") {
		for _, f := range functionsOf(file) {
			if f.Recv != nil && !shared[f.Name.Name] {
				types[f.Name.Name] = append(types[f.Name.Name], receiverName(f))
			}
		}
	}
	require.NotEmpty(t, types)
	for name, of := range types {
		slices.Sort(of)
		require.LessOrEqual(t, len(of), homonymsAtMost, "%s is a method of %v", name, of)
	}
}

func TestHouse_StalePlanIsHandledInOneFile(t *testing.T) {
	t.Parallel()
	var in []string
	for name, file := range parseDir(t, ".") {
		for ident := range declared(file) {
			if ident.Name == restartLimit {
				in = append(in, name)
			}
		}
	}
	require.Len(t, in, 1, "files that declare %s", restartLimit)
}

// structOf returns the struct type of that name.
func structOf(t *testing.T, files map[string]*ast.File, name string) (found *ast.StructType) {
	t.Helper()
	for _, file := range files {
		ast.Inspect(file, func(node ast.Node) bool {
			if spec, ok := node.(*ast.TypeSpec); ok && spec.Name.Name == name {
				found, _ = spec.Type.(*ast.StructType)
			}
			return found == nil
		})
	}
	require.NotNil(t, found, "no struct %s", name)
	return found
}

// countFields counts the direct fields of a struct.
func countFields(of *ast.StructType) (count int) {
	for _, field := range of.Fields.List {
		count += max(len(field.Names), 1) // an embedded one has no names
	}
	return count
}

// receiverName returns the name of the type that a method is of.
func receiverName(f *ast.FuncDecl) (name string) {
	ast.Inspect(f.Recv.List[0].Type, func(node ast.Node) bool {
		if ident, ok := node.(*ast.Ident); ok && name == "" { // the first: type arguments follow
			name = ident.Name
		}
		return name == ""
	})
	return name
}

// interfaceMethods returns the methods of the interfaces that a file declares.
func interfaceMethods(file *ast.File) map[string]bool {
	methods := make(map[string]bool)
	ast.Inspect(file, func(node ast.Node) bool {
		if declared, ok := node.(*ast.InterfaceType); ok {
			for _, method := range declared.Methods.List {
				for _, name := range method.Names {
					methods[name.Name] = true
				}
			}
		}
		return true
	})
	return methods
}
