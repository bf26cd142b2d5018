// Command mutate changes the library in one place at a time and runs the tests of that
// package: a mutant that a test detects is killed, the others survive and are printed for
// review.
//
//	go run ./internal/prooftest/mutate -sample 300 . ./internal/...
//
// All mutants of a package are compiled at once, into files of an overlay in which each
// can be switched on, so that the tree stays as it is. First every test runs alone, to
// see which mutants it reaches; then each mutant meets the tests that reach it, the
// quickest first; those of other packages that are named with -with meet what is left.
// What runs for too long is killed. Constants, types and strings are not changed, nor are
// capacities and the lengths of texts. With -write the figures go into the block of a document that is marked for them.
package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
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
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "mutate:", err)
		os.Exit(1) //nolint:gocritic // the process ends; stop has nothing left to undo
	}
}

// Outcomes of a mutant.
const (
	killed     = "killed"
	timedOut   = "timed out"
	survived   = "survived"
	notReached = "not reached"
)

// result is the fate of a mutant.
type result struct {
	mutant

	Package string        `json:"package"`
	Outcome string        `json:"outcome"`
	By      string        `json:"by,omitempty"`
	Took    time.Duration `json:"took"`
}

type driver struct {
	sample  int
	seed    uint64
	least   float64
	workers int
	length  time.Duration
	except  *regexp.Regexp
	only    *regexp.Regexp
	log     string
	write   string
	with    []string
	scratch string
	known   map[string]result

	mu      sync.Mutex // guards the fields below
	results []result
	all     map[string]int // mutants there are, by package
}

func run(ctx context.Context, arguments []string) error {
	d := driver{all: make(map[string]int)}
	flags := flag.NewFlagSet("mutate", flag.ContinueOnError)
	flags.IntVar(&d.sample, "sample", 0, "at most so many mutants of each package, drawn with the seed; 0: all")
	flags.Uint64Var(&d.seed, "seed", 1, "of the sample")
	flags.Float64Var(&d.least, "least", 80, "the share of killed mutants, in percent, below which this fails")
	flags.IntVar(&d.workers, "workers", 2, "how many mutants are tested at once")
	with := flags.String("with", "", "folders of packages whose tests are tried as well on the first package, with commas between; arguments for the tests follow a colon")
	flags.DurationVar(&d.length, "for", 0, "how long mutants of each package are tried; what is left then is not; 0: as long as it takes")
	except := flags.String("except", "", "files that are left out, as a regular expression")
	only := flags.String("only", "", "the files that are changed, as a regular expression")
	flags.StringVar(&d.log, "log", "", "a file of results: what is in it is not run again")
	flags.StringVar(&d.write, "write", "", "a document whose block of figures is replaced")
	if err := flags.Parse(arguments); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return err
	}
	if *with != "" {
		d.with = strings.Split(*with, ",")
	}
	var err error
	if d.except, err = pattern(*except); err != nil {
		return err
	}
	if d.only, err = pattern(*only); err != nil {
		return err
	}
	if err := d.remember(); err != nil {
		return err
	}
	if d.scratch, err = os.MkdirTemp("", "mutate"); err != nil {
		return err
	}
	defer os.RemoveAll(d.scratch) //nolint:errcheck // it is a folder for scratch
	packages, err := listPackages(ctx, flags.Args())
	if err != nil {
		return err
	}
	for _, p := range packages {
		if err := d.mutatePackage(ctx, p); err != nil {
			return err
		}
		d.with = nil
	}
	return d.report()
}

// pattern compiles a regular expression; nil where there is none.
func pattern(text string) (*regexp.Regexp, error) {
	if text == "" {
		return nil, nil //nolint:nilnil // none is asked for
	}
	return regexp.Compile(text)
}

// goPackage is a package in the output of `go list`.
type goPackage struct {
	ImportPath, Dir, Name              string
	GoFiles, TestGoFiles, XTestGoFiles []string
}

func listPackages(ctx context.Context, patterns []string) (packages []*goPackage, err error) {
	if len(patterns) == 0 {
		patterns = []string{"."}
	}
	text, err := command(ctx, "go", append([]string{"list", "-json"}, patterns...)...).Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w", err)
	}
	for decoder := json.NewDecoder(bytes.NewReader(text)); decoder.More(); {
		p := &goPackage{}
		if err := decoder.Decode(p); err != nil {
			return nil, err
		}
		if len(p.TestGoFiles)+len(p.XTestGoFiles) > 0 {
			packages = append(packages, p)
		}
	}
	return packages, nil
}

// command is a command that is ended together with those that it starts.
func command(ctx context.Context, name string, arguments ...string) *exec.Cmd {
	c := exec.CommandContext(ctx, name, arguments...) //nolint:gosec // go, and what it has built
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGKILL) }
	c.WaitDelay = time.Second
	return c
}

// at is a command in a folder, outside the workspace.
func at(ctx context.Context, dir, name string, arguments ...string) *exec.Cmd {
	c := command(ctx, name, arguments...)
	c.Dir = dir
	c.Env = append(os.Environ(), "GOWORK=off")
	return c
}

// remember reads the results of runs before.
func (d *driver) remember() error {
	d.known = make(map[string]result)
	if d.log == "" {
		return nil
	}
	file, err := os.Open(d.log)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer file.Close() //nolint:errcheck // it is only read
	for lines := bufio.NewScanner(file); lines.Scan(); {
		var r result
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			return fmt.Errorf("%s: %w", d.log, err)
		}
		d.known[key(r.Package, r.mutant)] = r
	}
	return nil
}

func key(importPath string, m mutant) string { return importPath + " " + m.String() }

// note keeps a result.
func (d *driver) note(r result) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.results = append(d.results, r)
	if _, ran := d.known[key(r.Package, r.mutant)]; ran || d.log == "" {
		return nil
	}
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	file, err := os.OpenFile(d.log, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(append(text, '\n'))
	return errors.Join(err, file.Close())
}

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

// test is one test, how long it takes, and the mutants that it reaches.
type test struct {
	suite   *suite
	name    string
	took    time.Duration
	reaches map[int]bool
}

func (d *driver) mutatePackage(ctx context.Context, p *goPackage) error {
	exports, err := exportsOf(ctx, p)
	if err != nil {
		return err
	}
	f, err := d.find(p, exports, nil)
	if err != nil {
		return err
	}
	d.all[p.ImportPath] = len(f.found)
	if drawn := d.draw(f.found); d.allKnown(p, drawn) {
		for _, m := range drawn {
			if err := d.note(d.known[key(p.ImportPath, m)]); err != nil {
				return err
			}
		}
		return nil
	}
	s, err := d.compile(ctx, p, exports)
	if err != nil {
		return err
	}
	d.all[p.ImportPath] = len(s.mutants)
	drawn := d.draw(s.mutants)
	if err := d.trace(ctx, s); err != nil {
		return err
	}
	began := time.Now()
	fmt.Printf("%s: %d tests, %d mutants, of which %d are tried\n", p.ImportPath, len(s.tests), len(s.mutants), len(drawn))
	var working sync.WaitGroup
	work, errs := make(chan mutant), make(chan error, d.workers)
	for range d.workers {
		working.Go(func() {
			for m := range work {
				if err := d.tryOne(ctx, s, m); err != nil {
					errs <- err
					return
				}
			}
			errs <- nil
		})
	}
	for i, m := range drawn {
		if d.length > 0 && time.Since(began) > d.length {
			break
		}
		if i%50 == 49 {
			fmt.Printf("%d/%d\n", i+1, len(drawn))
		}
		select {
		case work <- m:
		case <-ctx.Done():
		}
	}
	close(work)
	working.Wait()
	close(errs)
	for failure := range errs {
		err = errors.Join(err, failure)
	}
	return errors.Join(err, ctx.Err())
}

// allKnown reports whether a log has all the results.
func (d *driver) allKnown(p *goPackage, drawn []mutant) bool {
	return !slices.ContainsFunc(drawn, func(m mutant) bool {
		_, known := d.known[key(p.ImportPath, m)]
		return !known
	})
}

func (d *driver) tryOne(ctx context.Context, s *switchable, m mutant) error {
	r, ran := d.known[key(s.ImportPath, m)]
	if !ran {
		began := time.Now()
		r = result{mutant: m, Package: s.ImportPath}
		r.Outcome, r.By = s.try(ctx, m)
		r.Took = time.Since(began)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if r.Outcome != killed {
		fmt.Printf("%s: %v\n", r.Outcome, m)
	}
	return d.note(r)
}

// compile builds the tests of the package with all mutants in it. Where the compiler
// refuses a line, that line has no mutants.
func (d *driver) compile(ctx context.Context, p *goPackage, exports map[string]string) (*switchable, error) {
	dir, err := os.MkdirTemp(d.scratch, p.Name)
	if err != nil {
		return nil, err
	}
	s := &switchable{goPackage: p, own: suite{dir: p.Dir, binary: filepath.Join(dir, "test")}}
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

// exportsOf returns the files with the types of everything that the package imports.
func exportsOf(ctx context.Context, p *goPackage) (map[string]string, error) {
	text, err := at(ctx, p.Dir, "go", "list", "-export", "-deps", "-f", "{{.ImportPath}} {{.Export}}", ".").Output()
	if err != nil {
		return nil, fmt.Errorf("go list -export: %w", err)
	}
	exports := make(map[string]string)
	for line := range strings.Lines(string(text)) {
		if path, file, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
			exports[path] = file
		}
	}
	return exports, nil
}

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

// trace runs every test alone, without a mutant, to see how long it takes and which
// mutants it reaches.
func (d *driver) trace(ctx context.Context, s *switchable) error {
	for _, of := range append([]*suite{&s.own}, s.others...) {
		list, err := at(ctx, of.dir, of.binary, "-test.list", "^(Test|Fuzz|Example)").Output()
		if err != nil {
			return fmt.Errorf("%s: %w", of.dir, err)
		}
		tests, err := d.traceAll(ctx, of, strings.Fields(string(list)))
		if err != nil {
			return err
		}
		slices.SortFunc(tests, func(a, b test) int { return cmp.Compare(a.took, b.took) })
		s.tests = append(s.tests, tests...)
	}
	return nil
}

func (d *driver) traceAll(ctx context.Context, of *suite, names []string) ([]test, error) {
	tests, failures := make([]test, len(names)), make([]error, len(names))
	var working sync.WaitGroup
	next := make(chan int, len(names))
	for i := range names {
		next <- i
	}
	close(next)
	for range d.workers {
		working.Go(func() {
			for i := range next {
				tests[i], failures[i] = of.traceOne(ctx, names[i], fmt.Sprintf("%s.trace%d", of.binary, i))
			}
		})
	}
	working.Wait()
	return tests, errors.Join(failures...)
}

func (s *suite) traceOne(ctx context.Context, name, path string) (test, error) {
	t := test{suite: s, name: name, reaches: make(map[int]bool)}
	c := at(ctx, s.dir, s.binary, append([]string{"-test.run=^" + name + "$", "-test.timeout=5m"}, s.arguments...)...)
	c.Env = append(c.Env, "MUTANT_TRACE="+path)
	began := time.Now()
	if out, err := c.CombinedOutput(); err != nil {
		return t, fmt.Errorf("%s fails as it is: %w\n%s", name, err, out)
	}
	t.took = time.Since(began)
	text, err := os.ReadFile(path) //nolint:gosec // written a moment ago
	if errors.Is(err, os.ErrNotExist) {
		return t, nil
	}
	for line := range strings.Lines(string(text)) {
		number, _ := strconv.Atoi(strings.TrimSpace(line)) // 0, which is none, for half a line
		t.reaches[number] = true
	}
	return t, err
}

// batchTime is about how long the tests of a batch take: the first one that fails ends
// them all.
const batchTime = 3 * time.Second

// try lets the tests that reach the mutant meet it.
func (s *switchable) try(ctx context.Context, m mutant) (outcome, by string) {
	outcome = notReached
	var batch []test
	var took time.Duration
	for i := 0; i <= len(s.tests); i++ {
		last := i == len(s.tests)
		if !last && !s.tests[i].reaches[m.number] {
			continue
		}
		if len(batch) > 0 && (last || took > batchTime || s.tests[i].suite != batch[0].suite) {
			if outcome, by = meet(ctx, m, batch, took); outcome != survived {
				return outcome, by
			}
			batch, took = nil, 0
		}
		if !last {
			batch, took = append(batch, s.tests[i]), took+s.tests[i].took
		}
	}
	return outcome, by
}

// meet runs some tests of a suite until the first one fails. Parallel tests do not heed
// -failfast, so they are ended from here. What allocates without end is ended by the limit
// of the shell.
func meet(ctx context.Context, m mutant, tests []test, usually time.Duration) (outcome, by string) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second+5*usually)
	defer cancel()
	names := make([]string, len(tests))
	for i, t := range tests {
		names[i] = t.name
	}
	of := tests[0].suite
	c := at(ctx, of.dir, "sh", append([]string{
		"-c", `ulimit -v 6000000; exec "$0" "$@"`, of.binary,
		"-test.timeout=1h", "-test.failfast", "-test.run=^(" + strings.Join(names, "|") + ")$",
	}, of.arguments...)...)
	c.Env = append(c.Env, "MUTANT="+strconv.Itoa(m.number))
	w := &failureWatch{ended: cancel}
	c.Stdout, c.Stderr = w, w
	err := c.Run()
	switch {
	case w.failure != "":
		return killed, w.failure
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return timedOut, ""
	case err != nil:
		return killed, err.Error()
	}
	return survived, ""
}

// failureWatch ends a run at the first line that says that a test has failed.
type failureWatch struct {
	line    []byte
	failure string
	ended   func()
}

func (w *failureWatch) Write(text []byte) (int, error) {
	for _, b := range text {
		if b != '\n' {
			w.line = append(w.line, b)
			continue
		}
		line := string(w.line)
		w.line = w.line[:0]
		for _, sign := range []string{"--- FAIL", "panic: ", "fatal error: ", "goleak: ", "FAIL"} {
			if w.failure == "" && strings.HasPrefix(strings.TrimSpace(line), sign) {
				w.failure = strings.TrimSpace(line)
				w.ended()
			}
		}
	}
	return len(text), nil
}
