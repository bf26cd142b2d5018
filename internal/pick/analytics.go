package pick

import "github.com/capreg/registry/selection"

// Sums adds up the analytics of a service. The zero value is ready to use.
type Sums struct {
	Analytics selection.Analytics

	seen map[*Group]bool // members of a group may be apart: mocks are listed last
}

// Add adds the share of one more member, and its group with the first of its members.
func (s *Sums) Add(g *Group, share selection.Share) {
	a := &s.Analytics
	a.Providers = append(a.Providers, share)
	a.Attempts += share.Attempts
	a.Failovers += share.TookOver
	if s.seen[g] {
		return
	}
	if s.seen == nil {
		s.seen = make(map[*Group]bool)
	}
	s.seen[g] = true
	a.Groups = append(a.Groups, selection.GroupFaults{
		Handler: g.Handler, Group: g.Number, Strategy: g.Strategy,
		Panics: g.Faults.Count(Panicked), Exits: g.Faults.Count(Exited),
		OutOfRange: g.Faults.Count(OutOfRange), Slow: g.Faults.Count(Slow),
	})
}

// Result returns the sums, with the part that each member has in the attempts of all.
func (s *Sums) Result() selection.Analytics {
	for i := range s.Analytics.Providers {
		if share := &s.Analytics.Providers[i]; s.Analytics.Attempts > 0 {
			share.Share = float64(share.Attempts) / float64(s.Analytics.Attempts)
		}
	}
	return s.Analytics
}
