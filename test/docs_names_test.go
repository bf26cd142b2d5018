package test_test

import (
	"go/ast"
	"path"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var (
	codeSpan = regexp.MustCompile("`([^`\n]+)`")
	codeName = regexp.MustCompile(`^(?:([a-z]\w*)\.)?([A-Z]\w*)(?:\.([A-Z]\w*))?(?:\(.*\))?$`)
	shouted  = regexp.MustCompile(`^[A-Z_]+$`)
)

// apiNames are the exported names of the packages, by package and, for fields and methods, by "Type.Member".
type apiNames struct {
	packages map[string]map[string]bool
	all      map[string]bool
}

// Names in the README and the guide are those of the code: a renamed method does not survive in the prose. The names of
// other modules' packages are theirs.
func TestDocs_NamesAreThoseOfTheCode(t *testing.T) {
	t.Parallel()
	api := exportedAPI(t)
	checked, unknown := 0, []string(nil)
	for _, page := range pages(t) {
		if page != "README.md" && path.Dir(page) != "docs/guide" || path.Base(page) == "sdk-errors.md" {
			continue
		}
		text := fence.ReplaceAllString(generated.ReplaceAllString(readText(t, page), ""), "")
		for _, span := range codeSpan.FindAllStringSubmatch(text, -1) {
			name := codeName.FindStringSubmatch(span[1])
			if name == nil || shouted.MatchString(span[1]) {
				continue
			}
			if _, ours := api.packages[name[1]]; name[1] != "" && !ours {
				continue
			}
			checked++
			if !api.has(name[1], name[2], name[3]) {
				unknown = append(unknown, page+": "+span[1])
			}
		}
	}
	require.Empty(t, unknown)
	require.Greater(t, checked, 100)
}

func (a apiNames) has(pkg, name, member string) bool {
	if member != "" {
		name += "." + member
	}
	if pkg == "" {
		return a.all[name]
	}
	return a.packages[pkg][name]
}

// exportedAPI returns the exported names of the packages that users import.
func exportedAPI(t *testing.T) apiNames {
	t.Helper()
	api := apiNames{packages: map[string]map[string]bool{}, all: map[string]bool{}}
	for _, dir := range packageDirs(t) {
		if strings.HasPrefix(dir, "internal/") || dir == "docs/guide" || dir == "test" {
			continue
		}
		for _, file := range parseDir(t, dir) {
			pkg := file.Name.Name
			if api.packages[pkg] == nil {
				api.packages[pkg] = make(map[string]bool)
			}
			for _, name := range membersOf(file) {
				api.packages[pkg][name] = true
				api.all[name] = true
				if _, member, ok := strings.Cut(name, "."); ok {
					api.all[member] = true
				}
			}
		}
	}
	return api
}

// membersOf returns the exported names that a file declares, with fields and methods as "Type.Member".
func membersOf(file *ast.File) (names []string) {
	for _, declaration := range file.Decls {
		switch d := declaration.(type) {
		case *ast.FuncDecl:
			name := d.Name.Name
			if d.Recv != nil {
				name = receiverName(d) + "." + name
			}
			names = append(names, name)
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				names = append(names, namesOf(spec)...)
			}
		}
	}
	return names
}

func namesOf(spec ast.Spec) (names []string) {
	switch s := spec.(type) {
	case *ast.ValueSpec:
		for _, name := range s.Names {
			names = append(names, name.Name)
		}
	case *ast.TypeSpec:
		names = append(names, s.Name.Name)
		if structure, ok := s.Type.(*ast.StructType); ok {
			for _, field := range structure.Fields.List {
				for _, name := range field.Names {
					names = append(names, s.Name.Name+"."+name.Name)
				}
			}
		}
	}
	return names
}
