package bus

import "weak"

// Views holds how each of many things was between two of its changes. Observers that begin between the same changes
// share a view, and those that begin with no change between them the list of all views. Its methods, and those of
// [Place], are called with the owner's lock held. The zero value is ready to use.
type Views[P, V any] struct {
	all []*View[P, V] // nil: something has changed
}

// Place belongs to a thing, and refers to its latest view. The zero value has none yet.
type Place[P, V any] struct {
	view    *View[P, V]
	changed bool
}

// View is a thing as it was. It never changes, and does not keep the thing alive.
type View[P, V any] struct {
	of  weak.Pointer[P]
	was V
}

// Was returns the view.
func (v *View[P, V]) Was() V { return v.was }

// Of returns the thing; nil when nothing else keeps it any more.
func (v *View[P, V]) Of() *P { return v.of.Value() }

// Change notes that the thing of the place has changed.
func (v *Views[P, V]) Change(at *Place[P, V]) { at.changed, v.all = true, nil }

// Reset notes that there are other things, or in another order.
func (v *Views[P, V]) Reset() { v.all = nil }

// Shows reports whether the thing has not changed since the view.
func (p *Place[P, V]) Shows(v *View[P, V]) bool { return p.view == v && !p.changed }

// Look makes a view of the thing, unless there is one since its last change. look gets the view before, or a zero value.
func (p *Place[P, V]) Look(of *P, look func(before V) V) {
	if p.view != nil && !p.changed {
		return
	}
	var before V
	if p.view != nil {
		before = p.view.was
	}
	p.view, p.changed = &View[P, V]{weak.Make(of), look(before)}, false
}

// Outdated returns the things without a view since their last change; none while the list is shared.
func (v *Views[P, V]) Outdated(things []*P, place func(*P) *Place[P, V]) (all []*P) {
	if v.all != nil {
		return nil
	}
	for _, thing := range things {
		if at := place(thing); at.view == nil || at.changed {
			all = append(all, thing)
		}
	}
	return all
}

// All returns the views of all things, as they are now.
func (v *Views[P, V]) All(things []*P, place func(*P) *Place[P, V], look func(of *P, before V) V) []*View[P, V] {
	if v.all == nil {
		v.all = make([]*View[P, V], len(things))
		for i, thing := range things {
			place(thing).Look(thing, func(before V) V { return look(thing, before) })
			v.all[i] = place(thing).view
		}
	}
	return v.all
}
