package lifecycle

import (
	"container/heap"
	"slices"

	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/verdict"
)

// A node whose needs are satisfied waits in turns, and then in due for a worker, which calls its Start. A node
// whose needs were satisfied more than once may be queued more than once; it starts once.

// turns is a heap of nodes: the earliest batch first, where batches count, and then the longest path.
type turns struct {
	nodes   []*node
	byBatch bool
}

// Len returns how many nodes wait.
func (t *turns) Len() int { return len(t.nodes) }

// Less reports whether node i comes before node j.
func (t *turns) Less(i, j int) bool {
	a, b := t.nodes[i], t.nodes[j]
	switch {
	case t.byBatch && a.batch != b.batch:
		return a.batch < b.batch
	case a.rank != b.rank:
		return a.rank > b.rank
	default:
		return a.id < b.id
	}
}

// Swap exchanges two nodes.
func (t *turns) Swap(i, j int) { t.nodes[i], t.nodes[j] = t.nodes[j], t.nodes[i] }

// Push appends a node.
func (t *turns) Push(x any) { t.nodes = append(t.nodes, x.(*node)) } //nolint:forcetypeassert // nothing else is pushed

// Pop removes the last node.
func (t *turns) Pop() any {
	last := len(t.nodes) - 1
	n := t.nodes[last]
	t.nodes[last] = nil
	t.nodes = t.nodes[:last]
	return n
}

// ordered reports whether the order of turns matters: otherwise every node has its turn at once.
func (e *Engine) ordered() bool { return e.options.MaxConcurrent > 0 || e.options.Batches }

// enqueue lets a node wait for its turn.
func (e *Engine) enqueue(n *node) {
	n.queued = e.now
	if e.ordered() {
		heap.Push(&e.turns, n)
	} else {
		e.turns.nodes = append(e.turns.nodes, n)
	}
}

// pendingTurns returns how many nodes have a turn and no worker yet.
func (e *Engine) pendingTurns() int { return len(e.due) - e.taken }

// mayTakeTurn reports whether the first node in turns may start.
func (e *Engine) mayTakeTurn() bool {
	switch {
	case e.turns.Len() == 0:
		return false
	case e.options.MaxConcurrent > 0 && e.launching+e.pendingTurns() >= e.options.MaxConcurrent:
		return false
	}
	return !e.options.Batches || e.phase != phaseStarting || int(e.turns.nodes[0].batch) <= e.batch
}

// dispatch gives turns to the nodes that may start.
func (e *Engine) dispatch() {
	switch {
	case e.ending() || e.turns.Len() == 0:
		return
	case e.ordered():
		for e.mayTakeTurn() {
			e.due = append(e.due, heap.Pop(&e.turns).(*node)) //nolint:forcetypeassert // nothing else is in it
		}
	case len(e.due) == 0:
		e.due, e.turns.nodes = e.turns.nodes, e.due
	default:
		e.due = append(e.due, e.turns.nodes...)
		e.turns.nodes = e.turns.nodes[:0]
	}
	e.startWorker()
}

// moveToNextBatch lets the next batch have its turn when the present one is decided; also when nothing goes on
// since an earlier batch needs a later one, which can be where another provider has failed.
func (e *Engine) moveToNextBatch() {
	if !e.options.Batches || e.phase != phaseStarting {
		return
	}
	for e.batch < len(e.batchOpen) && e.batchOpen[e.batch] <= 0 {
		e.batch++
	}
	if e.launching == 0 && e.pendingTurns() == 0 && e.turns.Len() > 0 && !slices.ContainsFunc(e.nodes, (*node).restarts) {
		e.batch = max(e.batch, int(e.turns.nodes[0].batch))
	}
}

// startWorker makes sure that a worker comes for the nodes that are due. One at a time is enough: before it
// runs code of a component it starts the next one, so that nothing waits for that code, and components that
// take no time share a few goroutines.
func (e *Engine) startWorker() {
	if e.pendingTurns() > 0 && e.arriving == 0 {
		e.arriving++
		go e.work()
	}
}

// work starts nodes that are due until there are none. It takes mu.
func (e *Engine) work() {
	e.lock()
	e.arriving--
	for r := e.takeDue(); r != nil; r = e.takeDue() {
		e.mu.Unlock()
		e.callStart(r)
	}
	e.mu.Unlock()
}

// takeDue begins the start of the next node that is due; nil when there is none.
func (e *Engine) takeDue() *componentRun {
	for e.pendingTurns() > 0 {
		n := e.due[e.taken]
		e.due[e.taken] = nil
		if e.taken++; e.taken == len(e.due) {
			e.due, e.taken = e.due[:0], 0
		}
		if n.stage == waiting && n.unmet == 0 && !e.ending() {
			r := e.begin(n)
			e.startWorker()
			return r
		}
		e.commit() // it has been started or skipped meanwhile, or waits for its needs: its turn is free
	}
	return nil
}

// callStart calls the Start of a component and takes its outcome. It takes mu, and
// returns with mu held.
func (e *Engine) callStart(r *componentRun) {
	start := r.node.c.Start
	if start == nil {
		e.startReturned(r, nil)
		return
	}
	exited := true
	defer func() {
		if exited { // the code has exited this goroutine: nothing more is started here
			e.startReturned(r, &verdict.PanicError{})
			e.startWorker()
			e.mu.Unlock()
		}
	}()
	err := fault.Run(func() error { return start(&r.Context, &r.run) })
	exited = false
	e.startReturned(r, err)
}
