package changeset

import (
	"math"
	"time"
)

// Proof tells how far a newcomer has proven itself.
type Proof uint8

const (
	// Pending says that it may still do so.
	Pending Proof = iota
	// Proven says that it has done so.
	Proven
	// Failed says that it has not.
	Failed
)

// Proofs follows the newcomers of a set until all have proven themselves. The zero value follows none.
type Proofs struct {
	within  map[int]time.Duration // by index of the change
	all     []int
	pending []int
}

// Add adds a newcomer that has to prove itself within the given time.
func (p *Proofs) Add(i int, within time.Duration) {
	if p.within == nil {
		p.within = make(map[int]time.Duration)
	}
	p.within[i] = within
	p.all, p.pending = append(p.all, i), append(p.pending, i)
}

// All returns the newcomers, in the order in which they were added.
func (p *Proofs) All() []int { return p.all }

// Late reports whether the time of a newcomer is over.
func (p *Proofs) Late(i int, after time.Duration) bool { return after >= p.within[i] }

// Look looks at the newcomers after the given time. It returns those that have failed or are late and, where there are
// none, whether all have proven themselves, and otherwise the time until the next of them is late. One that had proven
// itself before has to be well at the moment at which all have.
func (p *Proofs) Look(after time.Duration, of func(i int) Proof) (failed []int, left time.Duration, proven bool) {
	if failed, left = p.look(p.pending, after, of); len(failed)+len(p.pending) == 0 {
		failed, left = p.look(p.all, after, of)
	}
	return failed, left, len(failed)+len(p.pending) == 0
}

func (p *Proofs) look(at []int, after time.Duration, of func(i int) Proof) (failed []int, left time.Duration) {
	var pending []int
	left = math.MaxInt64
	for _, i := range at {
		switch proof := of(i); {
		case proof == Proven:
		case proof == Failed || p.Late(i, after):
			failed = append(failed, i)
		default:
			pending = append(pending, i)
			left = min(left, p.within[i]-after)
		}
	}
	p.pending = pending
	return failed, left
}
