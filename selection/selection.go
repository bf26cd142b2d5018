// Package selection holds the vocabulary of picking among the providers of a group: the
// interface that strategies implement, their view of the candidates, and the policy and
// requirements around them. Package selectors has ready-made strategies.
//
// A strategy of your own is a function of that view:
//
//	cheapest := selection.New("CHEAPEST", selection.Func(func(v selection.View) int {
//		best := v.Next(0)
//		for i := best; i >= 0; i = v.Next(i + 1) {
//			if v.At(i).Cost() < v.At(best).Cost() {
//				best = i
//			}
//		}
//		return best
//	}))
package selection

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/capreg/registry/internal/check"
)

// Selector picks among the eligible candidates of one group.
type Selector interface {
	// Pick returns the index of the candidate to call, which must be eligible. After any other
	// answer, and after a panic, the first eligible candidate is used and an event reports the
	// fault.
	//
	// It runs in the goroutine of the look-up, under no lock, concurrently with other picks,
	// and should take nanoseconds: it must not block. After a failure it runs again for the
	// same call, without the candidates already tried.
	//
	// State belongs into the view ([View.Turn], [View.Random], [View.State]),
	// which is kept for each group and kind of query while members come and go. When
	// [View.Peeking] is true the pick is only an explanation, and must not change anything.
	Pick(v View) int
}

// Func is a function that implements [Selector].
type Func func(v View) int

// Pick calls the function.
func (f Func) Pick(v View) int { return f(v) }

// Describer is a [Selector] that can explain its rating of a candidate. It must change nothing.
type Describer interface {
	// Describe returns the rating of candidate i of the view.
	Describe(v View, i int) Detail
}

// Detail is a selector's rating of one candidate, for explanations.
type Detail struct {
	// Score is the compared value, in the unit that Words name.
	Score float64 `json:"score"`
	// Words name the score, such as "load" (less is better).
	Words string `json:"words,omitempty"`
	// Factors are the parts of the score.
	Factors []FactorValue `json:"factors,omitempty"`
}

// FactorValue is one row of a factor table.
type FactorValue struct {
	// Name is the name of the factor, Weight its share of the score.
	Name   string  `json:"name"`
	Weight float64 `json:"weight"`
	// Value is from 0, for bad, to 1, for good.
	Value float64 `json:"value"`
}

// String returns score and factors in one line.
func (d Detail) String() string {
	var text strings.Builder
	fmt.Fprintf(&text, "%s %.4g", d.Words, d.Score)
	for i, f := range d.Factors {
		separator := ", "
		if i == 0 {
			separator = " = "
		}
		fmt.Fprintf(&text, "%s%.2f %s %.2f", separator, f.Weight, f.Name, f.Value)
	}
	return text.String()
}

// Strategy decides which eligible candidate of a group is picked: a [Selector] under a name.
// Two strategies of one name are the same, so a strategy with settings must have them in its
// name.
//
// The zero value keeps the strategy of the group; a new group then gets [Fallback]. A Strategy
// reads and writes text and JSON as its name, FALLBACK and ROUND_ROBIN in any case; the zero
// value is the empty text. Any other name that was read refers to a strategy that the registry
// knows by that name, or that the group has. A Strategy is immutable and safe for concurrent
// use.
type Strategy struct{ kind *kind }

// kind is a strategy that is not zero.
type kind struct {
	name     string
	selector Selector // nil: one of the two that registries bring, or only a name
	builtIn  bool
	made     bool // by New: a selector and a name of its own are required
}

//nolint:gochecknoglobals // immutable
var (
	fallback   = &kind{name: "FALLBACK", builtIn: true}
	roundRobin = &kind{name: "ROUND_ROBIN", builtIn: true}
)

// longestName bounds the name of a strategy, which appears in every listing.
const longestName = 256

// New returns a strategy. It never fails: a bad name (empty, longer than 256 bytes, not
// printable, FALLBACK, ROUND_ROBIN) or a nil selector is reported by the first use of the
// strategy, and by [Strategy.Check].
func New(name string, selector Selector) Strategy {
	return Strategy{&kind{name: name, selector: selector, made: true}}
}

// Fallback picks the first eligible candidate in the order of priority and registration, always
// the same while it stays eligible.
func Fallback() Strategy { return Strategy{fallback} }

// RoundRobin rotates over the eligible candidates; priorities do not matter inside
// such a group.
func RoundRobin() Strategy { return Strategy{roundRobin} }

// IsZero reports whether the strategy is the zero value.
func (s Strategy) IsZero() bool { return s.kind == nil }

// String returns the name, such as "ROUND_ROBIN".
func (s Strategy) String() string {
	if s.kind == nil {
		return ""
	}
	return s.kind.name
}

// Selector returns the selector; nil for FALLBACK and ROUND_ROBIN, which are built into the
// registry, and for a strategy that is only a name.
func (s Strategy) Selector() Selector {
	if s.kind == nil {
		return nil
	}
	return s.kind.selector
}

// Same reports whether the strategies have the same name.
func (s Strategy) Same(other Strategy) bool {
	return s.kind == other.kind || s.kind != nil && other.kind != nil && s.kind.name == other.kind.name
}

// Named reports whether the strategy is only a name that a registry has to look up.
func (s Strategy) Named() bool { return s.kind != nil && !s.kind.made && !s.kind.builtIn }

// Check returns an error, which matches registry.ErrInvalid, if the name or the selector of the
// strategy is invalid. It does not check that a registry knows the name.
func (s Strategy) Check() error {
	if s.kind == nil || s.kind.builtIn {
		return nil
	}
	switch name := s.kind.name; {
	case strings.EqualFold(name, fallback.name), strings.EqualFold(name, roundRobin.name):
		return invalidf("selection: the strategy %q is the registry's own", name)
	case name == "":
		return invalidf("selection: the strategy has no name")
	case len(name) > longestName:
		return invalidf("selection: the name of the strategy has %d bytes: want at most %d", len(name), longestName)
	case !utf8.ValidString(name) || strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }):
		return invalidf("selection: the name of the strategy %q cannot be printed", name)
	case strings.TrimSpace(name) != name:
		return invalidf("selection: the name of the strategy %q has spaces at its ends", name)
	case s.kind.made && check.IsNil(s.kind.selector):
		return invalidf("selection: the strategy %q has no selector", name)
	}
	return nil
}

// invalidError is the error of bad input. It matches registry.ErrInvalid.
type invalidError string

func invalidf(format string, args ...any) error { return invalidError(fmt.Sprintf(format, args...)) }

func (e invalidError) Error() string { return string(e) }

func (invalidError) Is(target error) bool { return target == check.ErrInvalid }

// MarshalText returns the name, or the error of [Strategy.Check].
func (s Strategy) MarshalText() ([]byte, error) {
	if err := s.Check(); err != nil {
		return nil, err
	}
	return []byte(s.String()), nil
}

// UnmarshalText accepts a name. One that [Strategy.Check] refuses is an error and
// changes nothing.
func (s *Strategy) UnmarshalText(text []byte) error {
	name := string(text)
	if name == "" {
		s.kind = nil
		return nil
	}
	for _, own := range []*kind{fallback, roundRobin} {
		if strings.EqualFold(name, own.name) {
			s.kind = own
			return nil
		}
	}
	named := Strategy{&kind{name: name}}
	if err := named.Check(); err != nil {
		return err
	}
	*s = named
	return nil
}
