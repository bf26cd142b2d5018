// Command performance measures the registry and its peers, and writes what it
// finds as a document.
//
//	go run ./benchmarks/performance
//
// writes docs/performance.md; -o writes another file. It takes some minutes. Run it
// on a machine that does nothing else.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"

	"github.com/capreg/registry/benchmarks/internal/contest"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "performance:", err)
		os.Exit(1) //nolint:gocritic // the process ends; stop has nothing left to undo
	}
}

// settings select the measurements.
type settings struct {
	contest.Settings

	many  int   // providers that are registered and removed for a bar
	sizes []int // of registries
}

// collecting are the settings in which garbage collections count: in a turn are many.
func (s settings) collecting() contest.Settings {
	const longer = 200
	return contest.Settings{Rounds: min(s.Rounds, 11), Turns: 1, Turn: longer * s.Turn}
}

func run(ctx context.Context, arguments []string) error {
	flags := flag.NewFlagSet("performance", flag.ContinueOnError)
	s := settings{many: 100_000}
	to := flags.String("o", "docs/performance.md", "the file to write")
	largest := flags.Int("largest", 100_000, "the largest registry")
	s.Flags(flags)
	if err := flags.Parse(arguments); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return err
	}
	if err := s.Check(); err != nil {
		return err
	}
	if *largest < 1 {
		return errors.New("-largest is more than 0")
	}
	for size := 1; size <= *largest; size *= 10 {
		s.sizes = append(s.sizes, size)
	}
	s.many = min(s.many, *largest)
	var text bytes.Buffer
	if err := document(ctx, &text, s); err != nil {
		return err
	}
	return os.WriteFile(*to, text.Bytes(), 0o644) //nolint:gosec // a document that all may read
}
