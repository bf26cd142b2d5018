package bus

import (
	"fmt"
	"slices"

	"github.com/capreg/registry/event"
	"github.com/capreg/registry/internal/check"
)

// CheckFilters returns the first kind that is none; nil when all are.
func CheckFilters(filters []event.Filter) *check.Violation {
	known := event.Kinds()
	for i, f := range filters {
		for j, kind := range f.Kinds {
			if !slices.Contains(known, kind) {
				return check.Refuse(fmt.Sprintf("filters[%d].Kinds[%d]", i, j), string(kind), "one of event.Kinds")
			}
		}
	}
	return nil
}

// Filters select what a subscriber gets: what one of them accepts, and everything without any.
type Filters []event.Filter

// clone returns a copy that its caller does not change.
func (f Filters) clone() Filters {
	copied := slices.Clone(f)
	for i, one := range copied {
		copied[i] = event.Filter{
			Kinds: slices.Clone(one.Kinds), Services: slices.Clone(one.Services), Providers: slices.Clone(one.Providers),
		}
	}
	return copied
}

// accepts reports whether the event is wanted.
func (f Filters) accepts(e event.Event) bool {
	return len(f) == 0 || slices.ContainsFunc(f, func(one event.Filter) bool { return one.Accepts(e) })
}

// AcceptsProvider reports whether any event of the provider may be wanted.
func (f Filters) AcceptsProvider(service, provider string) bool {
	return len(f) == 0 || slices.ContainsFunc(f, func(one event.Filter) bool { return one.AcceptsProvider(service, provider) })
}
