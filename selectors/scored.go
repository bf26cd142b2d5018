package selectors

import (
	"fmt"
	"math"
	"strings"

	"github.com/capreg/registry/health"
	"github.com/capreg/registry/selection"
)

// Factor is one thing that [Scored] looks at.
type Factor struct {
	// Name appears in explanations.
	Name string
	// Weight is its share of the score, relative to the weights of the others, at
	// least 0.
	Weight float64
	// Value is how good the candidate is, from 0 to 1; what is outside is taken as the
	// nearer bound, and NaN as 0. It runs for each eligible candidate in each pick, in
	// its goroutine: it must not block. b is what all candidates are compared with.
	Value func(c selection.Candidate, b Benchmark) float64
}

// Benchmark is what the eligible candidates of a pick are compared with.
type Benchmark struct {
	// Busiest is how many attempts the busiest one has in flight.
	Busiest int
	// Fastest is the lowest latency for this kind of query among those that have
	// answered, in nanoseconds; zero when none has.
	Fastest float64
}

// Load is how idle a candidate is, beside the busiest one:
//
//	1 − in flight / (in flight of the busiest + 1)
func Load(c selection.Candidate, b Benchmark) float64 {
	return 1 - float64(c.InFlight())/float64(b.Busiest+1)
}

// Performance is how fast, reliable and healthy a candidate is for this kind of query:
//
//	fastest / latency · (1 − failing) · score of its health
//
// and half of that when it is at risk, four fifths when it is degrading. One that has
// not answered yet counts as the fastest, so that it gets its chance; its first requests
// are bounded by the load that they are.
func Performance(c selection.Candidate, b Benchmark) float64 {
	latency, failing := c.PerformanceHere()
	value := (1 - failing) * c.Health()
	if latency > b.Fastest && b.Fastest > 0 {
		value *= b.Fastest / latency
	}
	switch c.Trend() {
	case health.AtRisk:
		value *= 0.5
	case health.Degrading:
		value *= 0.8
	case health.Steady:
	}
	return value
}

// Proximity is how near the candidate is to the one who asks; see
// [selection.Proximity].
func Proximity(c selection.Candidate, _ Benchmark) float64 { return c.Proximity() }

// Specialisation is which part of what the query prefers the candidate has; see
// [selection.Candidate.Fit].
func Specialisation(c selection.Candidate, _ Benchmark) float64 { return c.Fit() }

// Cost is how cheap the candidate is: 1 − cost / the highest cost in the group.
func Cost(c selection.Candidate, _ Benchmark) float64 { return c.Thrift() }

// DefaultFactors returns what [Scored] looks at by default: 0.30 load, 0.25
// performance, 0.15 proximity, 0.20 specialisation and 0.10 cost. Change what it
// returns at will.
func DefaultFactors() []Factor {
	return []Factor{
		{"load", 0.30, Load},
		{"performance", 0.25, Performance},
		{"proximity", 0.15, Proximity},
		{"specialisation", 0.20, Specialisation},
		{"cost", 0.10, Cost},
	}
}

// Tie is how near a score must be to the best one to be as good.
const Tie = 0.1

// Scored returns the strategy SCORED: the eligible candidate with the highest weighted
// mean of its factors, [DefaultFactors] unless others are given. Those within [Tie] of
// it are as good, and one of them is drawn in proportion to the weights of the
// providers, so that no herd forms.
//
// Strategies of one name are one to a registry, so that of other factors is named after
// them, with their weights. A factor without a name or a value, two of one name, a
// weight that is negative or no number, and weights that are all zero are errors of
// whatever uses the strategy.
func Scored(factors ...Factor) selection.Strategy {
	if len(factors) == 0 {
		return selection.New("SCORED", newScored(DefaultFactors()))
	}
	var name strings.Builder
	name.WriteString("SCORED(")
	for i, f := range factors {
		if i > 0 {
			name.WriteString(", ")
		}
		fmt.Fprintf(&name, "%g %s", f.Weight, f.Name)
	}
	name.WriteString(")")
	return selection.New(name.String(), newScored(factors))
}

type scored struct{ factors []Factor }

// newScored returns nil, which a registry refuses, for bad factors.
func newScored(factors []Factor) selection.Selector {
	total, names := 0.0, make(map[string]bool)
	for _, f := range factors {
		if f.Name == "" || names[f.Name] || f.Value == nil || !(f.Weight >= 0) || math.IsInf(f.Weight, 0) {
			return nil
		}
		names[f.Name] = true
		total += f.Weight
	}
	if !(total > 0) || math.IsInf(total, 0) {
		return nil
	}
	s := &scored{}
	for _, f := range factors {
		f.Weight /= total
		s.factors = append(s.factors, f)
	}
	return s
}

// fewCandidates is for how many the scores of a pick are kept; more are scored twice.
const fewCandidates = 16

// Pick draws one of the best.
func (s *scored) Pick(v selection.View) int {
	var scores [fewCandidates]float64
	b := benchmarkOf(&v)
	best, few := math.Inf(-1), v.Len() <= fewCandidates
	for i := v.Next(0); i >= 0; i = v.Next(i + 1) {
		score := s.score(v.At(i), b)
		if few {
			scores[i] = score
		}
		best = max(best, score)
	}
	// One of those that are as good, in one more pass: each new one takes the place of
	// the one before with the probability of its part in the weights so far.
	picked, total := -1, 0.0
	for i := v.Next(0); i >= 0; i = v.Next(i + 1) {
		var score float64
		if few {
			score = scores[i]
		} else {
			score = s.score(v.At(i), b)
		}
		if score < best-Tie {
			continue
		}
		weight := v.Weight(i)
		total += weight
		if picked < 0 || v.Float()*total < weight {
			picked = i
		}
	}
	return picked
}

func benchmarkOf(v *selection.View) (b Benchmark) {
	for i := v.Next(0); i >= 0; i = v.Next(i + 1) {
		c := v.At(i)
		b.Busiest = max(b.Busiest, c.InFlight())
		if latency, _ := c.PerformanceHere(); latency > 0 && (b.Fastest == 0 || latency < b.Fastest) {
			b.Fastest = latency
		}
	}
	return b
}

func (s *scored) score(c selection.Candidate, b Benchmark) (score float64) {
	for i := range s.factors {
		f := &s.factors[i]
		score += f.Weight * bounded(f.Value(c, b))
	}
	return score
}

func bounded(value float64) float64 {
	switch {
	case value >= 1:
		return 1
	case value > 0:
		return value
	}
	return 0 // NaN as well
}

// Describe tells the score and what it is made of.
func (s *scored) Describe(v selection.View, i int) selection.Detail {
	b, c := benchmarkOf(&v), v.At(i)
	d := selection.Detail{Words: "score", Factors: make([]selection.FactorValue, 0, len(s.factors))}
	for _, f := range s.factors {
		value := bounded(f.Value(c, b))
		d.Factors = append(d.Factors, selection.FactorValue{Name: f.Name, Weight: f.Weight, Value: value})
		d.Score += f.Weight * value
	}
	return d
}
