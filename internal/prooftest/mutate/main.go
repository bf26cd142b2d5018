// Command mutate changes the library in one place at a time and runs the tests of that
// package: a mutant that a test detects is killed, the others survive and are printed for
// review.
//
//	go run ./internal/prooftest/mutate -sample 300 . ./internal/...
//
// All mutants of a package are compiled at once, into files of an overlay in which each can
// be switched on, so that the tree stays as it is. First every test runs alone, to record
// the mutants that it reaches; then each mutant runs against the tests that reach it, the
// quickest first. The tests of other packages named with -with run against the survivors. A
// run that takes too long counts as killed. Constants, types and strings are not changed,
// nor are capacities and the lengths of texts. With -write the figures go into the block of
// a document that is marked for them.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"slices"
	"strings"
	"sync"
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
	// arguments are those for the tests of the packages themselves.
	arguments []string
	scratch   string
	known     map[string]result

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
	skip := flags.String("skip", "", "tests of the packages that are left out, as a regular expression: those of allocations, which mutants add to")
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
	if *skip != "" {
		d.arguments = []string{"-test.skip=" + *skip}
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
