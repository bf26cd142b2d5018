package selectors

import "github.com/capreg/registry/selection"

// Random returns the strategy RANDOM: each eligible candidate with a probability in proportion
// to its weight, independent of earlier picks.
func Random() selection.Strategy { return selection.New("RANDOM", random{}) }

type random struct{}

// Pick draws a candidate.
func (random) Pick(v selection.View) int {
	if v.EqualWeights() {
		return v.Draw()
	}
	return drawWeighted(&v)
}

// Describe returns the weight.
func (random) Describe(v selection.View, i int) selection.Detail {
	return selection.Detail{Score: v.Weight(i), Words: "weight"}
}

// drawWeighted draws an eligible candidate in proportion to the weights.
func drawWeighted(v *selection.View) int {
	total := 0.0
	for i := v.Next(0); i >= 0; i = v.Next(i + 1) {
		total += v.Weight(i)
	}
	at := v.Float() * total
	last := -1
	for i := v.Next(0); i >= 0; i = v.Next(i + 1) {
		last = i
		if at -= v.Weight(i); at < 0 {
			break
		}
	}
	return last // a rounding error is left
}

// WeightedRoundRobin returns the strategy WEIGHTED_ROUND_ROBIN: the eligible candidates in
// turns, each in a share of the rounds that is its weight relative to the largest one.
//
// It is the static stride scheduler of gRPC: turn number s belongs to candidate s mod n in
// round s div n, which takes it when
//
//	(w·round + offset) mod 65535 ≥ 65535 − w, w = 65535·weight/largest
//
// and leaves it to the next turn otherwise. So over any stretch of picks without a change of
// members, eligibility or weights, a candidate with share p has p·picks ± (2 + n·p), however
// many picks run concurrently. Weights below 1/65535 of the largest count as that much. With
// equal weights it takes turns as ROUND_ROBIN does, except that changes of membership and
// eligibility shift the turns.
//
// The expected cost of a pick grows with the largest weight over the mean weight.
func WeightedRoundRobin() selection.Strategy {
	return selection.New("WEIGHTED_ROUND_ROBIN", stride{})
}

type stride struct{}

const (
	strideFull = 1<<16 - 1
	// strideOffset keeps neighbours from having their rounds at the same time.
	strideOffset = 1<<15 - 1
)

// Pick takes turns until one is used by its candidate.
func (stride) Pick(v selection.View) int {
	count := uint64(v.Count()) //nolint:gosec // not negative
	if count <= 1 {
		return v.Next(0)
	}
	if v.EqualWeights() {
		return nth(&v, int(v.Turn()%count)) //nolint:gosec // below count
	}
	largest := 0.0
	for i := v.Next(0); i >= 0; i = v.Next(i + 1) {
		largest = max(largest, v.Weight(i))
	}
	// A candidate of the largest weight takes each of its turns, so without concurrent
	// picks this ends within count turns.
	for {
		turn := v.Turn()
		rank, round := turn%count, turn/count
		i := nth(&v, int(rank)) //nolint:gosec // below count
		if i < 0 {
			return v.Next(0) // in a large group, candidates became ineligible meanwhile
		}
		weight := strideWeight(v.Weight(i), largest)
		if (weight*round+rank*strideOffset)%strideFull >= strideFull-weight {
			return i
		}
	}
}

func strideWeight(weight, largest float64) uint64 {
	return max(uint64(weight/largest*strideFull+0.5), 1)
}

// Describe returns the weight.
func (stride) Describe(v selection.View, i int) selection.Detail {
	return selection.Detail{Score: v.Weight(i), Words: "weight"}
}

// nth returns the nth eligible candidate, counted from 0, or -1.
func nth(v *selection.View, n int) int {
	i := v.Next(0)
	for ; n > 0 && i >= 0; n-- {
		i = v.Next(i + 1)
	}
	return i
}
