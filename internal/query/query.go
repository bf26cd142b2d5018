// Package query compares queries: which of them are equal, whatever the order and repetition of their words, and so
// share one plan.
//
// A [Query] is a plain value that the caller has checked. The package keeps nothing, and never changes the lists of
// a query that it was given.
package query

import (
	"fmt"
	"slices"
	"strings"

	"github.com/capreg/registry/internal/oneline"
	"github.com/capreg/registry/selection"
)

// GlobalHandler selects the global providers, as an empty handler does.
const GlobalHandler = "*"

// Query is the query of the root package, which documents the fields.
type Query struct {
	Handler    string
	OwnOnly    bool
	Only       []string
	Require    []string
	TryRefused bool
	Where      selection.Requirements
	Prefer     []string
	Near       string
	Key        string
}

// Clone returns a deep copy.
func (q *Query) Clone() Query {
	c := *q
	c.Only, c.Require, c.Prefer, c.Where = slices.Clone(q.Only), slices.Clone(q.Require), slices.Clone(q.Prefer), q.Where.Clone()
	return c
}

// Normal returns the copy that all equal queries have: its words are sorted and do not repeat. It has no key, as
// queries share a plan whatever their keys.
func (q *Query) Normal() Query {
	n := *q
	n.Key = ""
	if n.Handler == GlobalHandler {
		n.Handler = ""
	}
	n.Only, n.Require, n.Prefer = sorted(q.Only), sorted(q.Require), sorted(q.Prefer)
	n.Where.Tags, n.Where.Regions, n.Where.Exclude = sorted(q.Where.Tags), sorted(q.Where.Regions), sorted(q.Where.Exclude)
	return n
}

func sorted(words []string) []string {
	return slices.Compact(slices.Sorted(slices.Values(words)))
}

// Basic reports whether the query has none of the rare fields: Only, Where, Prefer, Near.
func (q *Query) Basic() bool {
	return len(q.Only) == 0 && len(q.Prefer) == 0 && q.Near == "" && q.Where.IsZero()
}

// Selective reports whether the query may not accept a provider that its handler sees, or has a preference among
// them.
func (q *Query) Selective() bool { return len(q.Require) > 0 || !q.Basic() }

// String describes the query in words that follow the name of a service. It is empty for the zero value.
func (q *Query) String() string {
	var text strings.Builder
	add := func(words, value string, most int) {
		if value != "" {
			fmt.Fprintf(&text, " %s %s", words, oneline.Cut(value, most))
		}
	}
	if q.Handler != GlobalHandler {
		add("for handler", q.Handler, 64)
		if q.Handler != "" && q.OwnOnly {
			text.WriteString(" alone")
		}
	}
	add("of", strings.Join(q.Only, ", "), 200)
	add("requiring", strings.Join(q.Require, ", "), 200)
	add("where", q.Where.String(), 200)
	add("preferring", strings.Join(q.Prefer, ", "), 200)
	add("near", q.Near, 64)
	return oneline.Of(text.String())
}

// SharedKey returns what queries have in common that share a plan: the candidates and, where a strategy sees the query,
// what rates them. The strategy sees the other words of the first such query.
func (q *Query) SharedKey(candidates []uint64, seen bool) string {
	var key strings.Builder
	for _, id := range candidates {
		fmt.Fprintf(&key, "%x,", id)
	}
	if seen {
		fmt.Fprintf(&key, "%q %q %v", q.Prefer, q.Near, q.Where.MaxLatency)
	}
	return key.String()
}
