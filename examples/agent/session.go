// This file shows the runtime at work: a question, a turn, an answer; and at the end the
// account of what was served, sent, kept and recorded.

package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// pace is the time from one question to the next: 200 of them take 16 s.
const pace = 80 * time.Millisecond

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
		if err := a.inbox.Put(ctx, a.question(n)); err != nil {
			return err
		}
		reply, err := a.turn(ctx, manner{streamed: n%3 == 2, shown: n%25 == 0 || n == researched})
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			lost++
			a.screen.line("lost      " + err.Error())
		} else {
			served[reply.by]++
			a.screen.answered(n+1, questions, reply.by, a.backends.tier(reply.by))
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

// researched is the question for which the tools are needed.
const researched = 10

// question returns question n.
func (a *agent) question(n int) string {
	if n == researched && a.backends.page != "" {
		return fmt.Sprintf("question %d: what is in %s", n+1, a.backends.page)
	}
	return fmt.Sprintf("question %d: what is next?", n+1)
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
	lines, err := a.account(ctx, questions)
	if err != nil {
		return err
	}
	lines = append(lines, fmt.Sprintf("served %d/%d lost %d  %s", total, questions, lost, strings.Join(shares, ", ")))
	for _, line := range lines {
		if err := a.speak.show(ctx, line); err != nil {
			return err
		}
	}
	return nil
}

// account looks at the runtime once more, without a message in the inbox, and says what
// its services have kept.
func (a *agent) account(ctx context.Context, questions int) ([]string, error) {
	seen, err := a.observe.look(ctx)
	if err != nil {
		return nil, err
	}
	kept, by := 0, make(map[string]int)
	for n := range questions {
		if _, err := a.memorize.find(ctx, a.question(n)); err == nil {
			kept++
		}
	}
	records := a.ledger.Records()
	failovers := 0
	for _, r := range records {
		by[r.Handler]++
		failovers += len(r.Failed)
	}
	if err := a.ledger.Verify(records); err != nil {
		return nil, err
	}
	lines := []string{
		"observed  " + seen.text,
		fmt.Sprintf("memory    %d of %d answers are remembered", kept, questions),
		fmt.Sprintf("audit     %d decisions and %d failed attempts: %d of the %s, %d of the %s, %d of the %s; none is altered", len(records), failovers,
			by[speakHandler], speakHandler, by[memorizeHandler], memorizeHandler, by[observeHandler], observeHandler),
	}
	if a.backends.sink != nil {
		lines = append(lines, fmt.Sprintf("webhook   %d messages, none twice", a.backends.sink.Messages()))
	}
	return lines, nil
}
