package tasks

import (
	"errors"
	"sync"

	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/verdict"
)

// Fan runs functions in goroutines of a [Group], a bounded number of them at a time, for one goroutine that waits for
// all. It is not safe for concurrent use.
type Fan struct {
	group   *Group
	free    chan struct{} // has an item for each function that may begin; nil: any number may
	running sync.WaitGroup

	mu       sync.Mutex // guards panicked; nothing is called while it is held
	panicked *verdict.PanicError
}

// NewFan returns a fan of at most that many functions at a time; zero: any number.
func NewFan(group *Group, most int) *Fan {
	f := &Fan{group: group}
	if most > 0 {
		f.free = make(chan struct{}, most)
		for range most {
			f.free <- struct{}{}
		}
	}
	return f
}

// Go runs work and then done, with the error of work, which is a [verdict.PanicError] when it has panicked or ended
// its goroutine; done returns whether a panic goes on in [Fan.Wait]. The function has to be free to begin: see
// [Fan.AwaitFree].
func (f *Fan) Go(name string, work func() error, done func(err error, panicked bool) (goesOn bool)) {
	f.running.Add(1)
	f.group.StartLast(name, func() {
		defer f.running.Done()
		if f.free != nil {
			defer func() { f.free <- struct{}{} }()
		}
		returned := false
		fault.RunThen(func() error {
			err := work()
			returned = true
			return err
		}, func(err error) {
			var panicked *verdict.PanicError
			if !returned {
				errors.As(err, &panicked)
			}
			if done(err, !returned) && panicked != nil && panicked.Value != nil {
				f.mu.Lock()
				defer f.mu.Unlock()
				f.panicked = panicked
			}
		})
	})
}

// AwaitFree waits until another function may begin.
func (f *Fan) AwaitFree() {
	if f.free != nil {
		<-f.free
	}
}

// Wait waits until all functions have ended, and panics with the value with which the last of them has panicked.
func (f *Fan) Wait() {
	f.running.Wait()
	if f.panicked != nil { // nothing runs any more
		panic(f.panicked.Value)
	}
}
