package changeset

import (
	"iter"
	"maps"

	"github.com/capreg/registry/internal/check"
	"github.com/capreg/registry/internal/domain"
	"github.com/capreg/registry/internal/limit"
	"github.com/capreg/registry/internal/pick"
	"github.com/capreg/registry/selection"
	"github.com/capreg/registry/status"
)

// Members is a [World] over the tables of an owner of members, who guards them.
type Members[M comparable] struct {
	Named     map[status.ProviderID]M
	Domains   domain.Set[M]
	Of        func(service string) (map[M]struct{}, pick.Groups)
	Describe  func(M) (status.ProviderID, Member)
	CheckName func(status.ProviderID) *check.Violation
}

// Member implements [World].
func (w *Members[M]) Member(id status.ProviderID) (m Member, ok bool) {
	if member, known := w.Named[id]; known {
		_, m = w.Describe(member)
		return m, true
	}
	return m, false
}

// Reserved implements [World].
func (w *Members[M]) Reserved(id status.ProviderID) *check.Violation { return w.CheckName(id) }

// Group implements [World].
func (w *Members[M]) Group(key GroupKey) (s Shared[selection.Strategy]) {
	_, groups := w.Of(key.Service)
	if g := groups[key.ID]; g != nil {
		s = Shared[selection.Strategy]{Value: g.Strategy, Size: g.Size()}
		if g.SetBy != "" {
			s.By = status.ProviderID{Service: key.Service, Name: g.SetBy}
		}
	}
	return s
}

// InGroup implements [World].
func (w *Members[M]) InGroup(key GroupKey) iter.Seq[status.ProviderID] {
	all, _ := w.Of(key.Service)
	return w.ids(maps.Keys(all), func(m Member) bool { return m.Group == key.ID })
}

// Domain implements [World].
func (w *Members[M]) Domain(key string) (s Shared[limit.Policy]) {
	if d, ok := w.Domains[key]; ok {
		s = Shared[limit.Policy]{Value: d.Policy(), By: d.LimitsBy(), Size: d.Size()}
	}
	return s
}

// InDomain implements [World].
func (w *Members[M]) InDomain(key string) iter.Seq[status.ProviderID] {
	d, ok := w.Domains[key]
	if !ok {
		return func(func(status.ProviderID) bool) {}
	}
	return w.ids(d.Each, func(Member) bool { return true })
}

// Members implements [World].
func (w *Members[M]) Members(service string) iter.Seq2[status.ProviderID, Member] {
	all, _ := w.Of(service)
	return func(yield func(status.ProviderID, Member) bool) {
		for member := range all {
			if !yield(w.Describe(member)) {
				return
			}
		}
	}
}

func (w *Members[M]) ids(all iter.Seq[M], wanted func(Member) bool) iter.Seq[status.ProviderID] {
	return func(yield func(status.ProviderID) bool) {
		for member := range all {
			if id, m := w.Describe(member); wanted(m) && !yield(id) {
				return
			}
		}
	}
}
