package selectors

import (
	"math"

	"github.com/capreg/registry/internal/choice"
	"github.com/capreg/registry/selection"
)

// Sticky returns the strategy STICKY: all requests of one key (a session, a user, a prompt
// whose beginning the provider may have cached) go to one provider as long as it is eligible.
// The key is Query.Key or that of the context ([selection.WithKey]); requests without one are
// distributed at random.
//
// It is weighted rendezvous hashing (Thaler and Ravishankar, 1998; weights by the logarithm
// method of Schindelhauer and Schomaker, 2005): the provider with the largest
//
//	−weight / ln(hash(key, provider))
//
// takes the request, with a fixed seed and the names of service, handler and provider. So every
// process agrees, also after a restart. A new provider takes its share from all others; one
// that leaves or is not eligible leaves its keys to all others in proportion to their weights,
// and no other key moves. A call that fails over goes to the next one of the same order.
//
// Its cost grows with the number of eligible candidates. Slow start does not apply: it would
// move keys twice.
func Sticky() selection.Strategy { return selection.New("STICKY", sticky{}) }

type sticky struct{}

// Pick returns the candidate that the key belongs to.
func (sticky) Pick(v selection.View) int {
	key := v.Key()
	if key == "" {
		return random{}.Pick(v)
	}
	hash := selection.Hash(key)
	best, most := -1, 0.0
	if v.EqualWeights() {
		var highest uint64
		for i := v.Next(0); i >= 0; i = v.Next(i + 1) {
			if mixed := choice.Mix(hash ^ v.ID(i)); best < 0 || mixed > highest {
				best, highest = i, mixed
			}
		}
		return best
	}
	for i := v.Next(0); i >= 0; i = v.Next(i + 1) {
		if score := belongs(hash, v.ID(i), v.At(i).FullWeight()); best < 0 || score > most {
			best, most = i, score
		}
	}
	return best
}

// belongs returns the affinity of a key to a provider. It orders equal weights as their hashes
// do.
func belongs(hash, id uint64, weight float64) float64 {
	share := (float64(choice.Mix(hash^id)>>11) + 0.5) / (1 << 53) // above 0, below 1
	return -weight / math.Log(share)
}

// Describe returns the affinity of the key to the candidate.
func (sticky) Describe(v selection.View, i int) selection.Detail {
	key := v.Key()
	if key == "" {
		return selection.Detail{Score: v.Weight(i), Words: "no key, weight"}
	}
	return selection.Detail{Score: belongs(selection.Hash(key), v.ID(i), v.At(i).FullWeight()), Words: "affinity"}
}
