//go:build unix

package process

import (
	"context"
	"fmt"
	"sync"
	"syscall"
	"time"

	"go.uber.org/zap"

	"github.com/capreg/registry"
	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/startup"
)

// Component returns a component that is a process: see the documentation of the package and of [Options]. It starts
// nothing: an orchestrator does. The component is of one orchestrator, since it has one process at a time.
//
// The start of the component fails where the process cannot be started, where a port of [Ready] is in use, or with an
// [ExitError] where the process ends before it is ready; a later end with one makes it fail, or restart by its policy. Its stop
// returns when nothing of the process group is left; otherwise the error matches [registry.ErrStuck]. That the
// process had to be killed is no error, and neither is its status then.
//
// Each life has a thread of the operating system, which waits for the process, a goroutine for each stream that is read, and
// one for [Options.Talk]; they end with it. The error of bad input is a [registry.FieldError]; one that matches [errors.ErrUnsupported] is that of a system
// without process groups.
func Component(options Options) (registry.Component, error) {
	p, err := newProgram(options)
	if err != nil {
		return registry.Component{}, err
	}
	s := &supervisor{program: p, signal: syscall.SIGTERM}
	if p.Signal != nil {
		signal, ok := p.Signal.(syscall.Signal)
		if !ok || signal <= 0 {
			return registry.Component{}, &registry.FieldError{
				Field: "Options.Signal", Value: fmt.Sprint(p.Signal), Bound: "a signal of this system", Err: registry.ErrInvalid,
			}
		}
		s.signal = signal
	}
	c := p.Component
	c.Start, c.Stop = s.start, s.stop
	c.Notifies = p.Ready.notifies()
	c.Ready = p.probe(s.current)
	return c, nil
}

// supervisor starts and stops the lives of a program, one after the other.
type supervisor struct {
	*program

	signal syscall.Signal

	mu    sync.Mutex // guards the fields below; nothing else is locked and nothing waits while it is held
	last  *life      // nil before the first one
	lives int
}

// current returns the last life. Its process has started.
func (s *supervisor) current() *life {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last
}

// begin returns a new life. There is none while the process of another one runs.
func (s *supervisor) begin() (*life, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last != nil && !s.last.isGone() {
		return nil, fmt.Errorf("its process runs already: a component is of one orchestrator: %w", registry.ErrConflict)
	}
	s.lives++
	s.last = newLife(s.program, s.lives)
	return s.last, nil
}

// start starts the process.
func (s *supervisor) start(ctx context.Context, run *startup.Run) error {
	if err := checkFree(ctx, s.taken); err != nil {
		return err
	}
	l, err := s.begin()
	if err != nil {
		return err
	}
	if err := l.start(run); err != nil { //nolint:contextcheck // the life goes on after the start
		return err
	}
	run.Go(func(context.Context) error {
		<-l.gone
		return l.err
	})
	return nil
}

// killTime bounds the wait for a process that was killed: one that waits for a disk, or for its turn on a busy machine.
const killTime = 10 * time.Second

// stop ends the process and its group.
func (s *supervisor) stop(ctx context.Context) error {
	l := s.current()
	grace := time.NewTimer(s.Grace)
	defer grace.Stop()
	l.talk.hangUp()
	l.askToEnd(s.signal, s.SignalLeader)
	select {
	case <-l.gone:
		return l.left
	case <-grace.C:
	case <-ctx.Done():
	}
	l.output.log("process is killed: it has not ended in time", zap.Duration("grace", s.Grace))
	l.kill()
	if within(l.gone, killTime+2*(finishTime+abandonTime)) {
		return l.left
	}
	return fault.Wrap(fmt.Sprintf("process %d does not end although it was killed: ", l.pid), registry.ErrStuck)
}
