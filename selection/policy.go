package selection

import (
	"math"
	"time"

	"github.com/capreg/registry/internal/jsonform"
)

// Policy configures the groups of a service and the measurements of its providers. The zero
// value is strict: a group is exhausted before the next one is tried, a provider that is
// eligible again has its whole share at once, and every breaker may open.
type Policy struct {
	// SlowStart is the time over which a provider that has become eligible again regains its
	// whole weight, where the strategy heeds weights. After t it has
	//
	//	weight · max(Floor, (t / SlowStart)^(1/Aggression))
	//
	// which is the formula of Envoy. It matters only beside other providers: when all are new,
	// all shares are the same. Default: none.
	SlowStart time.Duration `json:"slow_start,omitempty"`
	// SlowStartFloor is the initial share, up to 1. Default: 0.1.
	SlowStartFloor float64 `json:"slow_start_floor,omitempty"`
	// SlowStartAggression bends the curve: 1 is a straight line, more is faster at the
	// beginning. Default: 1.
	SlowStartAggression float64 `json:"slow_start_aggression,omitempty"`

	// SpillOver lets a group that has lost members hand part of its load to the next groups
	// before it is exhausted. It is the factor by which the remaining members may be loaded, at
	// least 1; 1.4 is usual:
	//
	//	health(g) = min(1, SpillOver · eligible(g) / members(g))
	//	sum       = min(1, Σ health)
	//	load(g)   = min(the rest, health(g) / sum), groups ascending
	//
	// With 1.4 a group spills when fewer than 5/7 of it are eligible. This is the formula of
	// Envoy's priority levels. After the group of the pick come the others in their order.
	// Look-ups of one key ([WithKey]) go to one group as long as no load changes. A mock is
	// never tried before a real provider. Default, 0: strict.
	SpillOver float64 `json:"spill_over,omitempty"`

	// MaxEjected is the share of a group whose breakers may be open or half-open at once
	// because of failures. A breaker that would open beyond that stays closed and decides again
	// at its next failure:
	//
	//	it may open when no other is out, or (out + 1) / members ≤ MaxEjected
	//
	// A breaker that is forced open counts as out, and always opens. Default, 0: no cap.
	MaxEjected float64 `json:"max_ejected,omitempty"`

	// LeastBad lets calls that no provider admits try one all the same, as if every provider
	// were a last resort. Default: they fail.
	LeastBad bool `json:"least_bad,omitempty"`

	// Decay is the time after which measurements have lost 63 % of their weight. It
	// should be longer than the usual time between two calls. Default: 10 s.
	Decay time.Duration `json:"decay,omitempty"`

	// Seed makes the first picks of new rotations, and random draws, the same in every run, for tests and
	// simulations: with 1 every rotation begins with the first candidate, with 2 with the second. Default, 0:
	// anywhere, so that programs that ask once do not all begin with the same provider.
	Seed uint64 `json:"seed,omitempty"`
}

// MarshalJSON returns the fields by their tags, with durations as text such as "1m30s".
func (p Policy) MarshalJSON() ([]byte, error) { return jsonform.Marshal(p) }

// UnmarshalJSON reads what MarshalJSON writes. Its errors name field, value and bound, match registry.ErrInvalid and change nothing.
func (p *Policy) UnmarshalJSON(text []byte) error { return jsonform.Unmarshal(text, p) }

// Check returns the field that is out of bounds, its value and the bound; an empty field when
// all are valid.
func (p Policy) Check() (field string, value any, bound string) {
	switch {
	case p.SlowStart < 0:
		return "SlowStart", p.SlowStart, "0 (none) or more"
	case !(p.SlowStartFloor >= 0 && p.SlowStartFloor <= 1):
		return "SlowStartFloor", p.SlowStartFloor, "0 (default 0.1) to 1"
	case !(p.SlowStartAggression >= 0) || math.IsInf(p.SlowStartAggression, 0):
		return "SlowStartAggression", p.SlowStartAggression, "0 (default 1) or more"
	case p.SpillOver != 0 && !(p.SpillOver >= 1) || math.IsInf(p.SpillOver, 0):
		return "SpillOver", p.SpillOver, "0 (strict), or 1 or more"
	case !(p.MaxEjected >= 0 && p.MaxEjected <= 1):
		return "MaxEjected", p.MaxEjected, "0 (no cap) to 1"
	case p.Decay < 0 || p.Decay > 0 && p.Decay < 100*time.Millisecond:
		return "Decay", p.Decay, "0 (default 10s), or 100ms or more"
	}
	return "", nil, ""
}

// ramp returns the slow start with its defaults.
func (p Policy) ramp() ramp {
	r := ramp{window: p.SlowStart, floor: max(p.SlowStartFloor, lightest), power: 1}
	if p.SlowStartFloor == 0 {
		r.floor = 0.1
	}
	if p.SlowStartAggression > 0 {
		r.power = 1 / p.SlowStartAggression
	}
	return r
}

// at returns the share after a time.
func (r *ramp) at(t time.Duration) float64 {
	if t >= r.window {
		return 1
	}
	share := float64(t) / float64(r.window)
	if r.power != 1 {
		share = math.Pow(share, r.power)
	}
	return max(share, r.floor)
}

// MayEject reports whether one more member of a group may be ejected because of failures.
func (p Policy) MayEject(out, members int) bool {
	return p.MaxEjected == 0 || out == 0 || float64(out+1) <= p.MaxEjected*float64(members)
}

// Spill returns the group to try first for a number from 0 up to 1, given the numbers of
// eligible candidates and of members of each; -1 when no candidate is eligible.
func (p Policy) Spill(at float64, eligible, members []int) int {
	sum := 0.0
	for i := range eligible {
		sum += p.health(eligible[i], members[i])
	}
	sum = min(sum, 1)
	first, left := -1, 1.0
	for i := range eligible {
		if eligible[i] == 0 {
			continue
		}
		if first < 0 {
			first = i
		}
		load := min(left, p.health(eligible[i], members[i])/sum)
		if at < load {
			return i
		}
		at -= load
		left -= load
	}
	return first // a rounding error is left
}

func (p Policy) health(eligible, members int) float64 {
	if members == 0 {
		return 0
	}
	return min(1, p.SpillOver*float64(eligible)/float64(members))
}
