package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/capreg/registry/internal/figures"
)

// tally counts the outcomes of a package.
type tally struct{ all, killed, survived, unreached int }

func (t *tally) add(outcome string) {
	switch outcome {
	case killed, timedOut:
		t.killed++
	case survived:
		t.survived++
	case notReached:
		t.unreached++
	}
}

// rate is the share of the mutants tried that is killed, in percent.
func (t *tally) rate() float64 {
	if all := t.killed + t.survived + t.unreached; all > 0 {
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
			packages[r.Package] = &tally{all: d.all[r.Package]}
			all.all += d.all[r.Package]
		}
		packages[r.Package].add(r.Outcome)
		all.add(r.Outcome)
	}
	var table strings.Builder
	fmt.Fprintln(&table, "| package | mutants | tried | killed | survived | not reached | kill rate |")
	fmt.Fprintln(&table, "|---|---|---|---|---|---|---|")
	row := func(name string, t *tally) {
		fmt.Fprintf(&table, "| %s | %d | %d | %d | %d | %d | %.1f %% |\n",
			name, t.all, t.killed+t.survived+t.unreached, t.killed, t.survived, t.unreached, t.rate())
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
		if r.Outcome == survived || r.Outcome == notReached {
			fmt.Printf("%s: %v\n", r.Outcome, r.mutant)
		}
	}
	fmt.Printf("\n%s", table.String())
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
