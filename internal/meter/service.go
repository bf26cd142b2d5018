// Package meter measures what a registry does: look-ups, calls and attempts.
//
// Recording is as cheap as can be, because it is on the path of every call; reading adds up. A quick call, which is
// little more than its attempt, writes to its provider alone, and once at its end: its look-up, its call and its answer
// are all the same count, in a bucket of [record.Outcomes]. The service is told once the provider has no call any more.
// The package starts no goroutine and no timer, and looks at no clock: it is given the time.
package meter

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/capreg/registry/internal/histogram"
	"github.com/capreg/registry/internal/record"
	"github.com/capreg/registry/internal/striped"
	"github.com/capreg/registry/metrics"
	"github.com/capreg/registry/reason"
	"github.com/capreg/registry/verdict"
)

// sampled says how many look-ups of a stripe there are for one that is timed; a power of two.
const sampled = 1024

// fine divides the buckets of calls into those of look-ups.
const fine = 1 << 12

// Service measures one service. Use [NewService] to create one. All methods are safe for concurrent use.
type Service struct {
	cells     striped.Cells[lookups]
	misses    record.Counter[reason.Code]
	lookup    histogram.Histogram // of durations in units of 1/fine ns
	waits     histogram.Histogram
	calls     outcomes
	attempts  [6]atomic.Uint64 // of calls by their attempts, the last above all bounds
	attempted atomic.Uint64    // sum of these

	// mu guards the fields below. Nothing is called while it is held.
	mu   sync.Mutex
	live map[*Provider]struct{} // that had an attempt, and may have more
	gone histogram.Counts       // quick calls of the others
}

// lookups counts the look-ups of a service by their success, but for those of quick calls.
type lookups struct{ hits, misses atomic.Uint64 }

// NewService returns the meter of a service.
func NewService() *Service {
	s := &Service{live: make(map[*Provider]struct{})}
	s.cells.Local() // allocates the cells here rather than in a look-up
	return s
}

// Hit counts a look-up that gave out a provider, and reports whether one is to be timed.
func (s *Service) Hit() (timed bool) {
	return s.cells.At(striped.Here()).hits.Add(1)%sampled == 0
}

// Miss counts a look-up that found no provider.
func (s *Service) Miss() { s.cells.Local().misses.Add(1) }

// MissFor counts a miss once for each code.
func (s *Service) MissFor(codes ...reason.Code) { s.misses.Add(codes...) }

// MissesByReason returns these counts.
func (s *Service) MissesByReason() map[reason.Code]uint64 { return s.misses.ByReason() }

// TimeLookup notes how long a look-up took.
func (s *Service) TimeLookup(took time.Duration) { s.lookup.Add(took * fine) }

// Waited notes for how long an attempt was kept waiting; zero for none is left out.
func (s *Service) Waited(delay time.Duration) {
	if delay > 0 {
		s.waits.Add(delay)
	}
}

// Single counts a call that was little more than its attempt, with its look-up.
func (s *Service) Single(class verdict.Class, took time.Duration) {
	s.Hit()
	s.Called(class, took, 1)
}

// Called counts a call that has ended with that class; attempts is how many it had.
func (s *Service) Called(class verdict.Class, took time.Duration, attempts int) {
	s.calls.add(class, took)
	s.attempts[amountIndex(attempts)].Add(1)
	s.attempted.Add(uint64(max(attempts, 0)))
}

func amountIndex(n int) int {
	bounds := metrics.AmountBounds()
	for i, bound := range bounds {
		if n <= int(bound) { //nolint:gosec // they are small
			return i
		}
	}
	return len(bounds)
}

// Lookups returns how many look-ups gave out a provider, and how many did not.
func (s *Service) Lookups() (hits, misses uint64) {
	for cell := range s.cells.Each {
		hits += cell.hits.Load()
		misses += cell.misses.Load()
	}
	quick := s.quick()
	return hits + quick.Total(), misses
}

// quick returns the quick calls.
func (s *Service) quick() histogram.Counts {
	s.mu.Lock()
	all, live := s.gone, slices.Collect(maps.Keys(s.live))
	s.mu.Unlock() // those that leave now count no more, and are not in all
	for _, p := range live {
		p.addQuick(&all)
	}
	return all
}

// idle reports whether no provider may have a call any more.
func (s *Service) idle() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.live) == 0
}

// Read returns the measurements of the service of that name.
func (s *Service) Read(name string) metrics.Service {
	shown := metrics.Service{Name: name, MissesByReason: s.misses.ByReason()}
	quick := s.quick()
	for cell := range s.cells.Each {
		shown.Hits += cell.hits.Load()
		shown.Misses += cell.misses.Load()
	}
	shown.Hits += quick.Total()
	shown.Calls = s.calls.read(&quick)
	shown.LookupTime, shown.Waits = show(countsOf(&s.lookup), fine), show(countsOf(&s.waits), 1)

	shown.Attempts.Count, shown.Attempts.Sum = quick.Total(), quick.Total()+s.attempted.Load()
	below := quick.Total() // all of these have one
	for i := range s.attempts {
		count := s.attempts[i].Load()
		shown.Attempts.Count += count
		if below += count; i < len(s.attempts)-1 {
			shown.Attempts.AtMost = append(shown.Attempts.AtMost, below)
		}
	}
	return shown
}

// Forgotten counts the look-ups of services that are forgotten. The zero value has none; it must not be copied. All
// methods are safe for concurrent use.
type Forgotten struct {
	// mu guards the fields below. The lock of a service comes after it.
	mu           sync.Mutex
	hits, misses uint64
	busy         []*Service // whose providers may have calls
}

// Add adds a service that is forgotten.
func (f *Forgotten) Add(s *Service) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.busy = append(f.busy, s)
	f.settle()
}

// Lookups returns how many look-ups gave out a provider, and how many did not.
func (f *Forgotten) Lookups() (hits, misses uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.settle()
	hits, misses = f.hits, f.misses
	for _, s := range f.busy {
		h, m := s.Lookups()
		hits, misses = hits+h, misses+m
	}
	return hits, misses
}

// settle keeps nothing but sums of the services that have no calls any more. Caller holds mu.
func (f *Forgotten) settle() {
	busy := f.busy[:0]
	for _, s := range f.busy {
		if !s.idle() {
			busy = append(busy, s)
			continue
		}
		h, m := s.Lookups()
		f.hits, f.misses = f.hits+h, f.misses+m
	}
	clear(f.busy[len(busy):])
	f.busy = busy
}
