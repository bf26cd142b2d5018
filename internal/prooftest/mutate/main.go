// Command mutate changes the library in one place at a time and looks whether a test
// of that package notices: those it finds are killed, the others survive and are
// printed, for somebody to look at.
//
//	go run ./internal/prooftest/mutate -sample 300 . ./internal/...
//
// A change is compiled with an overlay, so that the tree stays as it is. What does not
// compile is no mutant; what runs for too long is killed. With -write the figures go
// into the block of a document that is marked for them.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"hash/fnv"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
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
	killed      = "killed"
	timedOut    = "timed out"
	survived    = "survived"
	notCovered  = "not covered"
	notCompiled = "not compiled"
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
	except  *regexp.Regexp
	only    *regexp.Regexp
	slow    string
	log     string
	write   string
	scratch string
	known   map[string]result
	results []result
}

func run(ctx context.Context, arguments []string) error {
	var d driver
	flags := flag.NewFlagSet("mutate", flag.ContinueOnError)
	flags.IntVar(&d.sample, "sample", 0, "at most so many mutants of each package, drawn with the seed; 0: all")
	flags.Uint64Var(&d.seed, "seed", 1, "of the sample")
	flags.Float64Var(&d.least, "least", 80, "the share of killed mutants, in percent, below which this fails")
	except := flags.String("except", "", "files that are left out, as a regular expression")
	only := flags.String("only", "", "the files that are changed, as a regular expression")
	flags.StringVar(&d.slow, "slow", "", "tests that only run where no other test kills, as a regular expression")
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
	ImportPath, Dir                    string
	GoFiles, TestGoFiles, XTestGoFiles []string
	Module                             struct{ Dir string }
	binary, overlay, changed           string
	limit                              time.Duration
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

func (d *driver) mutatePackage(ctx context.Context, p *goPackage) error {
	mutants, err := d.draw(p)
	if err != nil || len(mutants) == 0 {
		return err
	}
	p.binary, p.overlay, p.changed = filepath.Join(d.scratch, "test"), filepath.Join(d.scratch, "overlay.json"), filepath.Join(d.scratch, "changed.go")
	profile := filepath.Join(d.scratch, "cover.out")
	began := time.Now()
	if out, err := d.at(ctx, p, "go", "test", "-count=1", "-coverprofile", profile, ".").CombinedOutput(); err != nil {
		return fmt.Errorf("%s fails as it is: %w\n%s", p.ImportPath, err, out)
	}
	p.limit = 20*time.Second + 3*time.Since(began)
	covered, err := readProfile(profile)
	if err != nil {
		return err
	}
	fmt.Printf("%s: %d mutants, each at most %v\n", p.ImportPath, len(mutants), p.limit.Round(time.Second))
	for i, m := range mutants {
		if err := ctx.Err(); err != nil {
			return err
		}
		r, ran := d.known[key(p.ImportPath, m)]
		if !ran {
			began := time.Now()
			r = result{mutant: m, Package: p.ImportPath}
			if covered.isUncovered(p.ImportPath+"/"+m.File, m.Line) {
				r.Outcome = notCovered
			} else if r.Outcome, r.By, err = d.try(ctx, p, m); err != nil {
				return err
			}
			r.Took = time.Since(began)
		}
		if err := d.note(r); err != nil {
			return err
		}
		if r.Outcome != killed && r.Outcome != notCompiled || i%25 == 24 {
			fmt.Printf("%4d/%d %s: %v %s\n", i+1, len(mutants), r.Outcome, r.mutant, r.By)
		}
	}
	return nil
}

// draw returns the mutants of a package that are tried, in an order that depends on
// nothing but the seed.
func (d *driver) draw(p *goPackage) (drawn []mutant, err error) {
	for _, name := range p.GoFiles {
		if d.except != nil && d.except.MatchString(name) || d.only != nil && !d.only.MatchString(name) {
			continue
		}
		mutants, err := mutantsOf(filepath.Join(p.Dir, name), name)
		if err != nil {
			return nil, err
		}
		drawn = append(drawn, mutants...)
	}
	place := func(m mutant) uint64 {
		h := fnv.New64a()
		_, _ = fmt.Fprint(h, d.seed, m)
		return h.Sum64()
	}
	slices.SortStableFunc(drawn, func(a, b mutant) int {
		if place(a) < place(b) {
			return -1
		}
		return 1
	})
	if d.sample > 0 && d.sample < len(drawn) {
		drawn = drawn[:d.sample]
	}
	return drawn, nil
}

// at is a command in the folder of the package, outside the workspace.
func (d *driver) at(ctx context.Context, p *goPackage, name string, arguments ...string) *exec.Cmd {
	c := command(ctx, name, arguments...)
	c.Dir = p.Dir
	c.Env = append(os.Environ(), "GOWORK=off")
	return c
}

// try compiles and tests one mutant.
func (d *driver) try(ctx context.Context, p *goPackage, m mutant) (outcome, by string, err error) {
	path := filepath.Join(p.Dir, m.File)
	text, err := os.ReadFile(path) //nolint:gosec // a file of the tree
	if err != nil {
		return "", "", err
	}
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{path: p.changed}})
	if err != nil {
		return "", "", err
	}
	if err := errors.Join(os.WriteFile(p.changed, m.apply(text), 0o600), os.WriteFile(p.overlay, overlay, 0o600)); err != nil {
		return "", "", err
	}
	build := d.at(ctx, p, "go", "test", "-c", "-ldflags=-s -w", "-overlay", p.overlay, "-o", p.binary, ".")
	if out, err := build.CombinedOutput(); err != nil {
		if ctx.Err() != nil {
			return "", "", ctx.Err()
		}
		return notCompiled, lastLine(out), nil
	}
	passes := [][]string{nil}
	if d.slow != "" {
		passes = [][]string{{"-test.skip=" + d.slow}, {"-test.run=" + d.slow}}
	}
	for _, pass := range passes {
		if outcome, by = d.test(ctx, p, pass); outcome != survived {
			break
		}
	}
	return outcome, by, ctx.Err()
}

// test runs the tests of the package until the first one fails. Parallel tests do not
// heed -failfast, so they are ended from here. What allocates without end is ended by
// the limit of the shell.
func (d *driver) test(ctx context.Context, p *goPackage, pass []string) (outcome, by string) {
	ctx, cancel := context.WithTimeout(ctx, p.limit)
	defer cancel()
	c := d.at(ctx, p, "sh", append([]string{
		"-c", `ulimit -v 6000000; exec "$0" "$@"`, p.binary, "-test.timeout=" + (2 * p.limit).String(), "-test.failfast",
	}, pass...)...)
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

func lastLine(text []byte) string {
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return lines[len(lines)-1]
}

// profile says of the lines of each file how often they ran.
type profile map[string][]block

type block struct{ from, to, count int }

func readProfile(path string) (profile, error) {
	text, err := os.ReadFile(path) //nolint:gosec // written a moment ago
	if err != nil {
		return nil, err
	}
	blocks := make(profile)
	for _, line := range strings.Split(string(text), "\n")[1:] {
		file, rest, found := strings.Cut(line, ":")
		if !found {
			continue
		}
		var b block
		var fromColumn, toColumn, statements int
		if _, err := fmt.Sscanf(rest, "%d.%d,%d.%d %d %d", &b.from, &fromColumn, &b.to, &toColumn, &statements, &b.count); err != nil {
			return nil, fmt.Errorf("%s: %q: %w", path, line, err)
		}
		blocks[file] = append(blocks[file], b)
	}
	return blocks, nil
}

// isUncovered reports whether the line is in blocks that never ran and in no other.
func (p profile) isUncovered(file string, line int) bool {
	inside := false
	for _, b := range p[file] {
		if b.from <= line && line <= b.to {
			if b.count > 0 {
				return false
			}
			inside = true
		}
	}
	return inside
}
