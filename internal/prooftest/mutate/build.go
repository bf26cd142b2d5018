package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"hash/fnv"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// switchable is a package that is compiled with all its mutants.
type switchable struct {
	*goPackage

	own     suite
	others  []*suite
	mutants []mutant
	tests   []test
}

// suite is the tests of a package, compiled with all mutants.
type suite struct {
	dir, binary string
	arguments   []string
}

// compile builds the tests of the package with all mutants in it. Where the compiler
// refuses a line, that line has no mutants.
func (d *driver) compile(ctx context.Context, p *goPackage, exports map[string]string) (*switchable, error) {
	dir, err := os.MkdirTemp(d.scratch, p.Name)
	if err != nil {
		return nil, err
	}
	s := &switchable{goPackage: p, own: suite{dir: p.Dir, binary: filepath.Join(dir, "test"), arguments: d.arguments}}
	avoided := make(map[string]bool)
	for range 30 {
		f, err := d.find(p, exports, avoided)
		if err != nil {
			return nil, err
		}
		overlay, err := f.write(p, dir)
		if err != nil {
			return nil, err
		}
		out, err := s.own.build(ctx, overlay)
		if err == nil {
			s.mutants = f.found
			return s, d.compileOthers(ctx, s, overlay)
		}
		before := len(avoided)
		for _, line := range refused.FindAllStringSubmatch(string(out), -1) {
			avoided[line[1]] = true
		}
		if len(avoided) == before || ctx.Err() != nil {
			return nil, fmt.Errorf("%s with its mutants: %w\n%s", p.ImportPath, err, out)
		}
		fmt.Printf("%s: no mutants on %v\n", p.ImportPath, slices.Sorted(maps.Keys(avoided)))
	}
	return nil, fmt.Errorf("%s does not compile with its mutants", p.ImportPath)
}

// build compiles the tests of the suite.
func (s *suite) build(ctx context.Context, overlay string) (out []byte, err error) {
	return at(ctx, s.dir, "go", "test", "-c", "-vet=off", "-ldflags=-s -w", "-overlay", overlay, "-o", s.binary, ".").CombinedOutput()
}

// compileOthers builds the tests of other packages with the same mutants.
func (d *driver) compileOthers(ctx context.Context, s *switchable, overlay string) error {
	for i, with := range d.with {
		dir, arguments, _ := strings.Cut(with, ":")
		dir, err := filepath.Abs(dir)
		if err != nil {
			return err
		}
		other := suite{dir: dir, binary: fmt.Sprintf("%s.with%d", s.own.binary, i), arguments: strings.Fields(arguments)}
		if out, err := other.build(ctx, overlay); err != nil {
			return fmt.Errorf("%s with the mutants of %s: %w\n%s", dir, s.ImportPath, err, out)
		}
		s.others = append(s.others, &other)
	}
	return nil
}

var refused = regexp.MustCompile(`(?m)([\w.]+\.go:\d+):\d+: `)

// find parses the package, checks its types and finds its mutants.
func (d *driver) find(p *goPackage, exports map[string]string, avoided map[string]bool) (*finder, error) {
	f := &finder{
		text: make(map[string][]byte), files: token.NewFileSet(), avoided: avoided, edits: make(map[string]*edits),
		info: &types.Info{Types: make(map[ast.Expr]types.TypeAndValue), Uses: make(map[*ast.Ident]types.Object), Defs: make(map[*ast.Ident]types.Object)},
	}
	parsed := make([]*ast.File, len(p.GoFiles))
	for i, name := range p.GoFiles {
		path := filepath.Join(p.Dir, name)
		text, err := os.ReadFile(path) //nolint:gosec // a file of the tree
		if err != nil {
			return nil, err
		}
		f.text[path] = text
		if parsed[i], err = parser.ParseFile(f.files, path, text, parser.SkipObjectResolution|parser.ParseComments); err != nil {
			return nil, err
		}
	}
	config := types.Config{Importer: importer.ForCompiler(f.files, "gc", func(path string) (io.ReadCloser, error) {
		return os.Open(exports[path])
	})}
	var err error
	if f.pkg, err = config.Check(p.ImportPath, f.files, parsed, f.info); err != nil {
		return nil, err
	}
	for i, name := range p.GoFiles {
		if d.except != nil && d.except.MatchString(name) || d.only != nil && !d.only.MatchString(name) {
			continue
		}
		f.file(filepath.Join(p.Dir, name), parsed[i])
	}
	return f, nil
}

// write writes the changed files and the overlay that puts them in their places.
func (f *finder) write(p *goPackage, dir string) (overlay string, err error) {
	places := make(map[string]string)
	put := func(path string, text []byte) error {
		changed := filepath.Join(dir, filepath.Base(path))
		places[path] = changed
		return os.WriteFile(changed, text, 0o600)
	}
	for path := range f.edits {
		err = errors.Join(err, put(path, f.rendered(path)))
	}
	err = errors.Join(err, put(filepath.Join(p.Dir, "zz_mutants.go"), fmt.Appendf(nil, helpers, p.Name)))
	text, failure := json.Marshal(map[string]any{"Replace": places})
	overlay = filepath.Join(dir, "overlay.json")
	return overlay, errors.Join(err, failure, os.WriteFile(overlay, text, 0o600))
}

// draw returns the mutants that are tried, in an order that depends on nothing but the
// seed.
func (d *driver) draw(mutants []mutant) []mutant {
	place := func(m mutant) uint64 {
		h := fnv.New64a()
		_, _ = fmt.Fprint(h, d.seed, m)
		return h.Sum64()
	}
	drawn := slices.Clone(mutants)
	slices.SortStableFunc(drawn, func(a, b mutant) int { return cmp.Compare(place(a), place(b)) })
	if d.sample > 0 && d.sample < len(drawn) {
		drawn = drawn[:d.sample]
	}
	return drawn
}
