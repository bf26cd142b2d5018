package override

import "sync/atomic"

// Linked is a provider that can be replaced for a test.
type Linked[M any] interface {
	*M
	Replacements() *Link[M]
}

// Link links what replaces each other, from the original to the current one. Its owner guards it; the current one can be
// found at any time.
type Link[M any] struct {
	by atomic.Pointer[M] // the next one; nil: this one is current
	of *M                // the one before; nil: this is the original
}

// Of returns the one that this one replaces; nil: this is the original.
func (l *Link[M]) Of() *M { return l.of }

// Replaced reports whether there is a newer one.
func (l *Link[M]) Replaced() bool { return l.by.Load() != nil }

// Follow makes it the replacement of another, to which that leads only by [Link.Lead].
func (l *Link[M]) Follow(replaced *M) { l.of = replaced }

// Lead makes it lead to its replacement; nil: it is the current one.
func (l *Link[M]) Lead(by *M) { l.by.Store(by) }

// Unlink takes a replacement out of the chain, and returns the one that it replaced, and the one that replaces it, or
// nil. It keeps its own links: those on the way to the current one still find it.
func Unlink[M any, P Linked[M]](p P) (of, by P) {
	of, by = p.Replacements().of, p.Replacements().by.Load()
	of.Replacements().by.Store(by)
	if by != nil {
		by.Replacements().of = of
	}
	return of, by
}

// Current returns the latest replacement of p, or p itself when it has none.
func Current[M any, P Linked[M]](p P) P {
	for {
		by := p.Replacements().by.Load()
		if by == nil {
			return p
		}
		p = by
	}
}

// Chain returns the current one and those that it replaces, down to the original.
func Chain[M any, P Linked[M]](p P) (all []P) {
	for at := Current(p); at != nil; at = at.Replacements().of {
		all = append(all, at)
	}
	return all
}
