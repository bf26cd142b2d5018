package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/capreg/registry/internal/figures"
)

// tally counts the outcomes of a package.
type tally struct{ killed, survived, uncovered, broken int }

func (t *tally) add(outcome string) {
	switch outcome {
	case killed, timedOut:
		t.killed++
	case survived:
		t.survived++
	case notCovered:
		t.uncovered++
	default:
		t.broken++
	}
}

// rate is the share of the mutants that compile which is killed, in percent.
func (t *tally) rate() float64 {
	if all := t.killed + t.survived + t.uncovered; all > 0 {
		return 100 * float64(t.killed) / float64(all)
	}
	return 100
}

// report prints the figures, and the mutants that are alive.
func (d *driver) report() error {
	packages := make(map[string]*tally)
	var all tally
	for _, r := range d.results {
		if packages[r.Package] == nil {
			packages[r.Package] = &tally{}
		}
		packages[r.Package].add(r.Outcome)
		all.add(r.Outcome)
	}
	var table strings.Builder
	fmt.Fprintln(&table, "| package | mutants | killed | survived | not reached | kill rate |")
	fmt.Fprintln(&table, "|---|---|---|---|---|---|")
	row := func(name string, t *tally) {
		fmt.Fprintf(&table, "| %s | %d | %d | %d | %d | %.1f %% |\n",
			name, t.killed+t.survived+t.uncovered, t.killed, t.survived, t.uncovered, t.rate())
	}
	for _, name := range slices.Sorted(maps.Keys(packages)) {
		_, short, nested := strings.Cut(name, "/registry/")
		if !nested {
			short = "registry"
		}
		row(short, packages[name])
	}
	row("all", &all)
	fmt.Println()
	for _, r := range d.results {
		if r.Outcome == survived || r.Outcome == notCovered {
			fmt.Printf("%s: %v\n", r.Outcome, r.mutant)
		}
	}
	fmt.Printf("\n%s\n%d that do not compile are left out\n", table.String(), all.broken)
	if d.write != "" {
		if err := figures.Replace(d.write, "mutation", table.String()); err != nil {
			return err
		}
	}
	if all.rate() < d.least {
		return fmt.Errorf("%.1f %% of the mutants are killed, less than %.1f %%", all.rate(), d.least)
	}
	return nil
}
