package main

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
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
func (t tally) rate() float64 {
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
	row := func(name string, t tally) {
		fmt.Fprintf(&table, "| %s | %d | %d | %d | %d | %.1f %% |\n",
			name, t.killed+t.survived+t.uncovered, t.killed, t.survived, t.uncovered, t.rate())
	}
	for _, name := range slices.Sorted(maps.Keys(packages)) {
		_, short, nested := strings.Cut(name, "/registry/")
		if !nested {
			short = "registry"
		}
		row(short, *packages[name])
	}
	row("all", all)
	fmt.Println()
	for _, r := range d.results {
		if r.Outcome == survived || r.Outcome == notCovered {
			fmt.Printf("%s: %v\n", r.Outcome, r.mutant)
		}
	}
	fmt.Printf("\n%s\n%d that do not compile are left out\n", table.String(), all.broken)
	if d.write != "" {
		if err := replaceBlock(d.write, "mutation", table.String()); err != nil {
			return err
		}
	}
	if all.rate() < d.least {
		return fmt.Errorf("%.1f %% of the mutants are killed, less than %.1f %%", all.rate(), d.least)
	}
	return nil
}

// replaceBlock replaces what stands between the two marks of a name in a document.
func replaceBlock(path, name, content string) error {
	text, err := os.ReadFile(path) //nolint:gosec // a document of the tree
	if err != nil {
		return err
	}
	begin, end := "<!-- "+name+": begin -->\n", "<!-- "+name+": end -->"
	before, rest, found := strings.Cut(string(text), begin)
	_, after, ended := strings.Cut(rest, end)
	if !found || !ended {
		return fmt.Errorf("%s has no block %q", path, name)
	}
	return os.WriteFile(path, []byte(before+begin+content+end+after), 0o644) //nolint:gosec // a document that all may read
}
