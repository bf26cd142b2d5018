package registry

import (
	"github.com/capreg/registry/internal/query"
	"github.com/capreg/registry/selection"
)

// Query selects providers of a service. The zero value selects the global ones.
type Query struct {
	// Handler sees the providers registered for it before the global ones. Empty or "*": only the global ones.
	Handler string `json:"handler,omitempty"`
	// OwnOnly leaves the global providers out; it needs a Handler.
	OwnOnly bool `json:"own_only,omitempty"`
	// Only names the providers that may be asked, such as one for a test call; empty: any. Others are [reason.Excluded].
	Only []string `json:"only,omitempty"`
	// Require lists the capabilities that a provider must have, all of them,
	// compared exactly. This list and the others have at most 256 words each.
	Require []string `json:"require,omitempty"`
	// TryRefused tries the next provider after one has refused the content. Default: the refusal is the answer.
	TryRefused bool `json:"try_refused,omitempty"`
	// Where has further requirements that a provider must meet, whatever the strategy of its group.
	Where selection.Requirements `json:"where,omitzero"`
	// Prefer lists capabilities and tags that are an advantage, and Near is the region
	// of the caller. They matter to strategies that consider them.
	Prefer []string `json:"prefer,omitempty"`
	Near   string   `json:"near,omitempty"`
	// Key is the affinity key of sticky strategies: a session, a user, a prompt. Queries that differ in nothing else
	// share their plan. Default: the key of the context ([selection.WithKey]).
	Key string `json:"key,omitempty"`
}

// String describes the query in words that follow the name of a service. It is empty for the zero value.
func (q Query) String() string { return (*query.Query)(&q).String() }

// normal returns a checked copy that equal queries share, without the key.
func (q Query) normal() (Query, error) {
	asked := (*query.Query)(&q)
	if v := asked.Check(); v != nil {
		return Query{}, asInvalid(v)
	}
	return Query(asked.Normal()), nil
}

func (q Query) clone() Query { return Query((*query.Query)(&q).Clone()) }
