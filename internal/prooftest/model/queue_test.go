package model_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/capreg/registry"
)

// State of a call at a provider with a bounded number of places.
const (
	waits   = "waits"
	inside  = "inside"
	failed  = "failed"
	longest = 10 * time.Second // that a call queues
)

// line is a queue in which callers take turns, and each caller's calls are in the order in which they came.
type line struct {
	places, room int
	now          time.Duration
	inside       []int            // calls
	callers      []string         // that wait, the next turn first
	waiting      map[string][]int // their calls
	came         map[int]time.Duration
	state        map[int]string

	defect string // what it gets wrong on purpose, to see that the proof notices
}

func (l *line) length() (length int) {
	for _, calls := range l.waiting {
		length += len(calls)
	}
	return length
}

// arrive lets a call in, queues it, or refuses it. In a full queue the caller with the most calls loses its last
// one to a caller with fewer.
func (l *line) arrive(call int, caller string) {
	l.came[call] = l.now
	if l.length() >= l.room && len(l.inside) >= l.places {
		most, of := len(l.waiting[caller])+1, ""
		for _, other := range l.callers {
			if len(l.waiting[other]) > most {
				most, of = len(l.waiting[other]), other
			}
		}
		if of == "" || l.defect == "makes no room" {
			l.state[call] = failed
			return
		}
		l.fail(l.waiting[of][most-1])
	}
	l.state[call] = waits
	if l.defect == "takes no turns" {
		caller = ""
	}
	if len(l.waiting[caller]) == 0 {
		l.callers = append(l.callers, caller)
	}
	l.waiting[caller] = append(l.waiting[caller], call)
	l.grant()
}

// grant gives free places to those whose turn it is.
func (l *line) grant() {
	for len(l.inside) < l.places && len(l.callers) > 0 {
		caller := l.callers[0]
		call := l.waiting[caller][0]
		l.callers = append(l.callers[1:], caller)
		l.drop(call)
		l.state[call] = inside
		l.inside = append(l.inside, call)
	}
}

// drop takes a call out of the queue.
func (l *line) drop(call int) {
	for caller, calls := range l.waiting {
		l.waiting[caller] = slices.DeleteFunc(calls, func(other int) bool { return other == call })
	}
	l.callers = slices.DeleteFunc(l.callers, func(caller string) bool { return len(l.waiting[caller]) == 0 })
}

func (l *line) fail(call int) {
	l.drop(call)
	l.state[call] = failed
}

// done frees the place of a call.
func (l *line) done(call int) {
	l.inside = slices.DeleteFunc(l.inside, func(other int) bool { return other == call })
	delete(l.state, call)
	l.grant()
}

// replace moves the queue to a successor, whose places are free.
func (l *line) replace() {
	l.inside = nil
	l.grant()
}

func (l *line) pass(d time.Duration) {
	l.now += d
	for call, state := range l.state {
		if state == waits && l.now-l.came[call] >= longest {
			l.fail(call)
		}
	}
}

// queued is a call of the registry in a goroutine of its own.
type queued struct {
	cancel context.CancelFunc
	mu     sync.Mutex
	lease  *registry.Lease[string]
	err    error
}

func (q *queued) state() string {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.lease != nil:
		return inside
	case q.err != nil:
		return failed
	}
	return waits
}

// queueMachine is a registry with one provider, and its naive queue.
type queueMachine struct {
	t     *testing.T
	reg   *registry.Registry
	line  *line
	calls map[int]*queued
	made  int
}

func (m *queueMachine) add(replace bool) {
	_, err := services.Register(m.t.Context(), m.reg, registry.Provider[string]{
		Name: "a", Instance: "a", Replace: replace, AttemptTimeout: registry.NoTimeout,
		Limits: registry.LimitPolicy{MaxConcurrent: m.line.places, MaxQueue: m.line.room, MaxWait: longest},
	})
	require.NoError(m.t, err)
}

// Arrive makes a call.
func (m *queueMachine) Arrive(rt *rapid.T) {
	caller := rapid.SampledFrom([]string{"a", "a", "a", "b", "c"}).Draw(rt, "caller")
	ctx, cancel := context.WithCancel(m.t.Context())
	q := &queued{cancel: cancel}
	m.made++
	m.calls[m.made] = q
	go func() {
		lease, err := services.Bind(m.reg, registry.Query{}).Acquire(ctx, registry.Caller(caller))
		q.mu.Lock()
		defer q.mu.Unlock()
		q.lease, q.err = lease, err
	}()
	m.line.arrive(m.made, caller)
}

// draw returns a call in a state; zero: there is none.
func (m *queueMachine) draw(rt *rapid.T, state string) int {
	var all []int
	for call, is := range m.line.state {
		if is == state {
			all = append(all, call)
		}
	}
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return rapid.SampledFrom(all).Draw(rt, state)
}

// Done ends a call that has a place.
func (m *queueMachine) Done(rt *rapid.T) {
	if call := m.draw(rt, inside); call > 0 {
		m.calls[call].lease.Done(nil)
		m.line.done(call)
		m.forget(call)
	}
}

// Leave ends the context of a call that waits.
func (m *queueMachine) Leave(rt *rapid.T) {
	if call := m.draw(rt, waits); call > 0 {
		m.calls[call].cancel()
		m.line.fail(call)
	}
}

// Replace replaces the provider.
func (m *queueMachine) Replace(*rapid.T) {
	m.add(true)
	m.line.replace()
}

// Pass lets time go by.
func (m *queueMachine) Pass(rt *rapid.T) {
	d := rapid.SampledFrom([]time.Duration{time.Second, 4 * time.Second, longest - 1, longest}).Draw(rt, "time")
	time.Sleep(d)
	m.line.pass(d)
}

func (m *queueMachine) forget(call int) {
	m.calls[call].cancel()
	delete(m.calls, call)
	delete(m.line.state, call)
}

// check compares the states of all calls.
func (m *queueMachine) check(rt *rapid.T) {
	synctest.Wait()
	for call := range m.made + 1 {
		q := m.calls[call]
		if q == nil {
			continue
		}
		require.Equal(rt, m.line.state[call], q.state(), "call %d of %d", call, m.made)
		if q.state() == failed {
			m.forget(call)
		}
	}
}

func (m *queueMachine) finish() {
	for _, q := range m.calls {
		q.cancel()
	}
	synctest.Wait()
	for _, q := range m.calls {
		q.mu.Lock()
		q.lease.Done(nil)
		q.mu.Unlock()
	}
	_ = m.reg.Close(m.t.Context())
}

func playQueue(t *testing.T, rt *rapid.T, defect string) {
	t.Helper()
	places, room := rapid.IntRange(1, 2).Draw(rt, "places"), rapid.IntRange(1, 5).Draw(rt, "room")
	var thrown any
	synctest.Test(t, func(t *testing.T) {
		reg, err := registry.New(registry.Options{DrainTimeout: 24 * time.Hour})
		require.NoError(t, err)
		m := &queueMachine{t: t, reg: reg, calls: make(map[int]*queued), line: &line{
			places: places, room: room, waiting: make(map[string][]int), came: make(map[int]time.Duration), state: make(map[int]string), defect: defect,
		}}
		m.add(false)
		defer m.finish()
		defer func() { thrown = recover() }() // rapid ends a case that fails by a panic
		rt.Repeat(map[string]func(*rapid.T){
			"": m.check, "arrive": m.Arrive, "arrive again": m.Arrive, "arrive once more": m.Arrive,
			"done": m.Done, "leave": m.Leave, "replace": m.Replace, "pass": m.Pass,
		})
	})
	switch {
	case thrown == nil:
	case fmt.Sprintf("%T", thrown) == "rapid.invalidData":
		throwInvalid(thrown)
	default:
		throwFailure(thrown)
	}
}

func TestQueues_CallersTakeTurnsAsInNaiveOne(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) { playQueue(t, rt, "") })
}
