package changeset

import (
	"iter"
	"maps"

	"github.com/capreg/registry/internal/check"
	"github.com/capreg/registry/internal/domain"
	"github.com/capreg/registry/internal/limit"
	"github.com/capreg/registry/internal/pick"
	"github.com/capreg/registry/selection"
)

// Members is a [World] over the tables of an owner of members, who guards them.
type Members[M comparable] struct {
	Named     map[string]M
	Domains   domain.Set[M]
	Of        func(service string) (map[M]struct{}, pick.Groups)
	Describe  func(M) (name string, m Member)
	CheckName func(name string) *check.Violation
}

// Member implements [World].
func (w *Members[M]) Member(name string) (m Member, ok bool) {
	if member, known := w.Named[name]; known {
		_, m = w.Describe(member)
		return m, true
	}
	return m, false
}

// Reserved implements [World].
func (w *Members[M]) Reserved(name string) *check.Violation { return w.CheckName(name) }

// Group implements [World].
func (w *Members[M]) Group(key GroupKey) (s Shared[selection.Strategy]) {
	_, groups := w.Of(key.Service)
	if g := groups[key.ID]; g != nil {
		s = Shared[selection.Strategy]{Value: g.Strategy, By: g.SetBy, Size: g.Size()}
	}
	return s
}

// NamesInGroup implements [World].
func (w *Members[M]) NamesInGroup(key GroupKey) iter.Seq[string] {
	all, _ := w.Of(key.Service)
	return w.names(maps.Keys(all), func(m Member) bool { return m.Group == key.ID })
}

// Domain implements [World].
func (w *Members[M]) Domain(key string) (s Shared[limit.Policy]) {
	if d, ok := w.Domains[key]; ok {
		s = Shared[limit.Policy]{Value: d.Policy(), By: d.LimitsBy(), Size: d.Size()}
	}
	return s
}

// NamesInDomain implements [World].
func (w *Members[M]) NamesInDomain(key string) iter.Seq[string] {
	d, ok := w.Domains[key]
	if !ok {
		return func(func(string) bool) {}
	}
	return w.names(d.Each, func(Member) bool { return true })
}

// Members implements [World].
func (w *Members[M]) Members(service string) iter.Seq2[string, Member] {
	all, _ := w.Of(service)
	return func(yield func(string, Member) bool) {
		for member := range all {
			if !yield(w.Describe(member)) {
				return
			}
		}
	}
}

func (w *Members[M]) names(all iter.Seq[M], wanted func(Member) bool) iter.Seq[string] {
	return func(yield func(string) bool) {
		for member := range all {
			if name, m := w.Describe(member); wanted(m) && !yield(name) {
				return
			}
		}
	}
}
