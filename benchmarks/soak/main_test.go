package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/capreg/registry"
	"github.com/capreg/registry/event"
	"github.com/capreg/registry/health"
	"github.com/capreg/registry/status"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	return lines[len(lines)-1]
}

func TestSoak_LosesNothingAndWritesItsFigures(t *testing.T) {
	t.Parallel()
	page := filepath.Join(t.TempDir(), "page.md")
	require.NoError(t, os.WriteFile(page, []byte("<!-- soak: begin -->\n<!-- soak: end -->\n"), 0o600))
	var out strings.Builder
	require.NoError(t, run(t.Context(), []string{"-for", "2s", "-callers", "8", "-write", page}, &out), "%s", &out)
	require.Regexp(t, `^calls [1-9]\d* lost 0 stuck 0 leaked 0 races-of-state 0$`, lastLine(out.String()))
	text, err := os.ReadFile(page)
	require.NoError(t, err)
	require.Contains(t, string(text), lastLine(out.String()))
}

func TestMain_RefusesBadArguments(t *testing.T) {
	t.Parallel()
	for _, arguments := range [][]string{{"-for", "1ms"}, {"-callers", "0"}, {"-unheard-of"}} {
		require.Error(t, run(t.Context(), arguments, &strings.Builder{}), arguments)
	}
}

func TestSoak_InterruptionIsAnError(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, run(ctx, []string{"-for", "1s"}, &strings.Builder{}), context.Canceled)
}

func TestLedger_ReportsLostAndStuckCalls(t *testing.T) {
	t.Parallel()
	l := newLedger()
	fine, twice, silent := l.begin(kindCall), l.begin(kindCall), l.begin(kindLease)
	l.begin(kindStream) // never ends
	l.end(fine, answered)
	l.end(twice, failed)
	l.end(twice, failed)
	l.end(silent, "")
	l.lose(3)
	l.broke("a %s", "promise")
	require.Equal(t, sums{calls: 4, lost: 5, stuck: 1, broken: 1}, l.sum())
	require.Equal(t, "calls 4 lost 5 stuck 1 leaked 0 races-of-state 1", l.sum().String())
	require.False(t, l.sum().clean())
	require.True(t, sums{calls: 9}.clean())
}

// audited returns a world at rest, with a hand on everything in it.
func audited(t *testing.T) *world {
	t.Helper()
	w, err := newWorld("w", newLedger(), &faults{others: make(map[string]uint64)}, false)
	require.NoError(t, err)
	w.calm.Store(true)
	t.Cleanup(func() {
		w.close(context.WithoutCancel(t.Context()))
		w.reading.Wait()
	})
	for _, m := range w.present() {
		_, err := m.SetHealthPolicy(health.Policy{Off: true})
		require.NoError(t, err)
	}
	w.openPlaces()
	require.Empty(t, w.untilNone(w.audit))
	return w
}

func TestAudit_DetectsDifferences(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]struct {
		change func(w *world, m *member) (undo func())
		says   string
	}{
		"an attempt that was not counted": {func(_ *world, m *member) func() {
			m.account.entered.Add(1)
			return func() { m.account.entered.Add(^uint64(0)) }
		}, "was entered"},
		"an answer that is no success": {func(_ *world, m *member) func() {
			m.account.sure.Add(1 << 20)
			return func() { m.account.sure.Store(0) }
		}, "successes are counted"},
		"a panic that is no failure": {func(_ *world, m *member) func() {
			m.account.crashed.Add(1 << 20)
			return func() { m.account.crashed.Store(0) }
		}, "failures are counted"},
		"an iterator that is left open": {func(_ *world, m *member) func() {
			m.account.held.Add(1)
			return func() { m.account.held.Add(-1) }
		}, "are open"},
		"a look-up that was not counted": {func(w *world, _ *member) func() {
			w.lookups.Add(1)
			return func() { w.lookups.Add(^uint64(0)) }
		}, "look-ups"},
		"a call that has no end": {func(w *world, _ *member) func() {
			w.before.Add(1)
			return func() { w.before.Add(^uint64(0)) }
		}, "before a hook"},
		"a lease in progress": {func(w *world, m *member) func() {
			w.lookups.Add(1)
			lease, err := w.resolvers[0].Acquire(t.Context())
			require.NoError(t, err)
			lease.Value.account.entered.Add(1)
			return func() { lease.Done(nil) }
		}, "in flight"},
		"a provider that no event has spoken of": {func(w *world, m *member) func() {
			generation := m.Info().Generation
			w.history.mu.Lock()
			defer w.history.mu.Unlock()
			kept := w.history.present[generation]
			delete(w.history.present, generation)
			return func() {
				w.history.mu.Lock()
				defer w.history.mu.Unlock()
				w.history.present[generation] = kept
			}
		}, "by the events"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := audited(t)
			undo := spoil.change(w, w.present()[0])
			require.Contains(t, strings.Join(w.audit(), "\n"), spoil.says)
			undo()
			require.Empty(t, w.untilNone(w.audit))
		})
	}
}

func TestAudit_DifferencesAreLostCalls(t *testing.T) {
	t.Parallel()
	w := audited(t)
	w.present()[0].account.entered.Add(2)
	w.closeBooks()
	require.Equal(t, uint64(2), w.ledger.sum().lost)
}

func TestHistory_DetectsImpossibleEvents(t *testing.T) {
	t.Parallel()
	joined := event.Event{Sequence: 1, Kind: event.Registered, Provider: "p", Generation: 1}
	opened := event.Event{Sequence: 2, Kind: event.BreakerOpened, Provider: "p", Generation: 1, From: "closed", To: "open"}
	for name, broken := range map[string][]event.Event{
		"a gap":                   {joined, {Sequence: 3, Kind: event.Changed}},
		"another state before":    {joined, {Sequence: 2, Kind: event.BreakerClosed, Generation: 1, From: "half-open", To: "closed"}},
		"a stranger":              {{Sequence: 1, Kind: event.BreakerOpened, Generation: 7, From: "closed", To: "open"}},
		"a second registration":   {joined, {Sequence: 2, Kind: event.Registered, Generation: 1}},
		"a second end":            {joined, {Sequence: 2, Kind: event.Draining, Generation: 1}, {Sequence: 3, Kind: event.Draining, Generation: 1}},
		"a drain without an end":  {joined, {Sequence: 2, Kind: event.Drained, Generation: 1}},
		"a state after the end":   {joined, {Sequence: 2, Kind: event.Draining, Generation: 1}, {Sequence: 3, Kind: event.BreakerOpened, Generation: 1}},
		"a state that is skipped": {joined, opened, {Sequence: 3, Kind: event.BreakerClosed, Generation: 1, From: "half-open", To: "closed"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			books := newLedger()
			h := newHistory("w", books)
			for i, e := range broken {
				require.Zero(t, books.sum().broken, "before event %d", i)
				h.note(e)
			}
			require.Equal(t, uint64(1), books.sum().broken)
		})
	}
	books := newLedger()
	h := newHistory("w", books)
	h.note(joined)
	h.note(opened)
	require.Zero(t, books.sum().broken)
	p, known, whole := h.of(1)
	require.Equal(t, past{provider: "p", breaker: "open"}, p)
	require.True(t, known && whole)
}

func TestAudit_DetectsImpossibleViews(t *testing.T) {
	t.Parallel()
	open, closed := status.BreakerOpen, status.BreakerClosed
	for _, info := range []registry.Info{
		{InFlight: ^uint64(0)},
		{Breaker: registry.BreakerStats{State: status.BreakerHalfOpen, TrialsInFlight: mostTrials + 1}},
		{Breaker: registry.BreakerStats{State: closed, TrialsInFlight: 1}},
		{Breaker: registry.BreakerStats{State: open, ConsecutiveFailures: 1}},
		{Breaker: registry.BreakerStats{State: closed, RetryIn: time.Second}},
	} {
		w := &world{ledger: newLedger()}
		w.checkAnytime(info)
		require.Equal(t, uint64(1), w.ledger.sum().broken, "%+v", info)
	}
	require.NotEmpty(t, checkOverall(health.Overall{Healthy: 1}))
}

func TestSoak_DetectsUnplannedPanicsAndExits(t *testing.T) {
	t.Parallel()
	w := &world{ledger: newLedger()}
	o := &op{number: 1, ledger: w.ledger}
	require.Equal(t, panicked, w.crashed(o, planned{1}))
	require.Zero(t, w.ledger.sum().broken)
	require.Equal(t, unplanned, w.crashed(o, planned{2}))
	require.Equal(t, unplanned, w.crashed(o, errors.New("other")))
	require.Equal(t, unplanned, w.crashed(o, nil))
	require.Equal(t, uint64(3), w.ledger.sum().broken)
	o.crash.Store(true)
	require.Equal(t, exited, w.crashed(o, nil))
	o.once = true
	o.noteTry("p")
	o.unsent()
	o.noteTry("p")
	require.Equal(t, uint64(3), w.ledger.sum().broken)
	o.noteTry("p")
	require.Equal(t, uint64(4), w.ledger.sum().broken)
}
