// Command fuzz runs every fuzz target of every module for the given time, one after
// another, and fails when one of them finds something.
//
//	go run ./internal/prooftest/fuzz -for 30s
//
// With -write a table of the runs goes into the block of a document that is marked for it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/capreg/registry/internal/figures"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "fuzz:", err)
		os.Exit(1) //nolint:gocritic // the process ends; stop has nothing left to undo
	}
}

// target is a fuzz target and where it is.
type target struct{ dir, importPath, name string }

func run(ctx context.Context, arguments []string, out io.Writer) error {
	flags := flag.NewFlagSet("fuzz", flag.ContinueOnError)
	flags.SetOutput(out)
	length := flags.Duration("for", 30*time.Second, "how long each target runs")
	only := flags.String("only", "", "the targets that run, as a regular expression")
	write := flags.String("write", "", "a document whose block of figures is replaced")
	if err := flags.Parse(arguments); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return err
	}
	wanted, err := regexp.Compile(*only)
	if err != nil {
		return err
	}
	targets, err := find(ctx)
	if err != nil {
		return err
	}
	var table strings.Builder
	fmt.Fprint(&table, "| target | executions | found |\n|---|---|---|\n")
	var failures []error
	for _, t := range targets {
		if !wanted.MatchString(t.name) {
			continue
		}
		executions, err := t.fuzz(ctx, *length)
		found := "nothing"
		if err != nil {
			found = "something"
			failures = append(failures, fmt.Errorf("%s of %s: %w", t.name, t.importPath, err))
		}
		row := fmt.Sprintf("| %s of %s | %s | %s |\n", t.name, t.short(), executions, found)
		if _, err := io.WriteString(out, row); err != nil {
			return err
		}
		table.WriteString(row)
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	if *write != "" {
		text := fmt.Sprintf("Each target for %v.\n\n%s", *length, table.String())
		failures = append(failures, figures.Replace(*write, "fuzz", text))
	}
	return errors.Join(failures...)
}

func (t target) short() string {
	_, short, nested := strings.Cut(t.importPath, "/registry/")
	if !nested {
		return "registry"
	}
	return short
}

// find returns the targets of all modules of the workspace.
func find(ctx context.Context) (targets []target, err error) {
	modules, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return nil, fmt.Errorf("go list -m: %w", err)
	}
	for module := range strings.FieldsSeq(string(modules)) {
		list := exec.CommandContext(ctx, "go", "list", "-f", "{{.Dir}} {{.ImportPath}} {{join .TestGoFiles \",\"}},{{join .XTestGoFiles \",\"}}", "./...")
		list.Dir = module
		packages, err := list.Output()
		if err != nil {
			return nil, fmt.Errorf("go list in %s: %w", module, err)
		}
		for line := range strings.Lines(string(packages)) {
			fields := strings.Fields(line)
			for file := range strings.SplitSeq(fields[2], ",") {
				if file == "" {
					continue
				}
				text, err := os.ReadFile(filepath.Join(fields[0], file)) //nolint:gosec // a file of the tree
				if err != nil {
					return nil, err
				}
				for _, found := range declaration.FindAllSubmatch(text, -1) {
					targets = append(targets, target{fields[0], fields[1], string(found[1])})
				}
			}
		}
	}
	return targets, nil
}

var (
	declaration = regexp.MustCompile(`(?m)^func (Fuzz\w+)\(\w+ \*testing\.F\)`)
	executions  = regexp.MustCompile(`execs: (\d+)`)
)

// mostShown bounds the output of a target that is printed with a finding.
const mostShown = 8 << 10

// fuzz runs one target and returns the number of executions.
func (t target) fuzz(ctx context.Context, length time.Duration) (count string, err error) {
	//nolint:gosec // go, with a target that was found in the tree
	command := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-fuzz", "^"+t.name+"$", "-fuzztime", length.String(), "-fuzzminimizetime", "10x", ".")
	command.Dir = t.dir
	text, err := command.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w\n%s", err, text[max(0, len(text)-mostShown):])
	}
	all := executions.FindAllStringSubmatch(string(text), -1)
	if len(all) == 0 {
		return "", fmt.Errorf("it did not run:\n%s", text)
	}
	return all[len(all)-1][1], nil
}
