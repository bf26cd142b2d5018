package query

import "slices"

// Scopes has the members that queries see, by handler, each scope in the order of the members. Their owner guards them.
type Scopes[M comparable] map[string][]M

// ScopesOf returns the scopes of the members.
func ScopesOf[M comparable](members map[M]struct{}, handler func(M) string, compare func(a, b M) int) Scopes[M] {
	s := make(Scopes[M])
	for m := range members {
		s[handler(m)] = append(s[handler(m)], m)
	}
	for _, scope := range s {
		slices.SortFunc(scope, compare)
	}
	return s
}

// Of returns the members that a query sees, whatever it requires: the handler's own, then the global ones, of which those
// that match any query are seen even where it wants its own only. The caller must not change what it gets.
func (s Scopes[M]) Of(handler string, ownOnly bool, matchesAny func(M) bool) [][]M {
	global := s[""]
	switch {
	case handler == "":
		return [][]M{global}
	case ownOnly:
		global = slices.DeleteFunc(slices.Clone(global), func(m M) bool { return !matchesAny(m) })
	}
	return [][]M{s[handler], global}
}
