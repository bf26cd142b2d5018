// Package selection holds the words of choosing among the providers of a group:
// the interface that strategies implement, what they can see of each candidate,
// and the policy and requirements that surround them. Package selectors has the
// strategies that are ready to use.
//
// A strategy of your own is a function of what it sees:
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
	"errors"
	"fmt"
	"reflect"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Selector picks among the eligible candidates of one group.
type Selector interface {
	// Pick returns the index of the candidate to ask, which must be eligible.
	// Anything else, and a panic, stands for the first eligible one, and is told
	// in an event.
	//
	// It runs in the goroutine of the look-up, under no lock, at the same time as
	// other picks, and should take nanoseconds: it must not block. After a failure
	// it is asked again for the same call, without those that had their turn.
	//
	// What it remembers belongs into the [Cursor] of the view ([View.Turn],
	// [View.Random], [View.State]), which is kept for each group and kind of query
	// however members come and go. When [View.Peeking] is true somebody only wants
	// to know, and nothing may change.
	Pick(v View) int
}

// Func is a function that is a [Selector].
type Func func(v View) int

// Pick calls the function.
func (f Func) Pick(v View) int { return f(v) }

// Describer is a [Selector] that can say what it thinks of a candidate. It must
// change nothing.
type Describer interface {
	// Describe speaks of candidate i of the view.
	Describe(v View, i int) Detail
}

// Detail is what a selector says of one candidate, for explanations.
type Detail struct {
	// Score is what it compares, in the unit that Words name.
	Score float64 `json:"score"`
	// Words say what the score is, such as "load" (less is better).
	Words string `json:"words,omitempty"`
	// Factors are what a score is made of.
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

// Strategy is how a group picks among its eligible candidates: a [Selector] under
// a name. Two strategies of one name are the same, so the name of one with
// settings has to tell them.
//
// The zero value means "whatever the group has"; a new group then gets [Fallback].
// A Strategy reads and writes text and JSON as its name, FALLBACK and ROUND_ROBIN
// in any case; the zero value is the empty text. A name that was read and is none
// of these two stands for a strategy that the registry knows by that name, or that
// the group has. A Strategy is immutable and safe for concurrent use.
type Strategy struct{ kind *kind }

// kind is a strategy that is not zero.
type kind struct {
	name     string
	selector Selector // nil: one of the two that registries bring, or only a name
	builtIn  bool
	made     bool // by New: it has to have a selector, and a name of its own
}

//nolint:gochecknoglobals // immutable
var (
	fallback   = &kind{name: "FALLBACK", builtIn: true}
	roundRobin = &kind{name: "ROUND_ROBIN", builtIn: true}
)

// longestName bounds the name of a strategy, which appears in every listing.
const longestName = 256

// New returns a strategy. It never fails: a bad name (empty, longer than 256 bytes,
// not printable, FALLBACK, ROUND_ROBIN) or a nil selector is an error of whatever
// uses the strategy.
func New(name string, selector Selector) Strategy {
	return Strategy{&kind{name: name, selector: selector, made: true}}
}

// Fallback takes the first eligible candidate in the order of priority and
// registration, always the same while it stays eligible.
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

// Selector returns what picks; nil for FALLBACK and ROUND_ROBIN, which are the
// registry's own, and for a strategy that is only a name.
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

// Named reports whether the strategy is only a name, to be looked up.
func (s Strategy) Named() bool { return s.kind != nil && !s.kind.made && !s.kind.builtIn }

// Check returns what is wrong with the strategy, if anything. Whether somebody
// knows a name is not checked.
func (s Strategy) Check() error {
	if s.kind == nil || s.kind.builtIn {
		return nil
	}
	switch name := s.kind.name; {
	case strings.EqualFold(name, fallback.name), strings.EqualFold(name, roundRobin.name):
		return fmt.Errorf("selection: the strategy %q is the registry's own", name)
	case name == "":
		return errors.New("selection: the strategy has no name")
	case len(name) > longestName:
		return fmt.Errorf("selection: the name of the strategy has %d bytes: want at most %d", len(name), longestName)
	case !utf8.ValidString(name) || strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }):
		return fmt.Errorf("selection: the name of the strategy %q cannot be printed", name)
	case strings.TrimSpace(name) != name:
		return fmt.Errorf("selection: the name of the strategy %q has spaces at its ends", name)
	case s.kind.made && isNil(s.kind.selector):
		return fmt.Errorf("selection: the strategy %q has no selector", name)
	}
	return nil
}

// isNil reports whether there is no selector, also where a nil hides in one.
func isNil(selector Selector) bool {
	if selector == nil {
		return true
	}
	switch v := reflect.ValueOf(selector); v.Kind() {
	case reflect.Pointer, reflect.Map, reflect.Func, reflect.Slice, reflect.Chan:
		return v.IsNil()
	default:
		return false
	}
}

// MarshalText returns the name, or what [Strategy.Check] says.
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
