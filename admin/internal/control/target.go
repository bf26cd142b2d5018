package control

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"

	"github.com/capreg/registry"
	"github.com/capreg/registry/internal/oneline"
)

// Target names a provider. Without a service it is the provider of that name, where only one service has one.
type Target struct {
	Service  string `json:"service"`
	Provider string `json:"provider"`
}

// find returns the handle of a target, and its whole name.
func (c *Control) find(t Target) (*registry.Registration, Target, error) {
	var found []*registry.Registration
	var candidates []Target
	if t.Service != "" {
		if handle, ok := c.registry.Provider(t.Service, t.Provider); ok {
			return handle, t, nil
		}
	} else {
		for _, handle := range c.registry.Registrations() {
			if handle.Name() == t.Provider {
				found = append(found, handle)
				candidates = append(candidates, Target{handle.Definition().Service, t.Provider})
			}
		}
	}
	switch len(found) {
	case 0:
		text := fmt.Sprintf("there is no provider %q", oneline.Short(t.Provider, longestName))
		if t.Service != "" {
			text += fmt.Sprintf(" of service %q", oneline.Short(t.Service, longestName))
		}
		return nil, t, &Error{Kind: NotFound, Text: text}
	case 1:
		return found[0], candidates[0], nil
	}
	return nil, t, &Error{
		Kind: Ambiguous, Candidates: candidates,
		Text: fmt.Sprintf("%d services have a provider of that name; say which with service", len(found)),
	}
}

// longestName bounds the names that are repeated to a party, in bytes.
const longestName = 256

// settings hold all that the tag of a provider depends on: what operators and programs set, and nothing that calls change.
type settings struct {
	Definition registry.Definition
	Generation uint64
	Timeout    string
	Limits     registry.LimitPolicy
	Retry      registry.RetryPolicy
	Breaker    registry.BreakerPolicy
	Forced     uint64
	Health     any
	Revision   uint64
	Boot       string
}

// tag returns the tag of a provider: another one after each change of its settings, and after each change that was made
// through the control, so that one that is sent again is not based on what is there.
func (c *Control) tag(handle *registry.Registration, info *registry.Info) string {
	text, _ := json.Marshal(settings{ // plain data
		Definition: info.Definition, Generation: info.Generation, Timeout: handle.AttemptTimeout().String(), Limits: info.Limits,
		Retry: info.Retry, Breaker: info.Breaker.Policy, Forced: info.Breaker.ForcedOpen, Health: info.HealthPolicy,
		Revision: c.revisions.of(info.Generation), Boot: c.boot,
	})
	return tagOf(text)
}

// tagOf returns a strong tag, with its quotes.
func tagOf(text []byte) string {
	sum := sha256.Sum256(text)
	return `"` + hex.EncodeToString(sum[:12]) + `"`
}
