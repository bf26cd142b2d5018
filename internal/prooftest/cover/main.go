// Command cover measures the share of statements of the root and internal packages that are
// reached by the tests of those packages together, and fails when it is too low.
//
//	go run ./internal/prooftest/cover -least 92
//
// With -missing it lists the statements that are not reached; with -write the figures go into the block
// of a document that is marked for them.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"

	"github.com/capreg/registry/internal/figures"
)

const module = "github.com/capreg/registry"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "cover:", err)
		os.Exit(1) //nolint:gocritic // the process ends; stop has nothing left to undo
	}
}

func run(ctx context.Context, arguments []string) error {
	flags := flag.NewFlagSet("cover", flag.ContinueOnError)
	least := flags.Float64("least", 92, "the share of statements, in percent, below which this fails")
	missing := flags.Bool("missing", false, "list what is not reached")
	write := flags.String("write", "", "a document whose block of figures is replaced")
	if err := flags.Parse(arguments); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return err
	}
	scratch, err := os.MkdirTemp("", "cover")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch) //nolint:errcheck // it is a folder for scratch
	profile := filepath.Join(scratch, "profile")
	packages, err := covered(ctx)
	if err != nil {
		return err
	}
	test := exec.CommandContext(ctx, "go", append([]string{ //nolint:gosec // go, with packages that it has listed
		"test", "-count=1", "-coverpkg=" + strings.Join(packages, ","), "-coverprofile=" + profile,
	}, append(packages, module+"/test")...)...)
	if out, err := test.CombinedOutput(); err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	text, err := os.ReadFile(profile) //nolint:gosec // written a moment ago
	if err != nil {
		return err
	}
	blocks, err := parse(string(text))
	if err != nil {
		return err
	}
	return report(blocks, *least, *missing, *write)
}

// testkit, with what is below it, has the helpers of the tests, which are not measured.
const testkit = module + "/internal/testkit"

// covered returns the root package and those of internal that belong to its module, but for the kit of tests.
func covered(ctx context.Context) ([]string, error) {
	list := exec.CommandContext(ctx, "go", "list", ".", "./internal/...")
	text, err := list.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w", err)
	}
	packages := strings.Fields(string(text))
	if len(packages) == 0 || packages[0] != module {
		return nil, fmt.Errorf("this is to be run in the folder of %s", module)
	}
	return slices.DeleteFunc(packages, func(path string) bool { return strings.HasPrefix(path, testkit) }), nil
}

// block is some statements in a row, by where they are.
type block struct {
	place      string
	statements int
	reached    bool
}

// parse reads a profile. Each package's tests have written a count for each block, so
// that blocks come up more than once.
func parse(text string) (blocks map[string]block, err error) {
	blocks = make(map[string]block)
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) != 3 {
			continue // the first line is the mode
		}
		b := block{place: fields[0], reached: fields[2] != "0"}
		if _, err := fmt.Sscan(fields[1], &b.statements); err != nil {
			return nil, fmt.Errorf("%q: %w", line, err)
		}
		b.reached = b.reached || blocks[b.place].reached
		blocks[b.place] = b
	}
	return blocks, nil
}

type sum struct{ statements, reached int }

func (s *sum) add(b block) {
	s.statements += b.statements
	if b.reached {
		s.reached += b.statements
	}
}

func (s *sum) share() float64 { return 100 * float64(s.reached) / float64(max(s.statements, 1)) }

func report(blocks map[string]block, least float64, missing bool, write string) error {
	packages := make(map[string]*sum)
	var all sum
	for _, place := range slices.Sorted(maps.Keys(blocks)) {
		b := blocks[place]
		name := strings.TrimPrefix(strings.TrimPrefix(place[:strings.LastIndex(place, "/")], module), "/")
		if name == "" {
			name = "registry"
		}
		if packages[name] == nil {
			packages[name] = &sum{}
		}
		packages[name].add(b)
		all.add(b)
		if missing && !b.reached {
			fmt.Println(strings.TrimPrefix(place, module+"/"))
		}
	}
	var table strings.Builder
	fmt.Fprint(&table, "| package | statements | reached |\n|---|---|---|\n")
	for _, name := range slices.Sorted(maps.Keys(packages)) {
		fmt.Fprintf(&table, "| %s | %d | %.1f %% |\n", name, packages[name].statements, packages[name].share())
	}
	fmt.Fprintf(&table, "| all | %d | %.1f %% |\n", all.statements, all.share())
	fmt.Print(table.String())
	if write != "" {
		if err := figures.Replace(write, "coverage", table.String()); err != nil {
			return err
		}
	}
	if all.share() < least {
		return fmt.Errorf("%.1f %% of the statements are reached, less than %.1f %%", all.share(), least)
	}
	return nil
}
