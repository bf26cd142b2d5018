// Package bars holds the bars that the registry has to reach against its parts, and
// how that is measured.
package bars

import (
	"context"
	"fmt"

	"github.com/capreg/registry/benchmarks/internal/contest"
)

// Bar is a ratio that is not to be exceeded.
type Bar struct {
	Name  string
	Ratio float64
}

// Figure is the measurement of a bar, in nanoseconds unless the name of the bar has
// another unit. Where a bar is absolute, Theirs is the allowed value.
type Figure struct{ Ours, Theirs float64 }

// Ratio returns ours / theirs; zero for nothing, also of nothing.
func (f Figure) Ratio() float64 {
	if f.Ours == 0 {
		return 0
	}
	return f.Ours / f.Theirs
}

// Met reports whether the figure is within the bar.
func (b Bar) Met(f Figure) bool { return f.Ratio() <= b.Ratio }

// Word returns "ok" or "short".
func (b Bar) Word(f Figure) string {
	if b.Met(f) {
		return "ok"
	}
	return "short"
}

// Line returns the bar as a line for programs: name, ours, theirs, ratio, bar, word.
func (b Bar) Line(f Figure) string {
	return fmt.Sprintf("%s %.1f %.1f %.3f %.3f %s", b.Name, f.Ours, f.Theirs, f.Ratio(), b.Ratio, b.Word(f))
}

// Race is one measurement, which gives the figure of each of its bars.
type Race struct {
	Bars    []Bar
	Measure func(context.Context, contest.Settings) ([]Figure, error)
}
