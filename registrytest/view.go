package registrytest

import (
	"time"

	"github.com/capreg/registry/internal/choice"
	"github.com/capreg/registry/selection"
)

// Candidate describes a candidate of [NewView].
type Candidate struct {
	// Name, Version, Region, Tags, Capabilities, Metadata, Weight and Cost are those of the provider. Default: none, and a
	// weight of 1.
	Name, Version, Region string
	Tags, Capabilities    []string
	Metadata              map[string]string
	Weight, Cost          float64
	// Down makes it one that cannot be picked.
	Down bool
	// Latency is the time that its answers have taken. Default: nothing was measured.
	Latency time.Duration
	// InFlight is the number of its attempts that have not ended.
	InFlight int
}

// NewView returns a view of candidates as one group of a query, for tests of what a selector picks without a registry.
// Copies of the view share the memory of the group: each pick takes the next turn. See also [TestSelector]. It is safe
// for concurrent use.
func NewView(request selection.Request, candidates ...Candidate) selection.View {
	members := make([]choice.Member, len(candidates))
	f := &field{cursor: choice.NewCursor(1), is: make([]bool, len(candidates))}
	for i, c := range candidates {
		vitals := choice.NewVitals(0, 0)
		if c.Latency > 0 {
			vitals.Begin()
			vitals.End(moment, c.Latency, choice.Answered, nil)
		}
		for range c.InFlight {
			vitals.Begin()
		}
		members[i] = choice.Member{Vitals: vitals, Profile: choice.Profile{
			Service: request.Service, Handler: request.Handler, Name: c.Name, Version: c.Version, Region: c.Region,
			Tags: c.Tags, Capabilities: c.Capabilities, Metadata: c.Metadata, Weight: c.Weight, Cost: c.Cost,
		}}
		f.is[i] = !c.Down
	}
	f.set = request.View(selection.Policy{}, members)
	return f.set.With(f.look(false, 0))
}
