package refusal

import "time"

// Doors remembers, for one look-up, what turns it away from providers of type P, so that each is asked once: asking an
// authoriser runs code of a user. Use [NewDoors] to create one. It is not safe for concurrent use.
type Doors[P comparable] struct {
	ask   func(P) (*Reason, time.Duration)
	known map[P]answer
}

// answer holds what one provider answered; a nil reason lets the look-up in.
type answer struct {
	why     *Reason
	retryIn time.Duration
}

// NewDoors returns doors that ask the function, at most once for each provider.
func NewDoors[P comparable](ask func(P) (*Reason, time.Duration)) *Doors[P] {
	return &Doors[P]{ask: ask, known: make(map[P]answer)}
}

// Refusal returns the reason for which a provider turns the look-up away, and the time until that ends by itself;
// nil for one that lets it in.
func (d *Doors[P]) Refusal(p P) (why *Reason, retryIn time.Duration) {
	known, ok := d.known[p]
	if !ok {
		known.why, known.retryIn = d.ask(p)
		d.known[p] = known
	}
	return known.why, known.retryIn
}

// Open reports whether a provider lets the look-up in.
func (d *Doors[P]) Open(p P) bool {
	why, _ := d.Refusal(p)
	return why == nil
}
