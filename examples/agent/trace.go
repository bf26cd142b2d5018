// This file shows how calls are followed: with -trace the tree of a call that has moved on is printed, once for each
// course of events.

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/trace"

	"github.com/capreg/registry"
	registryotel "github.com/capreg/registry/contrib/otel"
)

// traceCalls prints trees of calls from now on, until stop is called.
func traceCalls(reg *registry.Registry, s *screen) (stop func() error, err error) {
	tracers := trace.NewTracerProvider(trace.WithSpanProcessor(&trees{screen: s, open: make(map[spanID][]branch), shown: make(map[string]bool)}))
	observer, err := registryotel.Observe(reg, registryotel.Options{TracerProvider: tracers})
	if err != nil {
		return nil, err
	}
	return func() error {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		return errors.Join(observer.Close(ctx), tracers.Shutdown(ctx))
	}, nil
}

type spanID = [8]byte

// branch is a span with what is below it, as lines.
type branch struct {
	began time.Time
	lines []string
	moves int    // attempts below it that led to another one
	shape string // what has happened, without times
}

// trees puts spans together: those below a span end before it.
type trees struct {
	screen *screen

	// mu guards the fields below, and keeps the lines of a tree together.
	mu    sync.Mutex
	open  map[spanID][]branch // of spans that have not ended, by these
	shown map[string]bool     // by shape
}

// OnStart does nothing.
func (*trees) OnStart(context.Context, trace.ReadWriteSpan) {}

// OnEnd adds a span to the one above it. One without is printed, if there was a fail-over and none was like it before.
func (t *trees) OnEnd(span trace.ReadOnlySpan) {
	t.mu.Lock()
	defer t.mu.Unlock()
	own := branchOf(span)
	id := span.SpanContext().SpanID()
	below := t.open[id]
	delete(t.open, id)
	slices.SortStableFunc(below, func(a, b branch) int { return a.began.Compare(b.began) })
	for _, b := range below {
		own.moves += b.moves
		own.shape += "/" + b.shape
		for _, line := range b.lines {
			own.lines = append(own.lines, "  "+line)
		}
	}
	if span.Parent().IsValid() {
		above := span.Parent().SpanID()
		t.open[above] = append(t.open[above], own)
		return
	}
	if own.moves == 0 || t.shown[own.shape] {
		return
	}
	t.shown[own.shape] = true
	for _, line := range own.lines {
		t.screen.line("trace     " + line)
	}
}

// Shutdown does nothing.
func (*trees) Shutdown(context.Context) error { return nil }

// ForceFlush does nothing.
func (*trees) ForceFlush(context.Context) error { return nil }

// branchOf describes a span: its name, how it has ended, and how long that took.
func branchOf(span trace.ReadOnlySpan) branch {
	attributes := attribute.NewSet(span.Attributes()...)
	text := func(key attribute.Key) string {
		value, _ := attributes.Value(key)
		return value.String()
	}
	words := []string{text("registry.class")}
	failed := attributes.HasValue("error.type")
	switch why := text("registry.attempt.reason"); {
	case why != "":
		words = append(words, why)
	case !failed:
		words = append(words, "by "+text("registry.provider.name"))
	}
	b := branch{began: span.StartTime(), shape: span.Name() + ":" + strings.Join(words, ",")}
	if failed && attributes.HasValue("registry.attempt.reason") {
		b.moves = 1
	}
	took := span.EndTime().Sub(span.StartTime()).Round(100 * time.Microsecond)
	b.lines = []string{fmt.Sprintf("%s: %s, %v", span.Name(), strings.Join(words, ", "), took)}
	return b
}
