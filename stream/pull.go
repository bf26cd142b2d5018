package stream

import (
	"iter"
	"runtime"
	"sync/atomic"
)

// puller runs an iterator step by step, as [iter.Pull2] does, in a goroutine of its own: a coroutine ends the program when it
// is entered from a thread that is locked where another one was not, and a stream is released by whatever ends it.
type puller[I any] struct {
	items   iter.Seq2[I, error]
	resume  chan bool // whether another item is wanted
	results chan pulled[I]
	started bool
	over    bool        // the iterator has ended
	stopped bool        // no more items are wanted; of the iterator's goroutine
	left    atomic.Bool // the iterator's function is over
}

// pulled is the result of a step.
type pulled[I any] struct {
	item     I
	err      error
	more     bool
	exited   bool
	panicked any
}

// pull returns functions that run the next step of an iterator, and its end. They are for one goroutine at a time. A panic, or
// an exit, of the iterator goes on in the goroutine that runs the step.
func pull[I any](items iter.Seq2[I, error]) (next func() (I, error, bool), stop func()) {
	p := &puller[I]{items: items, resume: make(chan bool), results: make(chan pulled[I])}
	return p.next, p.stop
}

func (p *puller[I]) next() (item I, err error, more bool) {
	switch {
	case p.over:
		return item, nil, false
	case p.started:
		p.resume <- true
	default:
		p.started = true
		go p.run()
	}
	r := p.await()
	return r.item, r.err, r.more
}

func (p *puller[I]) stop() {
	if p.started && !p.over {
		p.resume <- false
		p.await()
	}
	p.over = true
}

// await waits for the end of a step.
func (p *puller[I]) await() pulled[I] {
	r := <-p.results
	p.over = !r.more
	switch {
	case r.exited:
		runtime.Goexit()
	case r.panicked != nil:
		panic(r.panicked)
	}
	return r
}

func (p *puller[I]) run() {
	r := pulled[I]{exited: true}
	defer func() {
		if r.exited {
			if value := recover(); value != nil {
				r = pulled[I]{panicked: value}
			}
		}
		p.left.Store(true)
		p.results <- r
	}()
	p.items(p.yield)
	r.exited = false
}

func (p *puller[I]) yield(item I, err error) bool {
	if p.stopped || p.left.Load() {
		return false
	}
	p.results <- pulled[I]{item: item, err: err, more: true}
	p.stopped = !<-p.resume
	return !p.stopped
}
