package registry

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/capreg/registry/startup"
)

var _ startup.Supervisor = (*supervisor)(nil)

// current reports whether the life that s speaks of goes on. Caller holds mu.
func (s *supervisor) current() bool {
	n := s.node
	return n.generation == s.generation && (n.state == startup.Starting || n.state == startup.Ready)
}

// RunContext returns the context of the component's life.
func (s *supervisor) RunContext() context.Context {
	s.o.mu.Lock()
	defer s.o.mu.Unlock()
	n, x := s.node, s.node.more()
	if n.generation != s.generation && x.life == nil {
		ended, cancel := context.WithCancelCause(s.o.values)
		cancel(fmt.Errorf("registry: component %q: %w", n.c.Name, ErrClosed))
		return ended
	}
	if x.life == nil {
		x.life, x.endLife = context.WithCancelCause(s.o.values)
	}
	return x.life
}

// ComponentReady notes that the component says that it is ready.
func (s *supervisor) ComponentReady() {
	s.o.mu.Lock()
	defer s.o.mu.Unlock()
	if s.node.generation != s.generation || s.node.notified {
		return
	}
	s.node.notified = true
	if s.node.accepted && s.node.c.Notifies {
		go func() { s.o.stopEach(s.o.advance(s.node, s.generation)) }()
	}
}

// ComponentGo runs f for the component.
func (s *supervisor) ComponentGo(f func(context.Context) error) {
	ctx := s.RunContext()
	s.o.mu.Lock()
	if !s.current() || f == nil {
		s.o.mu.Unlock()
		return
	}
	s.node.more().workers++
	s.o.mu.Unlock()
	go func() {
		err := error(&PanicError{}) // what remains when f exits its goroutine
		defer func() {
			s.o.workerEnded(s.node)
			if ctx.Err() == nil {
				s.ComponentEnded(err)
			}
		}()
		err = guard(func() error { return f(ctx) })
	}()
}

func (o *Orchestrator) workerEnded(n *node) {
	o.mu.Lock()
	defer o.mu.Unlock()
	x := n.more()
	x.workers--
	if x.workers == 0 && x.idle != nil {
		close(x.idle)
		x.idle = nil
	}
}

// ComponentEnded decides what follows when a component has ended by itself.
func (s *supervisor) ComponentEnded(err error) {
	text := "ended by itself"
	if err != nil {
		text = cut(errorText(err), 300) // a user's method: outside the lock
	}
	o, n := s.o, s.node
	o.mu.Lock()
	if !s.current() {
		o.mu.Unlock()
		return
	}
	if n.state == startup.Starting {
		var stops []*node
		if err == nil {
			err = fmt.Errorf("%w: it ended before it was ready", ErrNotReady)
			text = err.Error()
		}
		if n.accepted && n.calls == 0 {
			stops = o.failStarted(n, err, text)
		} else {
			n.err, n.reason = err, text // what its Start, or its timeout, will add to
		}
		o.mu.Unlock()
		o.stopEach(stops)
		return
	}
	n.err, n.reason = err, text
	again := n.c.Restart.Mode == startup.Always || n.c.Restart.Mode == startup.OnFailure && err != nil
	switch {
	case o.phase == phaseStopping || o.phase == phaseStopped:
	case again && o.bears(n):
		n.state = startup.Restarting
		n.generation++
		o.emit(n, 0)
		go o.restart(n)
	case again || err != nil:
		o.lose(n, err, text)
	}
	o.mu.Unlock()
}

// bears counts a restart, and reports whether it is borne: the count halves in each
// time of decay. Caller holds mu.
func (o *Orchestrator) bears(n *node) bool {
	now, x := o.now(), n.more()
	if x.restarts > 0 {
		x.intensity *= math.Exp2(-float64(now-x.endedAt) / float64(n.c.Restart.Decay))
	}
	x.endedAt = now
	x.intensity++
	return x.intensity <= float64(n.c.Restart.Limit)
}

// lose gives a component up that was running. It is stopped with the others. Caller
// holds mu.
func (o *Orchestrator) lose(n *node, err error, text string) {
	n.state, n.err, n.reason = startup.Failed, err, text
	o.emit(n, 0)
	x := n.more()
	registrations := x.registrations
	x.registrations = nil
	if len(registrations) > 0 {
		go func() {
			ctx, cancel := context.WithTimeout(o.values, n.c.StopTimeout)
			defer cancel()
			for _, r := range slices.Backward(registrations) {
				_ = r.Unregister(ctx) // what is stuck is named when the registry closes
			}
		}()
	}
	if n.c.NonCritical || o.err != nil {
		return
	}
	o.err = wrap(fmt.Sprintf("registry: component %q: ", n.c.Name), err)
	close(o.failed)
}

// restart stops what is left of a component, with its dependants where it says so,
// and starts it again, until it is ready or given up.
func (o *Orchestrator) restart(n *node) {
	users := o.stopUsers(n)
	o.takeApartFor(n)
	for pause := time.Duration(0); ; {
		pause = min(max(2*pause, n.c.Restart.FirstDelay), n.c.Restart.MaxDelay)
		if !o.pauseFor(pause) {
			o.mu.Lock()
			n.state, n.reason = startup.Stopped, ""
			stops := o.release(n)
			o.checkStopped()
			o.mu.Unlock()
			o.stopEach(stops)
			return
		}
		if o.startAgain([]*node{n}) {
			o.startAgain(users)
			return
		}
		o.mu.Lock()
		err, text := n.err, n.reason
		if o.phase != phaseRunning || !o.bears(n) {
			o.lose(n, err, text)
			o.mu.Unlock()
			return
		}
		n.state = startup.Restarting
		o.mu.Unlock()
	}
}

// pauseFor waits for about that time; false when everything is to stop.
func (o *Orchestrator) pauseFor(d time.Duration) bool {
	timer := time.NewTimer(d - rand.N(d/5+1)) //nolint:gosec // jitter
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-o.halt:
		return false
	}
}

// stopUsers stops all that use n, directly or not, where its policy says so, and
// returns them in the order in which they start.
func (o *Orchestrator) stopUsers(n *node) (users []*node) {
	if !n.c.Restart.Dependants {
		return nil
	}
	o.mu.Lock()
	seen := map[*node]bool{n: true}
	for pending := []*node{n}; len(pending) > 0; {
		from := pending[len(pending)-1]
		pending = pending[:len(pending)-1]
		for _, f := range from.feeds {
			if to := f.node; !seen[to] && slices.Contains(to.uses, from) && to.state == startup.Ready {
				seen[to] = true
				users = append(users, to)
				pending = append(pending, to)
			}
		}
	}
	slices.SortStableFunc(users, func(a, b *node) int { return a.batch - b.batch })
	o.mu.Unlock()
	for _, user := range slices.Backward(users) {
		o.mu.Lock()
		var down <-chan struct{}
		if o.phase == phaseRunning {
			down = o.takeDown(user)
		}
		o.mu.Unlock()
		if down != nil {
			<-down
		}
	}
	return users
}

// takeApartFor stops what is left of a component that is started again.
func (o *Orchestrator) takeApartFor(n *node) {
	o.mu.Lock()
	n.calls++
	deadline := o.now() + n.c.StopTimeout
	o.mu.Unlock()
	ctx := newAttemptContext(o.values, o.epoch.Add(deadline), &o.stops, nil)
	o.user(func() error { return o.takeApart(ctx, n) }, func(err error) []*node {
		ctx.end()
		o.mu.Lock()
		defer o.mu.Unlock()
		n.calls--
		n.keepStopErr(err)
		return nil
	})
}

// startAgain starts nodes that were up, and reports whether all are ready.
func (o *Orchestrator) startAgain(nodes []*node) bool {
	o.mu.Lock()
	if o.phase != phaseRunning {
		o.mu.Unlock()
		return true // the stop has them
	}
	var decided []<-chan struct{}
	var stops []*node
	for _, n := range nodes {
		if n.up { // it kept what it used meanwhile
			stops = append(stops, o.release(n)...)
		}
		x := n.more()
		x.decided = make(chan struct{})
		decided = append(decided, x.decided)
		x.restarts++
	}
	o.queueAll(nodes)
	o.arm(o.now() + o.options.StartTimeout)
	o.mu.Unlock()
	o.stopEach(stops)
	for _, one := range decided {
		<-one
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return !slices.ContainsFunc(nodes, func(n *node) bool { return n.state != startup.Ready })
}
