package registry

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/capreg/registry/internal/attemptctx"
	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/oneline"
	"github.com/capreg/registry/internal/schedule"
	"github.com/capreg/registry/internal/tasks"
	"github.com/capreg/registry/startup"
)

// progress is how far a node is. What every start looks at comes first.
//
//	waiting ─▶ starting ─▶ ready ─▶ stopping ─▶ stopped
//	   ▲           │         │ ended by itself
//	   │           ▼         ▼
//	   └──────── restarting, failed
//
// Every way down ends in downed, which is where it is decided whether the node
// starts again.
type progress struct {
	state      startup.State
	undecided  bool // what becomes of it is not
	told       bool // its users were told once what became of it
	up         bool // it was begun and is not down: it holds what it uses
	accepted   bool // Start returned without an error
	notified   bool // it said that it is ready
	advancing  bool // somebody asks whether it is ready, or registers it
	late       bool
	stopBegun  bool    // what its start did is being undone, or was
	again      bool    // when it is down it waits to be started again
	wasReady   bool    // in this life or an earlier one
	unwanted   bool    // it is being removed
	pending    int32   // needs that are not satisfied
	calls      int32   // functions of it that run
	holders    int32   // those that use it and are not down
	generation int     // of its start; what comes from an older one is dropped
	born       int     // the generation of its last start
	uses       []*node // what it was started with

	milestones
	// entered is when the present state began, and deadline when it has to end, on
	// the orchestrator's clock.
	entered, deadline time.Duration

	own    *attemptctx.Context // of its start
	reason string
	err    error
	extras *extras // nil for most
}

// milestones of a start, on the orchestrator's clock.
type milestones struct {
	queued, began, returned, ready time.Duration
	blockedBy                      *node
}

// start returns the milestones of the first start. Caller holds mu.
func (p *progress) start() *milestones {
	if p.extras != nil && p.extras.first != nil {
		return p.extras.first
	}
	return &p.milestones
}

// extras are what few components have, so that a plan of many stays small.
type extras struct {
	absent  []startup.Need
	missing []string

	probes int
	pause  time.Duration   // before it is asked again
	timer  *schedule.Timer // of the next question, or the next start

	life          context.Context //nolint:containedctx // of its run; nil until somebody asks
	endLife       context.CancelCauseFunc
	workers       int           // goroutines of its run
	idle          chan struct{} // closed when there are none; nil while nobody waits
	registrations []*Registration

	decided chan struct{} // closed when its start is decided; nil unless somebody waits
	down    chan struct{} // closed when its stop is over
	stopErr error
	undoing *attemptctx.Context // of its stop
	hurried bool                // that is to end at once

	ended     error // why its start fails as soon as its own code has returned
	endedText string

	abandoned     error // why nobody waits for its first start any more
	abandonedText string

	first     *milestones // of its first start, once there is another one
	restarts  int
	intensity float64
	endedAt   time.Duration
	delay     time.Duration // before the next start
	blockers  int           // users that go down before it, to start again after it
	blocks    []*node       // whose blocker it is
}

// more returns the extras of a node, to be changed. Caller holds mu.
func (p *progress) more() *extras {
	if p.extras == nil {
		p.extras = &extras{}
	}
	return p.extras
}

// keepStopErr notes how a stop ended. Caller holds mu.
func (p *progress) keepStopErr(err error) {
	if err != nil || p.extras != nil {
		p.more().stopErr = err
	}
}

// stopErr returns how the last stop ended. Caller holds mu.
func (p *progress) stopErr() error {
	if p.extras == nil {
		return nil
	}
	return p.extras.stopErr
}

// abandoned returns why nobody waits for its first start any more. Caller holds mu.
func (p *progress) abandoned() error {
	if p.extras == nil {
		return nil
	}
	return p.extras.abandoned
}

// abandon notes that nobody waits for the first start any more. Caller holds mu.
func (p *progress) abandon(err error, text string) {
	x := p.more()
	x.abandoned, x.abandonedText = err, text
}

// resolved reports whether it is clear what became of the node, so that its users
// need not wait for it. Caller holds mu.
func (p *progress) resolved() bool { return !p.undecided && p.state != startup.Waiting }

// ranked are nodes of which the one in the earliest batch comes first, if batches
// count, and then the one on the longest path.
type ranked struct {
	nodes   []*node
	batches bool
}

func (r *ranked) Len() int { return len(r.nodes) }

func (r *ranked) Less(i, j int) bool {
	a, b := r.nodes[i], r.nodes[j]
	switch {
	case r.batches && a.batch != b.batch:
		return a.batch < b.batch
	case a.rank != b.rank:
		return a.rank > b.rank
	default:
		return a.id < b.id
	}
}

func (r *ranked) Swap(i, j int) { r.nodes[i], r.nodes[j] = r.nodes[j], r.nodes[i] }

func (r *ranked) Push(x any) { r.nodes = append(r.nodes, x.(*node)) } //nolint:forcetypeassert // nothing else is pushed

func (r *ranked) Pop() any {
	last := len(r.nodes) - 1
	n := r.nodes[last]
	r.nodes[last] = nil
	r.nodes = r.nodes[:last]
	return n
}

// queueAll makes the nodes wait for their needs, and lets those start that may at
// once. It may be called again for nodes that wait, when what they need has changed.
// Caller holds mu.
func (o *Orchestrator) queueAll(nodes []*node) {
	now := o.now()
	for _, n := range nodes {
		o.reopen(n)
		if n.wasReady && n.more().first == nil {
			first := n.milestones
			n.extras.first = &first
		}
		n.state, n.pending, n.blockedBy = startup.Waiting, 0, nil
		n.reason, n.err = "", nil
		if x := n.extras; x != nil {
			x.missing = nil
			for _, need := range x.absent {
				x.missing = append(x.missing, need.String())
			}
		}
		for at := range n.needs {
			g := &n.needs[at]
			g.left, g.open = int32(len(g.members)), len(g.members) == 0 //nolint:gosec // there is no memory for more
			if !g.open {
				n.pending++
			}
		}
	}
	var doomed []*node
	for _, n := range nodes {
		for at := range n.needs {
			for _, member := range n.needs[at].members {
				if member.resolved() && n.state == startup.Waiting && !o.look(n, at, member) {
					doomed = append(doomed, n)
				}
			}
		}
	}
	for _, n := range doomed {
		o.skip(n)
	}
	for _, n := range nodes {
		if n.pending == 0 && n.state == startup.Waiting {
			o.queue(n, now)
		}
	}
	o.checkSettled()
	o.dispatch()
}

// reopen notes that it is not decided what becomes of the node. Caller holds mu.
func (o *Orchestrator) reopen(n *node) {
	if n.undecided {
		return
	}
	n.undecided = true
	o.open++
	for len(o.batchLeft) <= n.batch {
		o.batchLeft = append(o.batchLeft, 0)
	}
	o.batchLeft[n.batch]++
}

// settle notes that it is decided what becomes of the node. Caller holds mu.
func (o *Orchestrator) settle(n *node) {
	if !n.undecided {
		return
	}
	n.undecided = false
	o.open--
	if n.batch < len(o.batchLeft) {
		o.batchLeft[n.batch]--
	}
	if x := n.extras; x != nil && x.decided != nil {
		close(x.decided)
		x.decided = nil
	}
}

// look tells a need what became of one of its members; false when the need can
// never be satisfied. Caller holds mu.
func (o *Orchestrator) look(n *node, at int, member *node) bool {
	g := &n.needs[at]
	if g.open {
		return true
	}
	ok := member.state == startup.Ready
	tolerant := g.optional || g.orderOnly || o.options.OnFailure == startup.Continue
	g.left--
	if !ok && tolerant && !g.orderOnly {
		x := n.more()
		x.missing = append(x.missing, g.disappointed(member))
	}
	if !ok && !tolerant && (!g.any || g.left == 0) {
		n.state, n.reason = startup.Skipped, "needs "+g.disappointed(member)
		n.err = member.err
		return false
	}
	if g.left == 0 || ok && g.any {
		g.open = true
		n.pending--
		n.blockedBy = member
	}
	return true
}

// disappointed says that a member is not ready.
func (g *dependency) disappointed(by *node) string {
	return fmt.Sprintf("%v of %q, which %v", g.need, by.c.Name, by.state)
}

// queue lets a node whose needs are ready wait for its turn. A node whose needs come
// and go may wait in several places; it starts once. Caller holds mu.
func (o *Orchestrator) queue(n *node, now time.Duration) {
	n.queued = now
	if o.options.MaxConcurrent > 0 || o.options.Batches {
		heap.Push(&o.waiting, n)
	} else {
		o.waiting.nodes = append(o.waiting.nodes, n)
	}
}

// dispatch lets the nodes start whose turn it is. Caller holds mu.
func (o *Orchestrator) dispatch() {
	if o.ending() || o.waiting.Len() == 0 {
		return
	}
	limited, batched := o.options.MaxConcurrent > 0, o.options.Batches && o.phase == phaseStarting
	switch {
	case limited || batched:
		for o.waiting.Len() > 0 && (!limited || o.active < o.options.MaxConcurrent) {
			if batched && o.waiting.nodes[0].batch > o.batch {
				break
			}
			o.active++
			o.due = append(o.due, heap.Pop(&o.waiting).(*node)) //nolint:forcetypeassert // nothing else is in it
		}
	case len(o.due) == 0:
		o.active += o.waiting.Len()
		o.due, o.waiting.nodes = o.waiting.nodes, o.due
	default:
		o.active += o.waiting.Len()
		o.due = append(o.due, o.waiting.nodes...)
		o.waiting.nodes = o.waiting.nodes[:0]
	}
	o.summon()
}

// ending reports whether everything is being stopped, or is. Caller holds mu.
func (o *Orchestrator) ending() bool { return o.phase == phaseStopping || o.phase == phaseStopped }

// summon makes sure that a goroutine comes for the nodes that are due. One at a time
// is enough: before it runs code of a component it summons the next one, so that
// nothing waits for that code, and components that take no time share a few
// goroutines. Caller holds mu.
func (o *Orchestrator) summon() {
	if len(o.due) > 0 && o.coming == 0 {
		o.coming++
		go o.work()
	}
}

// work starts nodes that are due until there are none.
func (o *Orchestrator) work() {
	o.mu.Lock()
	o.coming--
	now := o.now()
	for s := o.next(now); s != nil; s = o.next(now) {
		o.mu.Unlock()
		now = o.startOne(s)
	}
	o.mu.Unlock()
}

// next takes a node that is due and enters its start; nil when there is none. Caller
// holds mu.
func (o *Orchestrator) next(now time.Duration) *supervisor {
	for len(o.due) > 0 {
		n := o.due[o.taken]
		if o.taken++; o.taken == len(o.due) {
			o.due, o.taken = o.due[:0], 0
		}
		if n.state == startup.Waiting && n.pending == 0 && !o.ending() {
			s := o.begin(n, now)
			o.summon()
			return s
		}
		// It was started from another place in the queue, was given up, or what it
		// needs has gone down meanwhile.
		o.active--
		o.checkSettled()
		o.dispatch()
	}
	return nil
}

// startOne calls the Start of a component and takes its outcome. It returns when that
// was, and with mu held.
func (o *Orchestrator) startOne(s *supervisor) time.Duration {
	if start := s.node.c.Start; start != nil {
		exited := true
		defer func() {
			if exited { // the code has exited its goroutine: what follows goes on elsewhere
				o.returned(s, &PanicError{})
				o.mu.Unlock()
			}
		}()
		err := fault.Run(func() error { return start(&s.Context, startup.NewRun(s)) })
		exited = false
		return o.returned(s, err)
	}
	return o.returned(s, nil)
}

// user runs code of a component, and then what follows from its outcome, also when
// the code exits its goroutine.
func (o *Orchestrator) user(f func() error, then func(error)) {
	err := error(&PanicError{}) // what remains when the code exits its goroutine
	defer func() { then(err) }()
	err = fault.Run(f)
}

// supervisor is what a component tells of itself, in one of its lives, and the context
// of its start: one allocation for both.
type supervisor struct {
	attemptctx.Context

	o          *Orchestrator
	node       *node
	generation int
}

// begin enters the start of a node. Caller holds mu.
func (o *Orchestrator) begin(n *node, now time.Duration) *supervisor {
	if x := n.extras; x != nil {
		x.probes, x.pause, x.life, x.endLife, x.stopErr = 0, 0, nil, nil, nil
		x.ended, x.endedText = nil, ""
	}
	n.state, n.entered = startup.Starting, now
	n.began, n.returned, n.ready = now, 0, 0
	n.generation++
	n.born = n.generation
	n.accepted, n.notified, n.advancing = false, false, false
	n.late, n.stopBegun = false, false
	n.deadline = now + n.c.StartTimeout
	n.calls++
	n.up = true
	o.up++
	n.uses = n.uses[:0]
	var users map[*node]bool
	for i := range n.needs {
		if n.needs[i].any && n.wasReady && users == nil {
			users = n.users()
		}
		for _, member := range n.needs[i].members {
			// One of several that has come to need n meanwhile is used, but not held:
			// in a stop they would wait for each other.
			if member.state == startup.Ready && !member.again && (!n.needs[i].any || !users[member]) {
				member.holders++
				n.uses = append(n.uses, member)
			}
		}
	}
	starter := o.starter
	if o.phase != phaseStarting {
		starter = o.values
		o.arm(n.deadline)
	}
	s := &supervisor{o: o, node: n, generation: n.generation}
	s.Init(starter, o.epoch.Add(n.deadline), &o.starts)
	n.own = &s.Context
	o.emit(n, 0)
	return s
}

// users returns the node, and those that use it or always need it, directly or not.
// Caller holds mu.
func (n *node) users() map[*node]bool {
	seen := map[*node]bool{n: true}
	for pending := []*node{n}; len(pending) > 0; {
		from := pending[len(pending)-1]
		pending = pending[:len(pending)-1]
		for _, f := range from.feeds {
			to := f.node
			if !seen[to] && (!to.needs[f.need].any || slices.Contains(to.uses, from)) {
				seen[to] = true
				pending = append(pending, to)
			}
		}
	}
	return seen
}

// returned takes the outcome of a Start. It returns when that was, and with mu held.
func (o *Orchestrator) returned(s *supervisor, err error) time.Duration {
	n := s.node
	text := ""
	if err != nil { // users' methods: outside the lock
		if s.TimedOut(err) {
			err = fault.Join("", []error{fmt.Errorf("start took longer than %v", n.c.StartTimeout), err})
		}
		text = oneline.Cut(fault.Text(err), 300)
	}
	o.mu.Lock()
	now := o.now()
	n.calls--
	switch {
	case n.generation != s.generation || n.state != startup.Starting:
		o.returnedLate(n, err, text)
	case err != nil:
		n.returned = now
		o.fail(n, err, text)
	default:
		n.returned, n.accepted = now, true
		if o.overtaken(n, s.generation) {
			break
		}
		if n.c.Ready == nil && len(n.c.Register) == 0 && (!n.c.Notifies || n.notified) {
			o.coming++ // this goroutine does what follows
			o.becomeReady(n, now)
			o.coming--
			break
		}
		o.mu.Unlock()
		o.advance(n, s.generation)
		o.mu.Lock()
		now = o.now()
	}
	return now
}

// returnedLate undoes a start that nobody waits for any more. Caller holds mu.
func (o *Orchestrator) returnedLate(n *node, err error, text string) {
	if err == nil {
		n.late, n.accepted = true, true
	}
	if n.calls > 0 || n.stopBegun {
		return
	}
	switch {
	case err == nil || n.alive():
		o.revive(n)
		o.stopping(n)
	case n.state == startup.Stuck: // it has come to its end after all
		n.state, n.err, n.reason = startup.Failed, err, text
		o.emit(n, o.now()-n.entered)
	}
}

// revive notes that a node which was given up is up after all; it holds nothing, and
// nobody uses it. Caller holds mu.
func (o *Orchestrator) revive(n *node) {
	if !n.up {
		n.up = true
		o.up++
	}
}

// alive reports whether something of the node's run is left to be ended. Caller holds
// mu.
func (n *node) alive() bool {
	x := n.extras
	return x != nil && (x.endLife != nil || x.workers > 0 || len(x.registrations) > 0)
}

// advance asks whether a started component is ready, registers what it provides,
// and makes it ready.
func (o *Orchestrator) advance(n *node, generation int) {
	o.mu.Lock()
	if n.generation != generation || n.state != startup.Starting || !n.accepted || n.advancing || n.c.Notifies && !n.notified {
		o.mu.Unlock()
		return
	}
	n.advancing = true
	n.calls++
	own := n.own
	if n.c.Ready != nil {
		n.more().probes++
	}
	o.mu.Unlock()
	if n.c.Ready == nil {
		o.register(own, n, generation)
		return
	}
	o.user(func() error { return n.c.Ready(own) }, func(err error) {
		if err == nil {
			o.register(own, n, generation)
			return
		}
		text := oneline.Cut(fault.Text(err), 300)
		o.mu.Lock()
		defer o.mu.Unlock()
		n.calls--
		n.advancing = false
		if o.overtaken(n, generation) {
			return
		}
		n.err, n.reason = err, text // what a timeout will say
		o.askAgain(n, generation)
	})
}

// The pauses between two questions whether a component is ready.
const (
	firstPause   = time.Millisecond
	shortestLast = 25 * time.Millisecond // up to which it grows in any case
)

// askAgain asks whether the component is ready after a pause. Caller holds mu.
func (o *Orchestrator) askAgain(n *node, generation int) {
	taken := o.now() - n.began
	x := n.more()
	x.pause = min(max(x.pause+x.pause/5, firstPause), max(taken/20, shortestLast))
	x.timer = o.schedule.After(x.pause, func() { go o.advance(n, generation) })
}

// register registers what the component provides, and makes it ready.
func (o *Orchestrator) register(own context.Context, n *node, generation int) {
	var made []*Registration
	o.user(func() error {
		for _, register := range n.c.Register {
			r, err := register(own, o.registry)
			if err != nil {
				return err
			}
			if r != nil {
				made = append(made, r)
			}
		}
		return nil
	}, func(err error) {
		text := ""
		if err != nil {
			text = oneline.Cut(fault.Text(err), 300)
		}
		o.mu.Lock()
		defer o.mu.Unlock()
		n.calls--
		n.advancing = false
		if len(made) > 0 {
			if n.stopBegun { // without these
				go o.withdraw(n, made)
			} else {
				n.more().registrations = made
			}
		}
		switch {
		case o.overtaken(n, generation):
		case err != nil:
			o.failStarted(n, err, text)
		default:
			o.becomeReady(n, o.now())
		}
	})
}

// overtaken reports whether the start of a component that Start has begun well is
// over, since it was given up, is aborted, or it has ended by itself, while its own
// code ran; then it is stopped. Caller holds mu.
func (o *Orchestrator) overtaken(n *node, generation int) bool {
	switch x := n.extras; {
	case n.generation != generation || n.state != startup.Starting:
		if n.calls == 0 && !n.stopBegun {
			o.revive(n)
			o.stopping(n)
		}
	case o.ending() || n.unwanted:
		o.stopStarted(n)
	case x != nil && x.ended != nil:
		o.failStarted(n, x.ended, x.endedText)
	default:
		return false
	}
	return true
}

// stopStarted stops a component whose Start has returned well, and which is not wanted
// any more. Caller holds mu.
func (o *Orchestrator) stopStarted(n *node) {
	n.own.EndAside()
	o.active--
	o.settle(n)
	o.stopping(n)
	o.spread(n)
}

// becomeReady lets those go on that need the node. Caller holds mu.
func (o *Orchestrator) becomeReady(n *node, now time.Duration) {
	n.state, n.ready, n.err, n.reason, n.wasReady = startup.Ready, now, nil, "", true
	if x := n.extras; x != nil {
		x.delay = 0
	}
	n.own.EndAside()
	o.active--
	o.settle(n)
	o.emit(n, n.ready-n.began)
	o.decide(n, now)
}

// fail ends a start whose Start returned an error. Caller holds mu.
func (o *Orchestrator) fail(n *node, err error, text string) {
	if x := n.extras; x != nil && x.ended != nil { // which is why it returned
		err, text = fault.Join("", []error{x.ended, err}), oneline.Cut(x.endedText+"; "+text, 300)
	}
	o.failing(n, err, text)
	if n.alive() {
		o.stopping(n) // all but its Stop
	} else {
		o.release(n)
	}
	o.spread(n)
}

// failStarted ends a start whose Start had returned: it is stopped again. Caller
// holds mu.
func (o *Orchestrator) failStarted(n *node, err error, text string) {
	o.failing(n, err, text)
	n.generation++
	if n.calls == 0 {
		o.stopping(n)
	} else { // it does not return: it is not waited for much longer
		n.deadline = o.now()
		o.arm(n.deadline + tasks.Grace)
	}
	o.spread(n)
}

// failing enters the end of a start that has failed: it is given up, or tried again
// where it was ready before. Caller holds mu.
func (o *Orchestrator) failing(n *node, err error, text string) {
	n.state, n.err, n.reason = startup.Failed, err, text
	n.own.EndAside()
	o.active--
	switch {
	case o.ending() || n.unwanted:
		if n.wasReady {
			n.state, n.err, n.reason = startup.Stopping, nil, ""
		}
	case n.again && n.abandoned() == nil: // it goes down with what it needs
		n.state = startup.Restarting
	case n.wasReady && n.c.Restart.Mode != startup.Never && o.bears(n):
		n.state = startup.Restarting
		o.delay(n)
	}
	if n.state != startup.Restarting {
		o.settle(n)
	}
	if n.state != startup.Stopping {
		o.emit(n, o.now()-n.entered)
	}
}

// spread decides what a failure means for the others. Caller holds mu.
func (o *Orchestrator) spread(n *node) {
	if n.undecided || o.ending() {
		return
	}
	if !n.c.NonCritical && !n.unwanted {
		switch {
		case o.phase == phaseStarting && o.options.OnFailure == startup.Abort:
			o.abortLocked(fault.Wrap(fmt.Sprintf("registry: start of component %q: ", n.c.Name), n.err))
			return
		case o.phase == phaseRunning && n.wasReady && o.err == nil:
			o.err = fault.Wrap(fmt.Sprintf("registry: component %q: ", n.c.Name), n.err)
			close(o.failed)
		}
	}
	o.decide(n, o.now())
}

// skip leaves out a node whose needs cannot be satisfied, which say why. Caller holds
// mu.
func (o *Orchestrator) skip(n *node) {
	if !n.undecided {
		return
	}
	o.settle(n)
	o.emit(n, 0)
	o.decide(n, o.now())
}

// decide tells those that wait for a node what became of it, and lets those start
// that may now. Caller holds mu.
func (o *Orchestrator) decide(n *node, now time.Duration) {
	if n.told {
		o.reconsider(n)
		return
	}
	for told := []*node{n}; len(told) > 0; {
		from := told[len(told)-1]
		told = told[:len(told)-1]
		from.told = true
		for _, f := range from.feeds {
			to := f.node
			if !to.undecided || to.state != startup.Waiting || to.needs[f.need].open {
				continue
			}
			if !o.look(to, f.need, from) {
				o.settle(to)
				o.emit(to, 0)
				if to.told {
					o.reconsider(to)
				} else {
					told = append(told, to)
				}
				continue
			}
			if to.pending == 0 {
				o.queue(to, now)
			}
		}
	}
	o.checkSettled()
	o.dispatch()
}

// reconsider lets those that wait for a node count their needs anew, since it is
// ready no more, or again. Caller holds mu.
func (o *Orchestrator) reconsider(n *node) {
	var users []*node
	for _, f := range n.feeds {
		if f.node.undecided && f.node.state == startup.Waiting && (len(users) == 0 || users[len(users)-1] != f.node) {
			users = append(users, f.node)
		}
	}
	o.queueAll(users)
}

// checkSettled ends the start when every component's is decided, and a batch when
// every one of it is. Caller holds mu.
func (o *Orchestrator) checkSettled() {
	if o.open > 0 {
		o.unravel()
		return
	}
	if o.phase != phaseStarting {
		return
	}
	o.phase = phaseRunning
	o.wall = o.now() - o.began
	close(o.settled)
	o.emitWhole(startup.Ready, o.wall, "")
}

// unravel helps a start on in which nothing goes on: the next batch has its turn, also
// when it is needed by an earlier one; and of components that wait for each other,
// since somebody else who would have been enough has failed, one fails. Caller holds
// mu.
func (o *Orchestrator) unravel() {
	if o.phase != phaseStarting && o.phase != phaseRunning {
		return
	}
	for o.batch < len(o.batchLeft) && o.batchLeft[o.batch] <= 0 {
		o.batch++
	}
	if o.active > 0 || len(o.due) > 0 {
		return
	}
	if o.waiting.Len() > 0 {
		if o.options.Batches {
			o.batch = max(o.batch, o.waiting.nodes[0].batch)
		}
		return
	}
	var first *node
	for _, n := range o.nodes {
		if !n.undecided {
			continue
		}
		if n.state != startup.Waiting || n.pending == 0 {
			return
		}
		if first == nil {
			first = n
		}
	}
	if first == nil {
		return
	}
	first.state, first.err, first.reason = startup.Failed, errKnot, errKnot.Error()
	o.settle(first)
	o.emit(first, 0)
	o.spread(first)
}

var errKnot = errors.New("it and others wait for each other, since nobody else is left that they need")
