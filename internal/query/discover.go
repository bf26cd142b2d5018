package query

import (
	"github.com/capreg/registry/health"
	"github.com/capreg/registry/internal/check"
)

// Lists reports whether the query lists the providers of a handler: as a look-up sees them, but an empty handler stands for
// all.
func (q *Query) Lists(handler string) bool {
	switch {
	case q.Handler == "":
		return true
	case handler == "":
		return !q.OwnOnly
	}
	return handler == q.Handler
}

// CheckStates checks the states that are to be listed.
func CheckStates(states []health.State) *check.Violation {
	for i, state := range states {
		if _, err := state.MarshalText(); err != nil {
			return check.Refuse(check.Item("states", i), state, "a state of package health")
		}
	}
	return nil
}
