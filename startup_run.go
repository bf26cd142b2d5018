package registry

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/capreg/registry/internal/schedule"
	"github.com/capreg/registry/startup"
)

// progress is how far a node is. What every start looks at comes first.
type progress struct {
	state      startup.State
	settled    bool // its start is decided
	up         bool // it was started and is not down: it holds what it uses
	accepted   bool // Start returned without an error
	notified   bool // it said that it is ready
	advancing  bool // somebody asks whether it is ready, or registers it
	late       bool
	pending    int32 // needs that are not satisfied
	calls      int32 // functions of it that run
	holders    int32 // those that use it and are not down
	generation int   // of its start; what comes from an older one is dropped
	blockedBy  *node
	uses       []*node // what it was started with

	// Times on the orchestrator's clock: entered is when the present state began, the
	// others are of the start.
	entered, queued, began, returned, ready, deadline time.Duration

	own    *attemptContext // of its start
	reason string
	err    error
	extras *extras // nil for most
}

// extras are what few components have, so that a plan of many stays small.
type extras struct {
	absent  []startup.Need
	missing []string

	probes int
	pause  time.Duration // before it is asked again
	asking *schedule.Timer

	life          context.Context //nolint:containedctx // of its run; nil until somebody asks
	endLife       context.CancelCauseFunc
	workers       int           // goroutines of its run
	idle          chan struct{} // closed when there are none; nil while nobody waits
	registrations []*Registration

	decided chan struct{} // closed when its start is decided; nil unless somebody waits
	down    chan struct{} // closed when its stop is over
	stopErr error

	restarts  int
	intensity float64
	endedAt   time.Duration
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

// ranked are nodes of which the one on the longest path comes first.
type ranked []*node //nolint:recvcheck // container/heap wants it so

func (r ranked) Len() int { return len(r) }

func (r ranked) Less(i, j int) bool {
	if r[i].rank != r[j].rank {
		return r[i].rank > r[j].rank
	}
	return r[i].id < r[j].id
}

func (r ranked) Swap(i, j int) { r[i], r[j] = r[j], r[i] }

func (r *ranked) Push(x any) { *r = append(*r, x.(*node)) } //nolint:forcetypeassert // nothing else is pushed

func (r *ranked) Pop() any {
	last := len(*r) - 1
	n := (*r)[last]
	(*r)[last] = nil
	*r = (*r)[:last]
	return n
}

// queueAll makes the nodes wait for their needs, and lets those start that may at
// once. Caller holds mu.
func (o *Orchestrator) queueAll(nodes []*node) {
	now := o.now()
	var doomed []*node
	for _, n := range nodes {
		n.state, n.settled, n.pending, n.blockedBy = startup.Waiting, false, 0, nil
		n.reason, n.err = "", nil
		if x := n.extras; x != nil {
			x.missing = nil
			for _, need := range x.absent {
				x.missing = append(x.missing, need.String())
			}
		}
		for at := range n.needs {
			g := &n.needs[at]
			g.left, g.open = int32(len(g.members)), false //nolint:gosec // there is no memory for more
			n.pending++
		}
	}
	for _, n := range nodes {
		for at := range n.needs {
			for _, member := range n.needs[at].members {
				if member.settled && !o.look(n, at, member) {
					doomed = append(doomed, n)
				}
			}
		}
	}
	for _, n := range doomed {
		if !n.settled {
			o.decide(n, now)
		}
	}
	for _, n := range nodes {
		if n.pending == 0 && !n.settled {
			o.queue(n, now)
		}
	}
	o.dispatch()
}

// look tells a need what became of one of its members; false when the need can
// never be satisfied. Caller holds mu.
func (o *Orchestrator) look(n *node, at int, member *node) bool {
	g := &n.needs[at]
	if g.open {
		return true
	}
	ok := member.state == startup.Ready
	tolerant := g.need.Optional || g.need.OrderOnly || o.options.OnFailure == startup.Continue
	g.left--
	if !ok && tolerant && !g.need.OrderOnly {
		x := n.more()
		x.missing = append(x.missing, g.disappointed(member))
	}
	if !ok && !tolerant && (!g.need.Any || g.left == 0) {
		n.state, n.reason = startup.Skipped, "needs "+g.disappointed(member)
		n.err = member.err
		return false
	}
	if g.left == 0 || ok && g.need.Any {
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

// queue lets a node whose needs are ready wait for its turn. Caller holds mu.
func (o *Orchestrator) queue(n *node, now time.Duration) {
	n.queued = now
	if o.options.MaxConcurrent > 0 {
		heap.Push((*ranked)(&o.waiting), n)
	} else {
		o.waiting = append(o.waiting, n)
	}
}

// dispatch lets the nodes start whose turn it is. Caller holds mu.
func (o *Orchestrator) dispatch() {
	if o.phase == phaseStopping || o.phase == phaseStopped || len(o.waiting) == 0 {
		return
	}
	limited, batched := o.options.MaxConcurrent > 0, o.options.Batches && o.phase == phaseStarting
	if !limited && !batched {
		o.active += len(o.waiting)
		if len(o.due) == 0 {
			o.due, o.waiting = o.waiting, o.due
		} else {
			o.due = append(o.due, o.waiting...)
			o.waiting = o.waiting[:0]
		}
		o.summon()
		return
	}
	var later []*node
	for len(o.waiting) > 0 && (!limited || o.active < o.options.MaxConcurrent) {
		var n *node
		if limited {
			n = heap.Pop((*ranked)(&o.waiting)).(*node) //nolint:forcetypeassert // nothing else is in it
		} else {
			n, o.waiting = o.waiting[0], o.waiting[1:]
		}
		if batched && n.batch > o.batch {
			later = append(later, n)
			continue
		}
		o.active++
		o.due = append(o.due, n)
	}
	for _, n := range later {
		if limited {
			heap.Push((*ranked)(&o.waiting), n)
		} else {
			o.waiting = append(o.waiting, n)
		}
	}
	o.summon()
}

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
		if n.settled || o.phase == phaseStopping || o.phase == phaseStopped {
			o.active--
			continue
		}
		s := o.begin(n, now)
		o.summon()
		return s
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
		err := guard(func() error { return start(&s.attemptContext, startup.NewRun(s)) })
		exited = false
		return o.returned(s, err)
	}
	return o.returned(s, nil)
}

// stopEach stops the nodes, each in a goroutine of its own.
func (o *Orchestrator) stopEach(nodes []*node) {
	for _, n := range nodes {
		go o.stop(n)
	}
}

// stop stops a node, and the first one that can be stopped then: a chain needs one
// goroutine.
func (o *Orchestrator) stop(n *node) {
	for {
		stops := o.stopOne(n)
		if len(stops) == 0 {
			return
		}
		o.stopEach(stops[1:])
		n = stops[0]
	}
}

// user runs code of a component, and then what follows from its outcome, which
// returns what can be stopped now. Where the code exits the goroutine, that goes on
// elsewhere.
func (o *Orchestrator) user(f func() error, then func(error) []*node) (stops []*node) {
	err := error(&PanicError{}) // what remains when the code exits its goroutine
	returned := false
	defer func() {
		stops = then(err)
		if !returned {
			o.stopEach(stops)
		}
	}()
	err = guard(f)
	returned = true
	return nil
}

// supervisor is what a component tells of itself, in one of its lives, and the context
// of its start: one allocation for both.
type supervisor struct {
	attemptContext

	o          *Orchestrator
	node       *node
	generation int
}

// begin enters the start of a node. Caller holds mu.
func (o *Orchestrator) begin(n *node, now time.Duration) *supervisor {
	n.state, n.began = startup.Starting, now
	n.entered, n.returned, n.ready = now, 0, 0
	n.generation++
	n.accepted, n.notified, n.advancing = false, false, false
	n.late = false
	if x := n.extras; x != nil {
		x.probes, x.pause, x.life, x.endLife, x.stopErr = 0, 0, nil, nil, nil
	}
	n.deadline = now + n.c.StartTimeout
	n.calls++
	n.up = true
	o.up++
	n.uses = n.uses[:0]
	for i := range n.needs {
		for _, member := range n.needs[i].members {
			if member.up && member.state == startup.Ready {
				member.holders++
				n.uses = append(n.uses, member)
			}
		}
	}
	starter := o.starter
	if o.phase != phaseStarting {
		starter = o.values
	}
	s := &supervisor{
		attemptContext: attemptContext{Context: starter, deadline: o.epoch.Add(n.deadline), contexts: &o.starts},
		o:              o, node: n, generation: n.generation,
	}
	n.own = &s.attemptContext
	o.emit(n, 0)
	return s
}

// returned takes the outcome of a Start. It returns when that was, and with mu held.
func (o *Orchestrator) returned(s *supervisor, err error) time.Duration {
	n := s.node
	text := ""
	if err != nil { // users' methods: outside the lock
		if s.timedOut(err) {
			err = joined("", []error{fmt.Errorf("start took longer than %v", n.c.StartTimeout), err})
		}
		text = cut(errorText(err), 300)
	}
	o.mu.Lock()
	now := o.now()
	n.calls--
	switch {
	case n.generation != s.generation || n.state != startup.Starting:
		o.stopEach(o.returnedLate(n, err))
	case err != nil:
		n.returned = now
		o.stopEach(o.fail(n, err, text))
	case o.phase == phaseStopping: // it did not heed that the start was aborted
		n.returned, n.accepted = now, true
		n.settle(o)
		go o.stop(o.stopping(n))
	default:
		n.returned, n.accepted = now, true
		if n.c.Ready == nil && len(n.c.Register) == 0 && (!n.c.Notifies || n.notified) {
			o.coming++ // this goroutine does what follows
			o.becomeReady(n, now)
			o.coming--
			break
		}
		o.mu.Unlock()
		o.stopEach(o.advance(n, s.generation))
		o.mu.Lock()
		now = o.now()
	}
	return now
}

// returnedLate undoes a start that nobody waits for any more. Caller holds mu.
func (o *Orchestrator) returnedLate(n *node, err error) []*node {
	if err != nil || n.calls > 0 || n.state == startup.Stopping {
		return nil
	}
	n.late = true
	if !n.up { // it was given up; it holds nothing, and nobody uses it
		n.up = true
		o.up++
	}
	return []*node{o.stopping(n)}
}

// advance asks whether a started component is ready, registers what it provides,
// and makes it ready.
func (o *Orchestrator) advance(n *node, generation int) []*node {
	o.mu.Lock()
	if n.generation != generation || n.state != startup.Starting || !n.accepted || n.advancing || n.c.Notifies && !n.notified {
		o.mu.Unlock()
		return nil
	}
	n.advancing = true
	n.calls++
	if n.c.Ready != nil {
		n.more().probes++
	}
	o.mu.Unlock()
	if n.c.Ready == nil {
		return o.register(n, generation)
	}
	return o.user(func() error { return n.c.Ready(n.own) }, func(err error) []*node {
		if err == nil {
			return o.register(n, generation)
		}
		text := cut(errorText(err), 300)
		o.mu.Lock()
		defer o.mu.Unlock()
		n.calls--
		n.advancing = false
		if n.generation != generation || n.state != startup.Starting {
			return o.abandoned(n)
		}
		n.err, n.reason = err, text // what a timeout will say
		o.askAgain(n, generation)
		return nil
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
	x.asking = o.schedule.After(x.pause, func() {
		go func() { o.stopEach(o.advance(n, generation)) }()
	})
}

// register registers what the component provides, and makes it ready.
func (o *Orchestrator) register(n *node, generation int) []*node {
	var made []*Registration
	return o.user(func() error {
		for _, register := range n.c.Register {
			r, err := register(n.own, o.registry)
			if err != nil {
				return err
			}
			if r != nil {
				made = append(made, r)
			}
		}
		return nil
	}, func(err error) []*node {
		text := ""
		if err != nil {
			text = cut(errorText(err), 300)
		}
		o.mu.Lock()
		defer o.mu.Unlock()
		n.calls--
		n.advancing = false
		if len(made) > 0 {
			n.more().registrations = made
		}
		if n.generation != generation || n.state != startup.Starting {
			return o.abandoned(n)
		}
		if err != nil {
			return o.failStarted(n, err, text)
		}
		o.becomeReady(n, o.now())
		return nil
	})
}

// abandoned stops a component whose start was given up while its own code ran. Caller
// holds mu.
func (o *Orchestrator) abandoned(n *node) []*node {
	if n.calls > 0 || n.state == startup.Stopping || !n.up {
		return nil
	}
	return []*node{o.stopping(n)}
}

// becomeReady lets those go on that need the node. Caller holds mu.
func (o *Orchestrator) becomeReady(n *node, now time.Duration) {
	n.state, n.ready, n.err, n.reason = startup.Ready, now, nil, ""
	o.active--
	o.emit(n, n.ready-n.began)
	o.decide(n, now)
}

// fail ends a start whose Start returned an error. Caller holds mu.
func (o *Orchestrator) fail(n *node, err error, text string) []*node {
	n.state, n.err, n.reason = startup.Failed, err, text
	o.active--
	o.emit(n, o.now()-n.entered)
	stops := o.release(n)
	return append(stops, o.spread(n)...)
}

// failStarted ends a start whose Start had returned: it is stopped again. Caller
// holds mu.
func (o *Orchestrator) failStarted(n *node, err error, text string) []*node {
	n.err, n.reason = err, text
	n.state = startup.Failed
	o.active--
	o.emit(n, o.now()-n.entered)
	n.generation++
	stops := o.spread(n)
	if n.calls == 0 && n.state != startup.Stopping {
		stops = append(stops, o.stopping(n))
	}
	return stops
}

// spread decides what a failure means for the others. Caller holds mu.
func (o *Orchestrator) spread(n *node) []*node {
	if o.phase == phaseStarting && !n.c.NonCritical && o.options.OnFailure == startup.Abort {
		n.settle(o)
		return o.abortLocked(wrap(fmt.Sprintf("registry: start of component %q: ", n.c.Name), n.err))
	}
	o.decide(n, o.now())
	return nil
}

func (n *node) settle(o *Orchestrator) {
	if n.settled {
		return
	}
	n.settled = true
	if x := n.extras; x != nil && x.decided != nil {
		close(x.decided)
		x.decided = nil
	}
	if o.open > 0 {
		o.open--
	}
	if n.batch < len(o.batchLeft) {
		o.batchLeft[n.batch]--
	}
}

// decide tells those that wait for a node what became of it, and lets those start
// that may now. Caller holds mu.
func (o *Orchestrator) decide(n *node, now time.Duration) {
	n.settle(o)
	for told := []*node{n}; len(told) > 0; {
		from := told[len(told)-1]
		told = told[:len(told)-1]
		for _, f := range from.feeds {
			to := f.node
			if to.settled || to.state != startup.Waiting || to.needs[f.need].open {
				continue
			}
			if !o.look(to, f.need, from) {
				to.settle(o)
				o.emit(to, 0)
				told = append(told, to)
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

// checkSettled ends the start when every component's is decided, and a batch when
// every one of it is. Caller holds mu.
func (o *Orchestrator) checkSettled() {
	if o.phase != phaseStarting {
		return
	}
	for o.batch < len(o.batchLeft) && o.batchLeft[o.batch] <= 0 {
		o.batch++
	}
	if o.open > 0 {
		return
	}
	o.phase = phaseRunning
	o.wall = o.now() - o.began
	close(o.settled)
	o.emitWhole(startup.Ready, o.wall, "")
}

// abort ends the start in progress.
func (o *Orchestrator) abort(err error) {
	o.mu.Lock()
	var stops []*node
	if o.phase == phaseStarting {
		o.told = true
		stops = o.abortLocked(err)
	}
	o.mu.Unlock()
	o.stopEach(stops)
}

// abortLocked ends the start in progress and returns what can be stopped at once.
// Caller holds mu.
func (o *Orchestrator) abortLocked(err error) []*node {
	if o.err == nil {
		o.err = err
	}
	o.wall = o.now() - o.began
	return o.stopAll()
}

// stopAll begins to stop everything, and returns what can be stopped at once. Caller
// holds mu.
func (o *Orchestrator) stopAll() (stops []*node) {
	o.phase = phaseStopping
	o.waiting = nil
	close(o.halt)
	go o.starts.cut(&lineError{"registry: start: ", []error{ErrClosed}})
	for _, n := range o.nodes {
		switch {
		case n.state == startup.Waiting:
			n.state, n.reason = startup.Skipped, "everything is being stopped"
			n.settle(o)
		case n.stoppable(), n.state == startup.Starting && n.accepted && n.calls == 0:
			n.settle(o)
			stops = append(stops, o.stopping(n))
		}
	}
	o.checkStopped()
	return stops
}

// stoppable reports whether the node is up and nobody uses it. Caller holds mu.
func (n *node) stoppable() bool {
	return n.up && n.holders == 0 && n.calls == 0 && (n.state == startup.Ready || n.state == startup.Failed)
}

// checkStopped ends the stop when everything is down. Caller holds mu.
func (o *Orchestrator) checkStopped() {
	if o.phase != phaseStopping || o.up > 0 {
		return
	}
	for _, n := range o.nodes {
		if n.state == startup.Restarting {
			return
		}
	}
	o.phase = phaseStopped
	if o.sweeper != nil {
		o.sweeper.Stop()
	}
	o.emitWhole(startup.Stopped, 0, "")
	close(o.stopped)
	select {
	case <-o.settled:
	default:
		close(o.settled) // the start was aborted
	}
}

// release gives back what a node that is down has used, and returns what can be
// stopped now. Caller holds mu.
func (o *Orchestrator) release(n *node) (stops []*node) {
	if !n.up {
		return nil
	}
	n.up = false
	o.up--
	for _, used := range n.uses {
		used.holders--
		if o.phase == phaseStopping && used.stoppable() {
			stops = append(stops, o.stopping(used))
		}
	}
	n.uses = n.uses[:0]
	if x := n.extras; x != nil && x.down != nil {
		close(x.down)
		x.down = nil
	}
	o.checkStopped()
	return stops
}

// stopping enters the stop of a node, which it returns. Caller holds mu.
func (o *Orchestrator) stopping(n *node) *node {
	if n.state != startup.Failed {
		n.state = startup.Stopping
	}
	n.generation++
	n.entered = o.now()
	n.deadline = n.entered + n.c.StopTimeout
	n.calls++
	if x := n.extras; x != nil && x.asking != nil {
		x.asking.Stop()
	}
	o.emit(n, 0)
	o.arm(n.deadline + grace)
	return n
}

// stopOne stops a component: what it registered leaves, its run context ends, and its
// Stop is called.
func (o *Orchestrator) stopOne(n *node) []*node {
	o.mu.Lock()
	generation := n.generation
	o.mu.Unlock()
	ctx := newAttemptContext(o.values, o.epoch.Add(n.deadline), &o.stops, nil)
	return o.user(func() error { return o.takeApart(ctx, n) }, func(err error) []*node {
		ctx.end()
		return o.stoppedOne(n, generation, err)
	})
}

func (o *Orchestrator) takeApart(ctx context.Context, n *node) error {
	var errs []error
	o.mu.Lock()
	var registrations []*Registration
	var end context.CancelCauseFunc
	if x := n.extras; x != nil {
		registrations, end, x.registrations = x.registrations, x.endLife, nil
	}
	o.mu.Unlock()
	for _, r := range slices.Backward(registrations) {
		errs = append(errs, nonNil(r.Unregister(ctx))...)
	}
	if end != nil {
		end(fmt.Errorf("registry: component %q: %w", n.c.Name, ErrClosed))
	}
	if n.c.Stop != nil {
		errs = append(errs, nonNil(guard(func() error { return n.c.Stop(ctx) }))...)
	}
	o.awaitWorkers(ctx, n)
	if len(errs) == 0 {
		return nil
	}
	return joined("", errs)
}

// awaitWorkers waits for the goroutines of the component's run.
func (o *Orchestrator) awaitWorkers(ctx context.Context, n *node) {
	o.mu.Lock()
	x := n.extras
	if x == nil || x.workers == 0 {
		o.mu.Unlock()
		return
	}
	if x.idle == nil {
		x.idle = make(chan struct{})
	}
	idle := x.idle
	o.mu.Unlock()
	select {
	case <-idle:
	case <-ctx.Done():
	}
}

func (o *Orchestrator) stoppedOne(n *node, generation int, err error) []*node {
	o.mu.Lock()
	defer o.mu.Unlock()
	n.calls--
	n.keepStopErr(err)
	if n.generation != generation {
		return nil
	}
	if n.state != startup.Failed {
		n.state = startup.Stopped
	}
	o.emit(n, o.now()-n.entered)
	return o.release(n)
}

// arm makes sure that deadlines are looked at then, if not before. One timer serves
// them all: contexts end by themselves, and this is for those that do not heed
// them, or that are waited for without a function that runs. Caller holds mu.
func (o *Orchestrator) arm(at time.Duration) {
	if o.sweeper != nil {
		if o.sweepAt <= at {
			return
		}
		o.sweeper.Stop()
	}
	o.sweepAt = at
	o.sweeper = o.schedule.After(max(at-o.now(), time.Millisecond), func() { go o.sweep() })
}

// armAll does so for what there is. Caller holds mu.
func (o *Orchestrator) armAll() {
	now := o.now()
	for _, n := range o.nodes {
		if at, ok := n.due(); ok {
			o.arm(at)
		} else if n.state == startup.Waiting && !n.settled && o.phase != phaseNew {
			o.arm(now + n.c.StartTimeout) // not before it has begun
		}
	}
}

// due returns when the node is to be looked at: at its deadline, or a grace later
// while code of its runs that should heed it.
func (n *node) due() (time.Duration, bool) {
	switch {
	case n.state == startup.Starting && n.calls == 0:
		return n.deadline, true
	case n.state == startup.Starting, n.up && n.calls > 0 && (n.state == startup.Stopping || n.state == startup.Failed):
		return n.deadline + grace, true
	}
	return 0, false
}

// sweep gives up on what takes too long.
func (o *Orchestrator) sweep() {
	o.mu.Lock()
	o.sweeper = nil
	var stops []*node
	for _, n := range o.nodes {
		at, ok := n.due()
		if !ok || o.now() < at {
			continue
		}
		if n.state == startup.Starting {
			stops = append(stops, o.tooLong(n)...)
			continue
		}
		n.state, n.reason = startup.Stuck, "its stop does not return"
		o.emit(n, o.now()-n.entered)
		stops = append(stops, o.release(n)...)
	}
	o.armAll()
	o.mu.Unlock()
	o.stopEach(stops)
}

// tooLong ends a start whose time is over. Caller holds mu.
func (o *Orchestrator) tooLong(n *node) []*node {
	err := fmt.Errorf("%w within %v", ErrNotReady, n.c.StartTimeout)
	if n.err != nil {
		err = joined("", []error{err, n.err})
	}
	text := cut(errorText(err), 300)
	if n.accepted {
		return o.failStarted(n, err, text)
	}
	n.generation++ // what it returns is late
	n.state, n.err, n.reason = startup.Stuck, err, text+"; its start does not return"
	o.active--
	o.emit(n, o.now()-n.entered)
	stops := o.release(n)
	return append(stops, o.spread(n)...)
}

// giveUp ends the starts of the given nodes.
func (o *Orchestrator) giveUp(nodes []*node, err error) {
	o.mu.Lock()
	var stops []*node
	text := errorText(err)
	for _, n := range nodes {
		switch {
		case n.settled:
		case n.state == startup.Waiting:
			n.state, n.err, n.reason = startup.Skipped, err, text
			o.waiting = slices.DeleteFunc(o.waiting, func(other *node) bool { return other == n })
			if o.options.MaxConcurrent > 0 {
				heap.Init((*ranked)(&o.waiting))
			}
			o.decide(n, o.now())
		case n.state == startup.Starting:
			go n.own.end()
			n.err = err
			stops = append(stops, o.tooLong(n)...)
		}
	}
	o.mu.Unlock()
	o.stopEach(stops)
}

// keep keeps components that were added, or undoes that where one of them failed.
func (o *Orchestrator) keep(added []*node) error {
	o.mu.Lock()
	var errs []error
	for _, n := range added {
		if n.state != startup.Ready && !n.c.NonCritical {
			cause := n.err
			if cause == nil {
				cause = errors.New(n.reason)
			}
			errs = append(errs, wrap(fmt.Sprintf("start of component %q: ", n.c.Name), cause))
		}
	}
	if len(errs) == 0 {
		o.mu.Unlock()
		return nil
	}
	ordered := slices.Clone(added)
	slices.SortStableFunc(ordered, func(a, b *node) int { return b.batch - a.batch })
	o.mu.Unlock()
	for _, n := range ordered { // users first
		o.mu.Lock()
		down := o.takeDown(n)
		o.mu.Unlock()
		if down != nil {
			<-down
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.forget(added)
	return joined("registry: ", errs)
}

// takeDown begins to stop a node that is up, and returns a channel that is closed
// when it is down; nil when it is not up. Caller holds mu.
func (o *Orchestrator) takeDown(n *node) <-chan struct{} {
	if !n.up {
		return nil
	}
	x := n.more()
	if x.down == nil {
		x.down = make(chan struct{})
	}
	down := x.down
	if n.state == startup.Ready || n.state == startup.Failed && n.calls == 0 {
		go o.stop(o.stopping(n))
	}
	return down
}

// emit tells the listener of the state of a node. Caller holds mu.
func (o *Orchestrator) emit(n *node, took time.Duration) {
	if o.unread != nil {
		o.push(startup.Event{Component: n.c.Name, State: n.state, Took: took, Reason: n.reason})
	}
}

// emitWhole tells the listener of the end of a start or stop. Caller holds mu.
func (o *Orchestrator) emitWhole(state startup.State, took time.Duration, reason string) {
	if o.unread != nil {
		o.push(startup.Event{State: state, Took: took, Reason: reason})
	}
}

func (o *Orchestrator) push(e startup.Event) {
	e.Time, e.Total = time.Now(), len(o.nodes)
	e.Settled = e.Total - max(o.open, 0)
	if o.phase == phaseStopping || o.phase == phaseStopped {
		e.Settled = e.Total - o.up
	}
	o.unread.Push(e)
	if !o.delivering {
		o.delivering = true
		go o.deliver()
	}
}

// deliver gives events to the listener until there are none left.
func (o *Orchestrator) deliver() {
	next := func() (startup.Event, bool) {
		o.mu.Lock()
		defer o.mu.Unlock()
		e, lost, ok := o.unread.Pop()
		e.Lost = lost
		o.delivering = ok
		return e, ok
	}
	exited := true
	defer func() {
		if exited { // a listener that exits its goroutine must not be the last one
			o.mu.Lock()
			defer o.mu.Unlock()
			o.delivering = false
		}
	}()
	for e, ok := next(); ok; e, ok = next() {
		_ = guard(func() error { o.options.Listen(e); return nil })
	}
	exited = false
}

// Report returns how the start went, or goes.
func (o *Orchestrator) Report() startup.Report {
	o.mu.Lock()
	defer o.mu.Unlock()
	r := startup.Report{Began: o.epoch.Add(o.began), Wall: o.wall, Err: o.err, RolledBack: o.err != nil && o.phase != phaseStarting && o.phase != phaseRunning}
	if o.phase == phaseStarting {
		r.Wall = o.now() - o.began
	}
	paths := make([]time.Duration, len(o.nodes)) // the longest one that ends with each
	before := make([]int32, len(o.nodes))        // who precedes it on that, plus one
	var last *node
	r.Components = make([]startup.Component, len(o.nodes))
	for i, n := range inBatches(o.nodes) {
		c := &r.Components[i]
		n.report(c, o.began)
		took := c.Took()
		r.Work += took
		for i := range n.needs {
			if at := n.needs[i].critical(paths); at != nil && paths[at.id] > paths[n.id] {
				paths[n.id], before[n.id] = paths[at.id], int32(at.id+1) //nolint:gosec // there is no memory for more
			}
		}
		paths[n.id] += took
		if last == nil || paths[n.id] > paths[last.id] {
			last = n
		}
	}
	if last != nil {
		r.CriticalPath = paths[last.id]
		for at := last.id; at >= 0; at = int(before[at]) - 1 {
			r.Chain = append(r.Chain, o.nodes[at].c.Name)
		}
		slices.Reverse(r.Chain)
	}
	if r.Wall > 0 {
		r.Efficiency = min(float64(r.CriticalPath)/float64(r.Wall), 1)
	}
	return r
}

// critical returns the member that the need waited for longest, by the length of the
// path to it.
func (g *dependency) critical(paths []time.Duration) (found *node) {
	for _, member := range g.members {
		if member.ready == 0 {
			continue
		}
		if found == nil || g.need.Any == (member.ready < found.ready) && (g.need.Any || paths[member.id] > paths[found.id]) {
			found = member
		}
	}
	return found
}

func (n *node) report(c *startup.Component, began time.Duration) {
	since := func(at time.Duration) time.Duration {
		if at == 0 {
			return 0
		}
		return at - began
	}
	*c = startup.Component{
		Name: n.c.Name, Version: n.c.Version, State: n.state, Batch: n.batch + 1,
		Queued: since(n.queued), Started: since(n.began), Returned: since(n.returned), Ready: since(n.ready),
		Late: n.late, Reason: n.reason, Err: n.err,
	}
	if x := n.extras; x != nil {
		c.Probes, c.Restarts, c.Absent = x.probes, x.restarts, x.missing
	}
	if n.blockedBy != nil {
		c.BlockedBy = n.blockedBy.c.Name
	}
}
