package registry

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/oneline"
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
	if n.born != s.generation || x.life == nil && n.generation != s.generation {
		ended, cancel := context.WithCancelCause(s.o.values)
		cancel(n.over())
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
		go s.o.advance(s.node, s.generation)
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
		err = fault.Run(func() error { return f(ctx) })
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
		text = oneline.Cut(fault.Text(err), 300) // a user's method: outside the lock
	}
	o, n := s.o, s.node
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case !s.current() || o.ending() || n.unwanted:
	case n.state == startup.Starting:
		if err == nil {
			err = fmt.Errorf("%w: it ended before it was ready", ErrNotReady)
			text = err.Error()
		}
		x := n.more()
		if x.ended != nil {
			return
		}
		x.ended, x.endedText = err, text
		if n.accepted && n.calls == 0 {
			o.failStarted(n, err, text)
		}
	case n.again: // it goes down in any case
	case n.c.Restart.Mode == startup.Never && err == nil, n.c.Restart.Mode == startup.OnFailure && err == nil:
		n.reason = text
	case n.c.Restart.Mode != startup.Never && o.bears(n):
		n.err, n.reason = err, text
		o.recycle(n)
	default:
		o.lose(n, err, text)
	}
}

// bears counts a restart, and reports whether it is borne: the count halves in each
// time of decay. Caller holds mu.
func (o *Orchestrator) bears(n *node) bool {
	now, x := o.now(), n.more()
	if x.intensity > 0 {
		x.intensity *= math.Exp2(-float64(now-x.endedAt) / float64(n.c.Restart.Decay))
	}
	x.endedAt = now
	x.intensity++
	return x.intensity <= float64(n.c.Restart.Limit)
}

// delay lets the next start of the node wait longer than the last one. Caller holds
// mu.
func (o *Orchestrator) delay(n *node) {
	n.again = true
	x := n.more()
	x.delay = min(max(2*x.delay, n.c.Restart.FirstDelay), n.c.Restart.MaxDelay)
}

// lose gives a component up that was running. It is stopped with the others. Caller
// holds mu.
func (o *Orchestrator) lose(n *node, err error, text string) {
	if err == nil {
		err = errors.New(text)
	}
	n.state, n.err, n.reason = startup.Failed, err, text
	o.emit(n, 0)
	if x := n.extras; x != nil && len(x.registrations) > 0 {
		go o.withdraw(n, x.registrations) // its stop waits for that
	}
	o.spread(n)
}

// recycle takes a component down that has ended, after its dependants where it says
// so, and lets them start again. Caller holds mu.
func (o *Orchestrator) recycle(n *node) {
	o.delay(n)
	n.state = startup.Restarting
	n.generation++
	o.reopen(n)
	o.emit(n, 0)
	o.reconsider(n)
	if n.c.Restart.Dependants {
		o.recall(n)
	}
	o.bringDown(n)
}

// recall lets all that use n, directly or not, go down before it and start again after
// it. Caller holds mu.
func (o *Orchestrator) recall(n *node) {
	var users []*node
	for pending := []*node{n}; len(pending) > 0; {
		from := pending[len(pending)-1]
		pending = pending[:len(pending)-1]
		var last *node
		for _, f := range from.feeds {
			to := f.node
			if to == last || !to.up || !f.needed() || !slices.Contains(to.uses, from) ||
				to.state == startup.Failed || to.state == startup.Stuck || to.unwanted {
				continue
			}
			last = to
			from.more().blockers++
			x := to.more()
			x.blocks = append(x.blocks, from)
			if to.again {
				continue // and so are its users, or they are as its own policy says
			}
			to.again = true
			pending = append(pending, to)
			users = append(users, to)
		}
	}
	for _, user := range users {
		o.reopen(user)
		o.reconsider(user)
	}
	for _, user := range users {
		if user.state == startup.Starting {
			o.recallStart(user, errNeedEnded, errNeedEnded.Error())
		} else {
			o.bringDown(user)
		}
	}
}

var errNeedEnded = errors.New("what it needs has ended")

// bringDown begins to take a node down that is to start again, once those are down
// that go before it: all that use it, when everything is being stopped meanwhile.
// Caller holds mu.
func (o *Orchestrator) bringDown(n *node) {
	if n.again && n.up && n.calls == 0 && !n.stopBegun && (n.extras == nil || n.extras.blockers == 0) && (!o.ending() || n.holders == 0) {
		o.stopping(n)
	}
}
