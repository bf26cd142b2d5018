package selectors

import (
	"fmt"
	"math"
	"math/bits"
	"reflect"
	"strings"

	"github.com/capreg/registry/health"
	"github.com/capreg/registry/selection"
)

// Factor is one weighted component of the score of [Scored].
type Factor struct {
	// Name appears in explanations.
	Name string
	// Weight is its share of the score, relative to the weights of the others, at
	// least 0.
	Weight float64
	// Value returns the quality of the candidate, from 0 to 1; values outside are clipped, and
	// NaN is 0. It runs for each eligible candidate in each pick, in its goroutine: it must not
	// block. b holds the references for comparison.
	Value func(c selection.Candidate, b Benchmark) float64
}

// Benchmark holds the references to which the eligible candidates of a pick are compared.
type Benchmark struct {
	// Busiest is the number of attempts in flight of the busiest candidate.
	Busiest int
	// Fastest is the lowest latency for this kind of query among the candidates that have
	// answered, in nanoseconds; zero when none has.
	Fastest float64
}

// Load returns how idle a candidate is, compared with the busiest one:
//
//	1 − in flight / (in flight of the busiest + 1)
func Load(c selection.Candidate, b Benchmark) float64 {
	return 1 - float64(c.InFlight())/float64(b.Busiest+1)
}

// Performance returns how fast, reliable and healthy a candidate is for this kind of query:
//
//	fastest / latency · (1 − failing) · score of its health
//
// and half of that when it is at risk, four fifths when it is degrading. A candidate that has
// not answered yet counts as the fastest, so that it gets its chance; its load bounds its first
// requests.
func Performance(c selection.Candidate, b Benchmark) float64 {
	latency, failing := c.PerformanceHere()
	return speed(latency, b.Fastest) * quality(failing, c.Health(), c.Trend())
}

func speed(latency, fastest float64) float64 {
	if latency > fastest && fastest > 0 {
		return fastest / latency
	}
	return 1
}

func quality(failing, score float64, trend health.Trend) float64 {
	value := (1 - failing) * score
	if trend != health.Steady {
		if value *= 0.8; trend == health.AtRisk {
			value *= 0.5 / 0.8
		}
	}
	return value
}

// Proximity returns how near the candidate is to the caller; see [selection.Candidate.Proximity].
func Proximity(c selection.Candidate, _ Benchmark) float64 { return c.Proximity() }

// Specialisation returns the share of the preferred words that the candidate has; see
// [selection.Candidate.Fit].
func Specialisation(c selection.Candidate, _ Benchmark) float64 { return c.Fit() }

// Cost returns how cheap the candidate is: 1 − cost / the highest cost in the group.
func Cost(c selection.Candidate, _ Benchmark) float64 { return c.Thrift() }

// DefaultFactors returns the default factors of [Scored]: 0.30 load, 0.25 performance, 0.15
// proximity, 0.20 specialisation and 0.10 cost. The result may be changed.
func DefaultFactors() []Factor {
	return []Factor{
		{"load", 0.30, Load},
		{"performance", 0.25, Performance},
		{"proximity", 0.15, Proximity},
		{"specialisation", 0.20, Specialisation},
		{"cost", 0.10, Cost},
	}
}

// Tie is the distance from the best score within which a score counts as equal.
const Tie = 0.1

// Scored returns the strategy SCORED: the eligible candidate with the highest weighted mean of
// its factors, [DefaultFactors] if none are given. Candidates within [Tie] of the best score
// are equal, and one of them is drawn in proportion to the weights of the providers, which
// avoids herds. A candidate that has failed more than once of late, with a failure average above
// 0.21, is left out unless all have: it is idle, and was fast perhaps.
//
// A registry identifies strategies by name, so the name of one with other factors contains
// them, with their weights. A factor without a name or a value, two of one name, a weight that
// is negative or no number, and weights that are all zero are reported by the first use of the
// strategy.
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

type scored struct {
	factors []Factor
	// The same, for picking: the weights of those of this package, and the others.
	load, performance, proximity, specialisation, cost float64
	others                                             []Factor
}

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
		s.sort(f)
	}
	return s
}

// sort files a factor where it costs least: the ones of this package need no call.
func (s *scored) sort(f Factor) {
	for weight, own := range map[*float64]func(selection.Candidate, Benchmark) float64{
		&s.load: Load, &s.performance: Performance, &s.proximity: Proximity, &s.specialisation: Specialisation, &s.cost: Cost,
	} {
		if reflect.ValueOf(own).Pointer() == reflect.ValueOf(f.Value).Pointer() {
			*weight += f.Weight
			return
		}
	}
	s.others = append(s.others, f)
}

// fewCandidates is the largest number of candidates whose measurements are kept during a pick;
// in larger groups they are read again.
const fewCandidates = 16

// add includes one more candidate in the benchmark.
func (b *Benchmark) add(latency, inFlight float64) {
	if busy := int(inFlight); busy > b.Busiest {
		b.Busiest = busy
	}
	if latency > 0 && (b.Fastest == 0 || latency < b.Fastest) {
		b.Fastest = latency
	}
}

// Pick draws one of the best.
func (s *scored) Pick(v selection.View) int {
	mask, ok := v.Mask()
	if !ok || v.Len() > fewCandidates {
		return s.pickOfMany(&v)
	}
	// Separate arrays: structs that are written field by field are slow to copy.
	var latencies, qualities, scores [fewCandidates]float64
	var b Benchmark
	out := uint64(0)
	for rest := mask; rest != 0; rest &= rest - 1 {
		i := bits.TrailingZeros64(rest) % fewCandidates
		latency, failing, inFlight, score, trend := v.Measured(i)
		latencies[i], qualities[i], scores[i] = latency, quality(failing, score, trend), inFlight
		if failing > intolerable {
			out |= 1 << uint(i)
		}
		b.add(latency, inFlight)
	}
	if mask&^out != 0 {
		mask &^= out
	}
	best, idle := -1.0, 1/float64(b.Busiest+1)
	for rest := mask; rest != 0; rest &= rest - 1 {
		i := bits.TrailingZeros64(rest) % fewCandidates
		proximity, fit, thrift := v.Traits(i)
		score := s.load*(1-scores[i]*idle) + s.performance*speed(latencies[i], b.Fastest)*qualities[i] +
			s.proximity*proximity + s.specialisation*fit + s.cost*thrift
		if s.others != nil {
			score += s.scoreOthers(v.At(i), b)
		}
		if scores[i] = score; score > best {
			best = score
		}
	}
	ties := uint64(0)
	for rest := mask; rest != 0; rest &= rest - 1 {
		i := bits.TrailingZeros64(rest) % fewCandidates
		if scores[i] >= best-Tie {
			ties |= 1 << uint(i)
		}
	}
	return drawTie(&v, ties)
}

// drawTie draws one of the ties in proportion to its weight.
func drawTie(v *selection.View, ties uint64) int {
	switch {
	case ties&(ties-1) == 0:
		return bits.TrailingZeros64(ties)
	case v.EqualWeights():
		for n := v.IntN(bits.OnesCount64(ties)); n > 0; n-- {
			ties &= ties - 1
		}
		return bits.TrailingZeros64(ties)
	}
	total := 0.0
	for rest := ties; rest != 0; rest &= rest - 1 {
		total += v.Weight(bits.TrailingZeros64(rest))
	}
	at := v.Float() * total
	for {
		i := bits.TrailingZeros64(ties)
		ties &= ties - 1
		if at -= v.Weight(i); at < 0 || ties == 0 {
			return i
		}
	}
}

// pickOfMany is Pick for groups whose scores are not all kept.
func (s *scored) pickOfMany(v *selection.View) int {
	b, best := benchmarkOf(v), -1.0
	all := true // none is good enough, so all are
	for i := v.Next(0); i >= 0; i = v.Next(i + 1) {
		switch score := s.score(v, i, b); {
		case !tolerable(v, i):
			if all {
				best = max(best, score)
			}
		case all:
			all, best = false, score
		default:
			best = max(best, score)
		}
	}
	// In one pass: each takes the place of the one before with the probability of its
	// part in the weights so far.
	picked, total := -1, 0.0
	for i := v.Next(0); i >= 0; i = v.Next(i + 1) {
		if !all && !tolerable(v, i) || s.score(v, i, b) < best-Tie {
			continue
		}
		weight := v.Weight(i)
		total += weight
		if picked < 0 || v.Float()*total < weight {
			picked = i
		}
	}
	if picked < 0 { // all scores have dropped meanwhile
		return v.Next(0)
	}
	return picked
}

// tolerable reports whether a candidate fails seldom enough for its score to matter.
func tolerable(v *selection.View, i int) bool {
	_, failing, _, _, _ := v.Measured(i)
	return failing <= intolerable
}

func benchmarkOf(v *selection.View) (b Benchmark) {
	for i := v.Next(0); i >= 0; i = v.Next(i + 1) {
		latency, _, inFlight, _, _ := v.Measured(i)
		b.add(latency, inFlight)
	}
	return b
}

// score returns the weighted mean for candidate i.
func (s *scored) score(v *selection.View, i int, b Benchmark) (score float64) {
	c := v.At(i)
	for k := range s.factors {
		f := &s.factors[k]
		score += f.Weight * bounded(f.Value(c, b))
	}
	return score
}

func (s *scored) scoreOthers(c selection.Candidate, b Benchmark) (score float64) {
	for k := range s.others {
		f := &s.others[k]
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

// Describe returns the score and its factors.
func (s *scored) Describe(v selection.View, i int) selection.Detail {
	b, c := benchmarkOf(&v), v.At(i)
	_, failing := c.PerformanceHere()
	d := selection.Detail{Words: detail(0, failing, "score").Words, Factors: make([]selection.FactorValue, 0, len(s.factors))}
	for _, f := range s.factors {
		value := bounded(f.Value(c, b))
		d.Factors = append(d.Factors, selection.FactorValue{Name: f.Name, Weight: readable(f.Weight), Value: readable(value)})
		d.Score += f.Weight * value
	}
	d.Score = readable(d.Score)
	return d
}

// readable rounds away the errors of floating-point arithmetic.
func readable(x float64) float64 { return math.Round(x*1e9) / 1e9 }
