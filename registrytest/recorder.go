package registrytest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/capreg/registry"
	"github.com/capreg/registry/event"
	"github.com/capreg/registry/verdict"
)

// Recorder records the calls, leases and events of a registry, beginning with [Record]. Its
// assertions fail the test and go on. A failed assertion prints the trail: every call with its
// attempts, their reasons and their outcomes, between the events. A test that fails for any
// other reason prints it at its end.
//
// Calls and leases are recorded when they are over; look-ups by Get are not calls. A hedged
// call is over when its losers have returned, which may be after its answer; in a bubble,
// [testing/synctest.Wait] waits for those that heed their context. Its methods are safe for
// concurrent use.
type Recorder struct {
	tb    testing.TB
	began time.Time
	from  *registry.Subscription
	ended context.Context //nolint:containedctx // has ended: for reading without waiting

	// mu guards the fields below. The registry's own lock may be taken while it is held; no
	// user code runs.
	mu      sync.Mutex
	calls   []call
	events  []event.Event
	printed string
}

type call struct {
	over   time.Time
	report registry.CallReport
}

// most is the capacity for events between two calls.
const most = 1 << 16

// Record begins a record that ends with the test. It ends the test when the registry
// was not made by [registry.New].
func Record(tb testing.TB, reg *registry.Registry) *Recorder {
	tb.Helper()
	r := &Recorder{tb: tb, began: time.Now()}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	r.ended = ended
	stop, err := reg.AddHooks(registry.Hooks{AfterCall: r.add})
	if err != nil {
		tb.Fatalf("registrytest: record: %v", err)
	}
	r.from = reg.Subscribe(most)
	tb.Cleanup(func() {
		stop()
		r.from.Close()
		if tb.Failed() {
			r.print()
		}
	})
	return r
}

// add keeps a call. The registry calls it.
func (r *Recorder) add(_ context.Context, report registry.CallReport) {
	report = cloned(report) // shared with other receivers, such as ReportTo
	r.mu.Lock()
	defer r.mu.Unlock()
	r.readLocked()
	r.calls = append(r.calls, call{time.Now(), report})
}

// readLocked reads the events so far. Caller holds mu.
func (r *Recorder) readLocked() {
	for {
		e, err := r.from.Next(r.ended)
		if err != nil {
			return
		}
		r.events = append(r.events, e)
	}
}

// Calls returns the calls and leases that are over, in the order of their ends.
func (r *Recorder) Calls() []registry.CallReport {
	r.mu.Lock()
	defer r.mu.Unlock()
	reports := make([]registry.CallReport, len(r.calls))
	for i, c := range r.calls {
		reports[i] = cloned(c.report)
	}
	return reports
}

func cloned(report registry.CallReport) registry.CallReport {
	report.Attempts = slices.Clone(report.Attempts)
	return report
}

// Events returns the events in order.
func (r *Recorder) Events() []event.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.readLocked()
	return slices.Clone(r.events)
}

// Clear drops the record so far, so that assertions apply to later calls and events.
func (r *Recorder) Clear() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.readLocked()
	r.calls, r.events, r.printed = nil, nil, ""
}

// Trail returns calls and events in words, in the order of time, each with the time since the
// record began. A call appears at its end.
func (r *Recorder) Trail() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.readLocked()
	if len(r.calls)+len(r.events) == 0 {
		return "nothing was recorded"
	}
	var text strings.Builder
	line := func(at time.Time, what string) {
		fmt.Fprintf(&text, "%10v  %s\n", at.Sub(r.began).Round(time.Microsecond), what)
	}
	events := r.events
	upTo := func(before func(event.Event) bool) {
		for len(events) > 0 && before(events[0]) {
			line(events[0].Time, describeEvent(events[0]))
			events = events[1:]
		}
	}
	for _, c := range r.calls {
		upTo(func(e event.Event) bool { return !e.Time.After(c.over) })
		line(c.over, describeCall(c.report))
	}
	upTo(func(event.Event) bool { return true })
	return strings.TrimSuffix(text.String(), "\n")
}

// AssertCalls checks the number of calls and leases that are over.
func (r *Recorder) AssertCalls(want int) bool {
	r.tb.Helper()
	if got := len(r.Calls()); got != want {
		return r.fail("%d calls are over, want %d", got, want)
	}
	return true
}

// AssertAttempts checks the providers of the attempts of the last call, in order, with
// repetitions.
func (r *Recorder) AssertAttempts(providers ...string) bool {
	r.tb.Helper()
	last, ok := r.last()
	if !ok {
		return r.fail("no call is over, want one that asks %v", providers)
	}
	asked := make([]string, len(last.Attempts))
	for i, attempt := range last.Attempts {
		asked[i] = attempt.Provider
	}
	if !slices.Equal(asked, providers) {
		return r.fail("the last call asked %v, want %v", asked, providers)
	}
	return true
}

// AssertAnsweredBy checks the provider that answered the last call.
func (r *Recorder) AssertAnsweredBy(provider string) bool {
	r.tb.Helper()
	last, ok := r.last()
	switch {
	case !ok:
		return r.fail("no call is over, want one that %q answers", provider)
	case answeredBy(last) == "":
		return r.fail("no provider answered the last call, want %q", provider)
	case answeredBy(last) != provider:
		return r.fail("%q answered the last call, want %q", answeredBy(last), provider)
	}
	return true
}

// AssertFailed checks that the last call failed with an error that matches target, by
// [errors.Is].
func (r *Recorder) AssertFailed(target error) bool {
	r.tb.Helper()
	last, ok := r.last()
	switch {
	case !ok:
		return r.fail("no call is over, want one that fails with %v", target)
	case last.Err == nil:
		return r.fail("the last call was answered, want it to fail with %v", target)
	case !errors.Is(last.Err, target):
		return r.fail("the last call failed with %v, want %v", last.Err, target)
	}
	return true
}

// AssertAsked checks the number of attempts of the provider in all calls together.
func (r *Recorder) AssertAsked(provider string, want int) bool {
	r.tb.Helper()
	got := 0
	for _, report := range r.Calls() {
		for _, attempt := range report.Attempts {
			if attempt.Provider == provider {
				got++
			}
		}
	}
	if got != want {
		return r.fail("%q was asked %d times, want %d", provider, got, want)
	}
	return true
}

// AssertEvent checks that there was such an event; an empty provider is any.
func (r *Recorder) AssertEvent(kind event.Kind, provider string) bool {
	r.tb.Helper()
	if r.happened(kind, provider) == 0 {
		return r.fail("no event %s%s, want one", kind, ofProvider(provider))
	}
	return true
}

// AssertNoEvent checks that there was no such event; an empty provider is any.
func (r *Recorder) AssertNoEvent(kind event.Kind, provider string) bool {
	r.tb.Helper()
	if n := r.happened(kind, provider); n > 0 {
		return r.fail("%d events %s%s, want none", n, kind, ofProvider(provider))
	}
	return true
}

func ofProvider(name string) string {
	if name == "" {
		return ""
	}
	return fmt.Sprintf(" of %q", name)
}

func (r *Recorder) happened(kind event.Kind, provider string) (times int) {
	for _, e := range r.Events() {
		if e.Kind == kind && (provider == "" || e.Provider == provider) {
			times++
		}
	}
	return times
}

func (r *Recorder) last() (registry.CallReport, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.calls) == 0 {
		return registry.CallReport{}, false
	}
	return r.calls[len(r.calls)-1].report, true
}

func (r *Recorder) fail(format string, args ...any) bool {
	r.tb.Helper()
	r.tb.Errorf("registrytest: "+format, args...)
	r.print()
	return false
}

// print prints the trail, once.
func (r *Recorder) print() {
	r.tb.Helper()
	trail := r.Trail()
	r.mu.Lock()
	printed := r.printed
	r.printed = trail
	r.mu.Unlock()
	if trail != printed {
		r.tb.Logf("registrytest: what was recorded:\n%s", trail)
	}
}

// answeredBy returns the provider that answered; "" when the call failed.
func answeredBy(report registry.CallReport) string {
	if report.Err != nil {
		return ""
	}
	for _, attempt := range slices.Backward(report.Attempts) {
		if attempt.Class == verdict.ClassSuccess || attempt.Class == verdict.ClassSlow {
			return attempt.Provider
		}
	}
	return ""
}

func describeCall(report registry.CallReport) string {
	var text strings.Builder
	fmt.Fprintf(&text, "call of %q", report.Service)
	if report.Handler != "" {
		fmt.Fprintf(&text, " by handler %q", report.Handler)
	}
	switch by := answeredBy(report); {
	case by != "":
		fmt.Fprintf(&text, " answered by %s", by)
	case report.Err != nil:
		text.WriteString(" failed")
	default:
		text.WriteString(" over")
	}
	fmt.Fprintf(&text, " in %v", report.Duration.Round(time.Microsecond))
	for _, attempt := range report.Attempts {
		fmt.Fprintf(&text, "\n%12s- %s (%s", "", attempt.Provider, attempt.Why)
		if attempt.Trial {
			text.WriteString(", trial")
		}
		if attempt.Delay > 0 {
			fmt.Fprintf(&text, ", after %v", attempt.Delay.Round(time.Microsecond))
		}
		fmt.Fprintf(&text, "): %v in %v", attempt.Class, attempt.Duration.Round(time.Microsecond))
		if attempt.Err != nil {
			fmt.Fprintf(&text, ": %v", attempt.Err)
		}
	}
	for _, skipped := range report.Skipped() {
		fmt.Fprintf(&text, "\n%12s- not %v", "", skipped)
	}
	return text.String()
}

func describeEvent(e event.Event) string {
	var text strings.Builder
	text.WriteString("event " + string(e.Kind))
	if e.Provider != "" {
		text.WriteString(" " + e.Provider)
	}
	if e.Reason != "" {
		text.WriteString(": " + e.Reason)
	}
	if e.From != "" || e.To != "" {
		fmt.Fprintf(&text, " (%s → %s)", e.From, e.To)
	}
	if e.Err != nil {
		fmt.Fprintf(&text, ": %v", e.Err)
	}
	if !e.Until.IsZero() {
		fmt.Fprintf(&text, " for %v", e.Until.Sub(e.Time).Round(time.Millisecond))
	}
	if e.Lost > 0 {
		fmt.Fprintf(&text, " (%d events before it were lost)", e.Lost)
	}
	return text.String()
}
