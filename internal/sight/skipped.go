package sight

import (
	"iter"
	"slices"

	"github.com/capreg/registry/internal/refusal"
)

// Skipped says which providers a call did not try and could not have tried, or not for this call. What a call notes does
// not depend on how many there are: the list is made when it is asked for, as it was at the end of the call.
type Skipped struct {
	Sight Sight    // at the end of the call
	Skips []Seen   // that turned the call away, in order
	Full  []string // that had no free place when the call met them
	Tried []string
}

// All yields those that turned the call away, each with its last reason, and then those that were blocked or full, in the
// order of the plan. Each is valid until the next one.
func (s *Skipped) All() iter.Seq[*Seen] {
	return func(yield func(*Seen) bool) {
		done := setOf(s.Tried)
		for _, skip := range s.lastSkips() {
			if !done[skip.Provider] && !yield(&skip) {
				return
			}
			done[skip.Provider] = true
		}
		s.yieldBlocked(done, yield)
	}
}

func (s *Skipped) yieldBlocked(done map[string]bool, yield func(*Seen) bool) {
	full := setOf(s.Full)
	for seen := range s.Sight.All() {
		if seen.Eligible && full[seen.Provider] {
			seen.Refuse(refusal.Full(), 0)
		}
		if !seen.Eligible && !done[seen.Provider] && !yield(seen) {
			return
		}
	}
}

// lastSkips returns the last skip of each provider, in their order.
func (s *Skipped) lastSkips() (last []Seen) {
	for i, skip := range s.Skips {
		if !slices.ContainsFunc(s.Skips[i+1:], func(later Seen) bool { return later.Provider == skip.Provider }) {
			last = append(last, skip)
		}
	}
	return last
}

func setOf(names []string) map[string]bool {
	set := make(map[string]bool, len(names))
	for _, name := range names {
		set[name] = true
	}
	return set
}
