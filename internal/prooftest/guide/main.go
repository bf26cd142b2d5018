// Command guide writes what the documents say of the code: the defaults and bounds of settings, the table of
// outcomes, rows of measurements, and, with -agent, what the example of an agent prints. It is run from the top of the
// repository.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/capreg/registry/internal/figures"
)

func main() {
	agent := flag.Bool("agent", false, "run examples/agent too, and write some of its lines into README.md")
	flag.Parse()
	if err := run(".", *agent); err != nil {
		fmt.Fprintln(os.Stderr, "guide:", err)
		os.Exit(1)
	}
}

// block is a generated part of a document.
type block struct {
	page, name string
	text       func(top string) (string, error)
}

// blocks lists the parts that depend on the code alone, so that a test can compare them.
func blocks() []block {
	return []block{
		{"docs/guide/defaults.md", "defaults", defaults},
		{"docs/guide/outcomes.md", "outcomes", func(string) (string, error) { return outcomes() }},
		{"docs/guide/outcomes.md", "statuses", func(string) (string, error) { return statuses(), nil }},
		{"docs/guide/outcomes.md", "codes", codes},
		{"docs/guide/logs.md", "levels", func(string) (string, error) { return logLevels(), nil }},
		{"README.md", "performance", performance},
	}
}

// run writes all blocks into the documents of the repository at top.
func run(top string, agent bool) error {
	all := blocks()
	if agent {
		all = append(all, block{"README.md", "agent", agentLines})
	}
	for _, b := range all {
		text, err := b.text(top)
		if err != nil {
			return fmt.Errorf("%s of %s: %w", b.name, b.page, err)
		}
		if err := figures.Replace(filepath.Join(top, b.page), b.name, text); err != nil {
			return err
		}
	}
	return nil
}

// measured are the rows of docs/performance.md that the README shows, by their section.
var measured = []struct{ section, row string }{ //nolint:gochecknoglobals // immutable
	{"Picking one of several", "**Get, FALLBACK**"},
	{"Picking one of several", "sync.Map load and type assertion"},
	{"A guarded call", "**Call**"},
	{"A guarded call", "context.WithTimeout and gobreaker/v2"},
	{"A guarded call", "**Call with retry, bulkhead and fallback**"},
	{"A guarded call", "failsafe-go fallback, retry, breaker, bulkhead, timeout"},
}

// performance returns rows of docs/performance.md: name, nanoseconds, allocations.
func performance(top string) (string, error) {
	page, err := os.ReadFile(filepath.Join(top, "docs/performance.md")) //nolint:gosec // a document of the tree
	if err != nil {
		return "", err
	}
	var table strings.Builder
	table.WriteString("| measured | ns | allocations |\n| --- | ---: | ---: |\n")
	for _, want := range measured {
		_, section, _ := strings.Cut(string(page), "\n## "+want.section+"\n")
		section, _, _ = strings.Cut(section, "\n## ")
		_, row, found := strings.Cut(section, "\n| "+want.row+" |")
		row, _, _ = strings.Cut(row, "\n")
		cells := strings.Split(row, "|")
		if !found || len(cells) < 7 {
			return "", fmt.Errorf("no row %q in %q", want.row, want.section)
		}
		fmt.Fprintf(&table, "| %s | %s | %s |\n", want.row, strings.TrimSpace(cells[0]), strings.TrimSpace(cells[5]))
	}
	return table.String(), nil
}

// shown matches the lines of the agent that the README shows, in their order.
var shown = []*regexp.Regexp{ //nolint:gochecknoglobals // immutable
	regexp.MustCompile(`^answers   openai, from`),
	regexp.MustCompile(`^script    openai answers 500`),
	regexp.MustCompile(`^answers   anthropic, from`),
	regexp.MustCompile(`^opened    openai: \d+ failures`),
	regexp.MustCompile(`^script    anthropic is rate limited`),
	regexp.MustCompile(`^cooling   anthropic: rate limited`),
	regexp.MustCompile(`^answers   the local servers`),
	regexp.MustCompile(`^script    anthropic has recovered`),
	regexp.MustCompile(`^cooled    anthropic`),
	regexp.MustCompile(`^served `),
}

// agentLines runs the agent and returns the lines that are shown.
func agentLines(top string) (string, error) {
	command := exec.Command("go", "run", "./examples/agent") //nolint:noctx // it ends by itself
	command.Dir, command.Stderr = top, os.Stderr
	output, err := command.Output()
	if err != nil {
		return "", err
	}
	return pickLines(string(output))
}

// pickLines returns the first line that matches each of the shown, each after the one before.
func pickLines(output string) (string, error) {
	picked, next := "```text\n", 0
	for line := range strings.Lines(output) {
		if next < len(shown) && shown[next].MatchString(line) {
			picked, next = picked+line, next+1
		}
	}
	if next < len(shown) {
		return "", fmt.Errorf("no line matches %v", shown[next])
	}
	return picked + "```\n", nil
}
