package main

import (
	"fmt"
	"maps"
	"slices"
	"sync"
)

// outcome is the end of a call of the soak.
type outcome string

const (
	answered  outcome = "answered"
	failed    outcome = "failed"      // with the error of a call that was tried
	refused   outcome = "unavailable" // no provider admitted the call
	cancelled outcome = "cancelled"   // by its own context
	forgotten outcome = "forgotten"   // a lease or stream that was never ended
	panicked  outcome = "panicked"    // through the caller, as it was planned
	exited    outcome = "exited"      // likewise, by runtime.Goexit
	unplanned outcome = "unplanned"   // a panic or an exit that was not planned
)

// ledger has each call of the soak once: from its beginning to its one end.
type ledger struct {
	// mu guards the fields below; nothing is called while it is held.
	mu     sync.Mutex
	begun  uint64
	open   map[uint64]string // the kinds of calls that have not ended
	ended  map[tally]uint64
	lost   uint64   // ends that belong to no open call, and calls that vanished
	broken []string // promises found broken, the first few
	breaks uint64   // all of them
}

// tally is a key of the ledger's counts.
type tally struct {
	kind    string
	outcome outcome
}

func newLedger() *ledger {
	return &ledger{open: make(map[uint64]string), ended: make(map[tally]uint64)}
}

// begin opens an account for a call.
func (l *ledger) begin(kind string) (number uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.begun++
	l.open[l.begun] = kind
	return l.begun
}

// end closes the account. A second end is a call that is counted twice; no outcome is
// one that returned without saying how.
func (l *ledger) end(number uint64, how outcome) {
	l.mu.Lock()
	defer l.mu.Unlock()
	kind, open := l.open[number]
	delete(l.open, number)
	if !open || how == "" {
		l.lost++
	}
	if open {
		l.ended[tally{kind, how}]++
	}
}

// lose records calls on whose number the two counts disagree.
func (l *ledger) lose(calls uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lost += calls
}

const mostBroken = 20 // that are printed

// breaks notes a promise that was found broken.
func (l *ledger) broke(format string, values ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.breaks++
	if len(l.broken) < mostBroken {
		l.broken = append(l.broken, fmt.Sprintf(format, values...))
	}
}

// sums are the totals of a ledger.
type sums struct {
	calls, lost, stuck, leaked, broken uint64
}

// clean reports whether nothing is wrong.
func (s sums) clean() bool { return s.lost+s.stuck+s.leaked+s.broken == 0 }

// String is the last line of a soak.
func (s sums) String() string {
	return fmt.Sprintf("calls %d lost %d stuck %d leaked %d races-of-state %d", s.calls, s.lost, s.stuck, s.leaked, s.broken)
}

// sum returns the totals; an open call is stuck.
func (l *ledger) sum() sums {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := sums{calls: l.begun, lost: l.lost, stuck: uint64(len(l.open)), broken: l.breaks}
	ended := uint64(0)
	for _, count := range l.ended {
		ended += count
	}
	if sum := ended + s.stuck; sum != s.calls {
		s.lost += max(sum, s.calls) - min(sum, s.calls)
	}
	return s
}

// rows returns the number of calls of each kind and outcome, in order.
func (l *ledger) rows() (kinds []string, outcomes []outcome, counts map[tally]uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	counts = maps.Clone(l.ended)
	for t := range counts {
		kinds, outcomes = append(kinds, t.kind), append(outcomes, t.outcome)
	}
	slices.Sort(kinds)
	slices.Sort(outcomes)
	return slices.Compact(kinds), slices.Compact(outcomes), counts
}
