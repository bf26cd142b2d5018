// Package ring holds a bounded queue that drops its oldest values.
package ring

// Ring is a first-in first-out queue of bounded length: when it is full, a push drops the
// oldest value and counts it. It grows on demand. It is not safe for concurrent use.
type Ring[T any] struct {
	values []T
	head   int // of the oldest
	length int
	limit  int
	lost   uint64 // since the last pop
}

// New returns an empty ring that holds at most limit values, and at least one.
func New[T any](limit int) *Ring[T] { return &Ring[T]{limit: max(limit, 1)} }

// Push adds a value, in place of the oldest when the ring is full.
func (r *Ring[T]) Push(value T) {
	if r.length == len(r.values) && r.length < r.limit {
		r.grow()
	}
	if r.length == r.limit {
		r.drop()
		r.lost++
	}
	r.values[(r.head+r.length)%len(r.values)] = value
	r.length++
}

// Pop removes the oldest value; lost is the number of values dropped just before it.
func (r *Ring[T]) Pop() (value T, lost uint64, ok bool) {
	if r.length == 0 {
		return value, 0, false
	}
	value, lost = r.values[r.head], r.lost
	r.lost = 0
	r.drop()
	return value, lost, true
}

// Values returns a copy of the values, oldest first.
func (r *Ring[T]) Values() []T {
	values := make([]T, 0, r.length)
	for i := range r.length {
		values = append(values, r.values[(r.head+i)%len(r.values)])
	}
	return values
}

// Len returns the number of values in the ring.
func (r *Ring[T]) Len() int { return r.length }

func (r *Ring[T]) drop() {
	var none T
	r.values[r.head] = none
	r.head = (r.head + 1) % len(r.values)
	r.length--
}

func (r *Ring[T]) grow() {
	const smallest = 8
	larger := make([]T, min(max(2*len(r.values), smallest), r.limit))
	for i := range r.length {
		larger[i] = r.values[(r.head+i)%len(r.values)]
	}
	r.values, r.head = larger, 0
}
