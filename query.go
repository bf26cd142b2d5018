package registry

import (
	"fmt"
	"hash/maphash"
	"slices"
	"strings"

	"github.com/capreg/registry/internal/oneline"
	"github.com/capreg/registry/selection"
)

// Query selects providers of a service. The zero value selects the global ones.
type Query struct {
	// Handler sees the providers registered for it before the global ones.
	// Empty or "*": only the global ones.
	Handler string `json:"handler,omitempty"`
	// OwnOnly leaves the global providers out; it needs a Handler.
	OwnOnly bool `json:"own_only,omitempty"`
	// Require lists the capabilities that a provider must have, all of them,
	// compared exactly.
	Require []string `json:"require,omitempty"`
	// TryRefused tries the next provider after one has refused the content. Default:
	// the refusal is the answer.
	TryRefused bool `json:"try_refused,omitempty"`
	// Where has further requirements that a provider must meet, whatever the strategy
	// of its group.
	Where selection.Requirements `json:"where,omitzero"`
	// Prefer lists capabilities and tags that are an advantage, and Near is the region
	// of the caller. They matter to strategies that consider them.
	Prefer []string `json:"prefer,omitempty"`
	Near   string   `json:"near,omitempty"`
	// Key is the affinity key of sticky strategies: a session, a user, a prompt.
	// Queries that differ in nothing else share their plan. Default: the key of
	// the context ([selection.WithKey]).
	Key string `json:"key,omitempty"`
}

// String describes the query in words that follow the name of a service. It is empty
// for the zero value.
func (q Query) String() string {
	var text strings.Builder
	if q.Handler != "" && q.Handler != globalHandler {
		fmt.Fprintf(&text, " for handler %s", oneline.Cut(q.Handler, 64))
		if q.OwnOnly {
			text.WriteString(" alone")
		}
	}
	if len(q.Require) > 0 {
		fmt.Fprintf(&text, " requiring %s", oneline.Cut(strings.Join(q.Require, ", "), 200))
	}
	if !q.Where.IsZero() {
		fmt.Fprintf(&text, " where %s", oneline.Cut(q.Where.String(), 200))
	}
	if len(q.Prefer) > 0 {
		fmt.Fprintf(&text, " preferring %s", oneline.Cut(strings.Join(q.Prefer, ", "), 200))
	}
	if q.Near != "" {
		fmt.Fprintf(&text, " near %s", oneline.Cut(q.Near, 64))
	}
	return oneline.Of(text.String())
}

// normal returns a checked copy that equal queries share, without the key.
func (q Query) normal() (Query, error) {
	q.Key = "" // queries share a plan whatever their keys
	if q.Handler == globalHandler {
		q.Handler = ""
	}
	if q.Handler != "" {
		if err := checkName("Query.Handler", q.Handler); err != nil {
			return Query{}, err
		}
	} else if q.OwnOnly {
		return Query{}, invalid("Query.OwnOnly", true, "a Handler")
	}
	words, err := checkWords("Query.Require", q.Require)
	if err != nil {
		return Query{}, err
	}
	slices.Sort(words)
	q.Require = words
	if !plain(&q) {
		err = normalExtras(&q)
	}
	return q, err
}

// plain reports whether the query has none of the rare fields: Prefer, Near, Where.
func plain(q *Query) bool { return len(q.Prefer) == 0 && q.Near == "" && q.Where.IsZero() }

// normalExtras checks and copies the rare fields.
func normalExtras(q *Query) (err error) {
	if field, value, bound := q.Where.Check(); field != "" {
		return invalid("Query.Where."+field, value, bound)
	}
	if q.Near != "" {
		if err := checkName("Query.Near", q.Near); err != nil {
			return err
		}
	}
	for field, words := range map[string]*[]string{
		"Query.Prefer": &q.Prefer, "Query.Where.Tags": &q.Where.Tags,
		"Query.Where.Regions": &q.Where.Regions, "Query.Where.Exclude": &q.Where.Exclude,
	} {
		if *words, err = checkWords(field, *words); err != nil {
			return err
		}
		slices.Sort(*words)
	}
	return nil
}

// sameExtras reports whether the rare fields of q are those of the normal query n.
func sameExtras(q, n *Query) bool {
	a, b := &q.Where, &n.Where
	return q.Near == n.Near && a.MaxLatency == b.MaxLatency && a.MaxCost == b.MaxCost && a.MinVersion == b.MinVersion &&
		sameWords(q.Prefer, n.Prefer) && sameWords(a.Tags, b.Tags) && sameWords(a.Regions, b.Regions) && sameWords(a.Exclude, b.Exclude)
}

// sameWords reports whether words are those of normal, in any order.
func sameWords(words, normal []string) bool {
	if len(words) != len(normal) {
		return false
	}
	for _, word := range normal {
		if !slices.Contains(words, word) {
			return false
		}
	}
	return true
}

// sameQuery reports whether q equals the normal query n. It may be false for an equal q
// that repeats a word.
func sameQuery(q, n *Query) bool {
	return q.Handler == n.Handler && q.OwnOnly == n.OwnOnly && q.TryRefused == n.TryRefused && sameWords(q.Require, n.Require) &&
		(plain(q) && plain(n) || sameExtras(q, n))
}

// hashQuery returns a hash that does not depend on the order of words.
func hashQuery(q *Query, seed maphash.Seed) uint64 {
	sum := maphash.String(seed, q.Handler)
	for _, word := range q.Require {
		sum += maphash.String(seed, word) * 29 // a handler may have the same name
	}
	if q.OwnOnly {
		sum = ^sum
	}
	if q.TryRefused {
		sum *= 31
	}
	if !plain(q) {
		sum += hashExtras(q, seed)
	}
	return sum
}

// hashExtras returns the hash of the rare fields.
func hashExtras(q *Query, seed maphash.Seed) uint64 {
	where := &q.Where
	sum := maphash.String(seed, q.Near)*3 + maphash.String(seed, where.MinVersion)*5 +
		maphash.Comparable(seed, where.MaxLatency)*7 + maphash.Comparable(seed, where.MaxCost)*11
	for i, words := range [][]string{q.Prefer, where.Tags, where.Regions, where.Exclude} {
		for _, word := range words {
			sum += maphash.String(seed, word) * uint64(13+2*i)
		}
	}
	return sum
}
