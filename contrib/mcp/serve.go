package registrymcp

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
	"go.uber.org/zap"

	"github.com/capreg/registry/internal/fault"
)

const (
	// quickPing is the time between questions to a server that does not answer, so that it is back at once when it does.
	quickPing = 250 * time.Millisecond
	// leastListGap is the least time between two lists, for servers that say again and again that it has changed.
	leastListGap = 100 * time.Millisecond
)

// serve makes one connection and lives with it until it is over, and returns why. Its tools are up meanwhile, as long as the
// server answers, and out afterwards.
func (s *server) serve(ctx context.Context, dial dialer) error {
	c, err := s.connect(ctx, dial)
	if err == nil {
		err = (&serving{server: s, c: c}).run(ctx)
	}
	s.connection.CompareAndSwap(c, nil)
	// What ends with ctx is told of as well.
	marking, cancel := context.WithTimeout(context.WithoutCancel(ctx), abandonTime)
	defer cancel()
	s.catalog.markOut(marking, err, c.lastAnswer())
	s.log("server is down", zap.String("reason", fault.Text(err)))
	if c == nil {
		return err
	}
	return errors.Join(err, c.close(err, ctx.Err() != nil && c.silence() < s.PingInterval+s.PingTimeout))
}

// serving is the life with one connection.
type serving struct {
	*server

	c      *connection
	isUp   bool
	lists  chan listOutcome // of the list that is being read; nil for none
	pongs  chan error       // of the ping that is being answered; nil for none
	relist *time.Timer      // for the next list
	isDue  bool             // the next list is soon, since it has changed
	beat   *time.Timer      // for the next ping
	missed error            // why the server seems not to answer
	failed time.Duration    // until the next list, after one that failed
}

// listOutcome is the outcome of a list.
type listOutcome struct {
	tools map[string]*mcp.Tool
	err   error
}

func (v *serving) run(ctx context.Context) error {
	work, cancel := context.WithCancelCause(ctx)
	defer v.awaitWork()
	defer cancel(errOver)
	v.relist, v.beat = time.NewTimer(0), time.NewTimer(v.PingInterval)
	defer v.relist.Stop()
	defer v.beat.Stop()
	for {
		if err := v.step(ctx, work); err != nil {
			return err
		}
	}
}

// awaitWork waits for what has begun.
func (v *serving) awaitWork() {
	if v.lists != nil {
		<-v.lists
	}
	if v.pongs != nil {
		<-v.pongs //nolint:errcheck // it does not matter any more
	}
}

// step waits for what comes next. An error is the end.
func (v *serving) step(ctx, work context.Context) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-v.c.gone:
		return v.c.reason
	case <-v.c.changed:
		if v.isUp && !v.isDue { // one that says so again and again does not put it off
			v.isDue = true
			v.relist.Reset(leastListGap)
		}
	case <-v.c.doubted:
		v.beginPing(work)
	case <-v.relist.C:
		v.isDue = false
		v.beginList(work)
	case result := <-v.lists:
		v.lists = nil
		return v.endList(ctx, result)
	case <-v.beat.C:
		if v.missed == nil && v.c.silence() < v.PingInterval/2 { // it has just answered
			v.beat.Reset(v.PingInterval)
			return nil
		}
		v.beginPing(work)
	case err := <-v.pongs:
		v.pongs = nil
		return v.endPing(ctx, err)
	}
	return nil
}

// beginList begins to read the list, unless that goes on: then it is read again afterwards.
func (v *serving) beginList(ctx context.Context) {
	if v.lists != nil {
		v.c.wantList()
		return
	}
	v.lists = make(chan listOutcome, 1)
	go func(result chan<- listOutcome) {
		var l listOutcome
		fault.RunThen(func() (err error) { l.tools, err = v.c.list(ctx); return err }, func(err error) { l.err = err; result <- l })
	}(v.lists)
}

// listIn lets the list be read again after a time, unless it has changed meanwhile: then it is read soon.
func (v *serving) listIn(d time.Duration) {
	if !v.isDue {
		v.relist.Reset(d)
	}
}

// endList takes a list. A first one that cannot be read ends the connection.
func (v *serving) endList(ctx context.Context, l listOutcome) error {
	if l.err != nil {
		if !v.isUp {
			return l.err
		}
		v.log("list of tools cannot be read", zap.String("error", fault.Text(l.err)))
		v.failed = min(max(2*v.failed, time.Second), v.RefreshInterval)
		v.listIn(v.failed)
		return nil
	}
	v.failed = 0
	v.connection.Store(v.c)
	if err := v.catalog.learn(ctx, l.tools); err != nil && ctx.Err() != nil {
		return err
	}
	next := v.RefreshInterval
	if v.catalog.isInDoubt(ctx) {
		next = min(next, max(v.ConfirmTime/2, leastListGap))
	}
	v.listIn(next)
	v.report(func() { v.detail = detailOf(v.c, len(l.tools)) })
	if !v.isUp {
		v.isUp = true
		v.catalog.markUp(ctx)
		v.listing.Do(func() { close(v.listed) })
		v.log("server is up", zap.Duration("took", time.Since(v.c.began)))
	}
	return nil
}

// beginPing asks whether the server answers, unless that goes on.
func (v *serving) beginPing(ctx context.Context) {
	if v.pongs != nil {
		return
	}
	v.pongs = make(chan error, 1)
	go func(result chan<- error) {
		fault.RunThen(func() error { return v.c.ask(ctx) }, func(err error) { result <- err })
	}(v.pongs)
}

// endPing marks the tools out when the server does not answer, and gives it up when that lasts.
func (v *serving) endPing(ctx context.Context, err error) error {
	v.beat.Reset(v.PingInterval)
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err == nil && v.missed != nil:
		v.missed = nil
		if v.isUp {
			v.catalog.markUp(ctx)
			v.relist.Reset(0)
			v.log("server answers again")
		}
	case err != nil:
		v.beat.Reset(quickPing)
		silence := v.c.silence().Round(time.Millisecond)
		if v.missed == nil {
			v.log("server does not answer", zap.Duration("for", silence), zap.String("error", fault.Text(err)))
		}
		v.missed = fmt.Errorf("no answer for %v: %w", silence, err)
		if silence >= v.Patience && v.c.inFlight.Load() == 0 {
			return v.missed
		}
		if v.isUp && v.catalog.reason() == nil {
			v.catalog.markOut(ctx, v.missed, v.c.lastAnswer())
		}
	}
	return nil
}
