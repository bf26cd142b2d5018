package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/capreg/registry/event"
	"github.com/capreg/registry/examples/internal/loopback"
)

// pace is the time from one question to the next: 200 of them take 16 s.
const pace = 80 * time.Millisecond

// act is a fault before a question, at a share of the session.
type act struct {
	at   float64
	what string
	do   func(a *agent) error
}

// script is the session's bad day.
func script() []act {
	behave := func(name string, behaviour loopback.Behaviour) func(*agent) error {
		return func(a *agent) error {
			a.backends.server(name).Behave(behaviour)
			return a.backends.server(name).Listen()
		}
	}
	refuse := func(name string) func(*agent) error {
		return func(a *agent) error {
			a.backends.server(name).Refuse()
			return nil
		}
	}
	// The operator has fixed the key and resets the provider, which cannot notice by itself.
	mended := func(name string) func(*agent) error {
		return func(a *agent) error {
			provider, _ := a.registry.Provider(name)
			return errors.Join(behave(name, loopback.Behaviour{})(a), provider.Reset())
		}
	}
	return []act{
		{0.10, "openai answers 500 from now on", behave("openai", loopback.Behaviour{Status: http.StatusInternalServerError})},
		{0.25, "anthropic is rate limited: 429, Retry-After 3 s", behave("anthropic",
			loopback.Behaviour{Status: http.StatusTooManyRequests, RetryAfter: 3 * time.Second})},
		{0.35, "local-b dies", refuse("local-b")},
		{0.40, "openai hangs now: it takes questions and says nothing", behave("openai", loopback.Behaviour{Hang: true})},
		{0.45, "local-a is overloaded: 503, Retry-After 1 s", behave("local-a",
			loopback.Behaviour{Status: http.StatusServiceUnavailable, RetryAfter: time.Second})},
		{0.50, "local-a has recovered", behave("local-a", loopback.Behaviour{})},
		{0.55, "anthropic has recovered", behave("anthropic", loopback.Behaviour{})},
		{0.60, "openai refuses connections now", refuse("openai")},
		{0.62, "anthropic cuts its streams halfway", behave("anthropic", loopback.Behaviour{CutStreams: true})},
		{0.68, "anthropic refuses the key: 401", behave("anthropic", loopback.Behaviour{Status: http.StatusUnauthorized})},
		{0.72, "the key of anthropic was mended", mended("anthropic")},
		{0.80, "openai and local-b have recovered", func(a *agent) error {
			return errors.Join(behave("openai", loopback.Behaviour{})(a), behave("local-b", loopback.Behaviour{})(a))
		}},
	}
}

// play asks the questions, on a bad day when the servers are our own.
func (a *agent) play(ctx context.Context, questions int) error {
	acts := script()
	if a.backends.real {
		acts = nil
	}
	served := make(map[string]int)
	lost := 0
	tick := time.NewTicker(pace)
	defer tick.Stop()
	for n := range questions {
		var err error
		if acts, err = a.perform(acts, n, questions); err != nil {
			return err
		}
		reply, err := a.askNumber(ctx, n)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			lost++
			a.screen.line("lost      " + err.Error())
		} else {
			served[reply.by]++
			a.screen.answered(n+1, questions, reply.by, a.backends.tier(reply.by))
			if err := a.deliver(ctx, n, reply); err != nil {
				return err
			}
		}
		pause(ctx, tick)
	}
	a.screen.settle()
	if err := a.summary(ctx, questions, served, lost); err != nil {
		return err
	}
	if lost > 0 {
		return fmt.Errorf("%d of %d questions lost", lost, questions)
	}
	return nil
}

// pause waits for the next tick, or for the end of ctx.
func pause(ctx context.Context, tick *time.Ticker) {
	select {
	case <-tick.C:
	case <-ctx.Done():
	}
}

// askNumber asks question n, every third one for a stream.
func (a *agent) askNumber(ctx context.Context, n int) (answered, error) {
	ask := a.ask
	if n%3 == 2 {
		ask = a.askForStream
	}
	return ask(ctx, fmt.Sprintf("question %d: what is next?", n+1))
}

// perform performs the acts that are due before question n, and returns the others.
func (a *agent) perform(acts []act, n, questions int) ([]act, error) {
	for len(acts) > 0 && float64(n) >= acts[0].at*float64(questions) {
		a.screen.line("script    " + acts[0].what)
		if err := acts[0].do(a); err != nil {
			return nil, err
		}
		acts = acts[1:]
	}
	return acts, nil
}

// deliver notifies programs of every answer, and shows people one in twenty-five.
func (a *agent) deliver(ctx context.Context, n int, reply answered) error {
	if err := a.notify(ctx, reply.Text); err != nil {
		return err
	}
	if n%25 != 0 {
		return nil
	}
	return a.show(ctx, "answer    "+reply.Text)
}

// summary ends with the line of totals.
func (a *agent) summary(ctx context.Context, questions int, served map[string]int, lost int) error {
	names := make([]string, 0, len(served))
	total := 0
	for name, count := range served {
		names = append(names, name)
		total += count
	}
	slices.Sort(names)
	slices.SortStableFunc(names, func(a, b string) int { return served[b] - served[a] })
	shares := make([]string, 0, len(names))
	for _, name := range names {
		shares = append(shares, fmt.Sprintf("%s %d%%", name, (100*served[name]+total/2)/total))
	}
	if err := a.show(ctx, fmt.Sprintf("webhook   %d messages, none twice", a.backends.sink.Messages())); err != nil {
		return err
	}
	return a.show(ctx, fmt.Sprintf("served %d/%d lost %d  %s", total, questions, lost, strings.Join(shares, ", ")))
}

// describe describes an event; "" for events that are not printed.
func describe(e event.Event) string {
	switch e.Kind {
	case event.BreakerOpened:
		return fmt.Sprintf("opened    %s: %s", e.Provider, e.Reason)
	case event.BreakerHalfOpened:
		return "on trial  " + e.Provider
	case event.BreakerClosed:
		return fmt.Sprintf("recovered %s: %s", e.Provider, e.Reason)
	case event.Cooling:
		return fmt.Sprintf("cooling   %s: %s, for %v", e.Provider, e.Reason, e.Until.Sub(e.Time).Round(100*time.Millisecond))
	case event.CooldownEnded:
		return fmt.Sprintf("cooled    %s may be asked again", e.Provider)
	case event.Parked:
		return fmt.Sprintf("parked    %s: %s", e.Provider, e.Reason)
	case event.Ready:
		return "ready     " + e.Provider
	case event.NotReady, event.Unhealthy, event.Healthy, event.LeaseExpired:
		return fmt.Sprintf("%-9s %s: %s", e.Kind, e.Provider, e.Reason)
	default:
		return ""
	}
}
