// Command mutate changes the library in one place at a time and looks whether a test of
// that package notices: those it finds are killed, the others survive and are printed,
// for somebody to look at.
//
//	go run ./internal/prooftest/mutate -sample 300 . ./internal/...
//
// All mutants of a package are compiled at once, into files of an overlay in which each
// can be switched on, so that the tree stays as it is. First every test runs alone, to
// see which mutants it reaches; then each mutant meets the tests that reach it, the
// quickest first. What runs for too long is killed. Constants, types and strings are not
// changed. With -write the figures go into the block of a document that is marked for them.
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

// result is what became of a mutant.
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
	except  *regexp.Regexp
	only    *regexp.Regexp
	log     string
	write   string
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

// goPackage is what `go list` says of a package.
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

// at is a command in the folder of the package, outside the workspace.
func at(ctx context.Context, p *goPackage, name string, arguments ...string) *exec.Cmd {
	c := command(ctx, name, arguments...)
	c.Dir = p.Dir
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

	binary  string
	mutants []mutant
	tests   []test
}

// test is one test, how long it takes, and the mutants that it reaches.
type test struct {
	name    string
	took    time.Duration
	reaches map[int]bool
}

func (d *driver) mutatePackage(ctx context.Context, p *goPackage) error {
	s, err := d.compile(ctx, p)
	if err != nil || len(s.mutants) == 0 {
		return err
	}
	d.all[p.ImportPath] = len(s.mutants)
	drawn := d.draw(s.mutants)
	if err := d.trace(ctx, s); err != nil {
		return err
	}
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
func (d *driver) compile(ctx context.Context, p *goPackage) (*switchable, error) {
	exports, err := exportsOf(ctx, p)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(d.scratch, p.Name)
	if err != nil {
		return nil, err
	}
	s := &switchable{goPackage: p, binary: filepath.Join(dir, "test")}
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
		out, err := at(ctx, p, "go", "test", "-c", "-vet=off", "-ldflags=-s -w", "-overlay", overlay, "-o", s.binary, ".").CombinedOutput()
		if err == nil {
			s.mutants = f.found
			return s, nil
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

var refused = regexp.MustCompile(`(?m)([\w.]+\.go:\d+):\d+: `)

// exportsOf returns the files with the types of everything that the package imports.
func exportsOf(ctx context.Context, p *goPackage) (map[string]string, error) {
	text, err := at(ctx, p, "go", "list", "-export", "-deps", "-f", "{{.ImportPath}} {{.Export}}", ".").Output()
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
	list, err := at(ctx, s.goPackage, s.binary, "-test.list", "^(Test|Fuzz|Example)").Output()
	if err != nil {
		return fmt.Errorf("%s: %w", s.ImportPath, err)
	}
	names := strings.Fields(string(list))
	s.tests = make([]test, len(names))
	var working sync.WaitGroup
	errs := make(chan error, len(names))
	next := make(chan int, len(names))
	for i := range names {
		next <- i
	}
	close(next)
	for range d.workers {
		working.Go(func() {
			for i := range next {
				var err error
				s.tests[i], err = s.traceOne(ctx, names[i], filepath.Join(filepath.Dir(s.binary), "trace"+strconv.Itoa(i)))
				errs <- err
			}
		})
	}
	working.Wait()
	close(errs)
	for failure := range errs {
		err = errors.Join(err, failure)
	}
	slices.SortFunc(s.tests, func(a, b test) int { return cmp.Compare(a.took, b.took) })
	return err
}

func (s *switchable) traceOne(ctx context.Context, name, path string) (test, error) {
	t := test{name: name, reaches: make(map[int]bool)}
	c := at(ctx, s.goPackage, s.binary, "-test.run=^"+name+"$", "-test.timeout=5m")
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
	var batch []string
	var took time.Duration
	flush := func() bool {
		if len(batch) == 0 {
			return false
		}
		outcome, by = s.meet(ctx, m, batch, took)
		batch, took = nil, 0
		return outcome != survived
	}
	for _, t := range s.tests {
		if !t.reaches[m.number] {
			continue
		}
		batch, took = append(batch, t.name), took+t.took
		if took > batchTime && flush() {
			return outcome, by
		}
	}
	flush()
	return outcome, by
}

// meet runs some tests until the first one fails. Parallel tests do not heed -failfast,
// so they are ended from here. What allocates without end is ended by the limit of the
// shell.
func (s *switchable) meet(ctx context.Context, m mutant, tests []string, usually time.Duration) (outcome, by string) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second+5*usually)
	defer cancel()
	c := at(ctx, s.goPackage, "sh", "-c", `ulimit -v 6000000; exec "$0" "$@"`, s.binary,
		"-test.timeout=1h", "-test.failfast", "-test.run=^("+strings.Join(tests, "|")+")$")
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
