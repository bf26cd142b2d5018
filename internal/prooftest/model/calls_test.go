package model_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/capreg/registry"
	"github.com/capreg/registry/status"
	"github.com/capreg/registry/verdict"
)

// Call makes a call with an outcome for each attempt.
func (m *machine) Call(rt *rapid.T) {
	q := m.drawQuery(rt)
	script := rapid.SliceOfN(rapid.SampledFrom(outcomes), 6, 6).Draw(rt, "outcomes")
	once := rapid.IntRange(0, 3).Draw(rt, "once") == 0
	var options []registry.CallOption
	if once {
		options = append(options, registry.OnceOnly())
	}
	var report *registry.CallReport
	if rapid.Bool().Draw(rt, "report") {
		report = new(registry.CallReport)
		options = append(options, registry.ReportTo(report))
	}
	var tried []string
	got, err := registry.Call(m.t.Context(), services.Bind(m.reg, q), func(_ context.Context, name string) (string, error) {
		tried = append(tried, name)
		return name, script[len(tried)-1].err
	}, options...)

	expected, last := m.expectCall(rt, q, script, once)
	require.Equal(rt, expected, tried)
	m.requireReport(rt, report, expected)
	switch {
	case len(expected) == 0:
		m.requireUnavailable(rt, q, err)
	case last.err == nil:
		require.NoError(rt, err)
		require.Equal(rt, expected[len(expected)-1], got)
	default:
		var failure *registry.CallError
		require.ErrorAs(rt, err, &failure)
		require.ErrorIs(rt, err, errModel)
		names := make([]string, len(failure.Attempts))
		for i, a := range failure.Attempts {
			names[i] = a.Provider
		}
		require.Equal(rt, expected, names)
	}
}

// requireReport checks the report of a call that has asked those providers, each once.
func (m *machine) requireReport(rt *rapid.T, report *registry.CallReport, asked []string) {
	if report == nil {
		return
	}
	require.Len(rt, report.Attempts, len(asked))
	for i, a := range report.Attempts {
		why := "failover"
		if i == 0 {
			why = "first"
		}
		mock := m.oracle.named(asked[i]).mock && m.oracle.defect != "marks no mocks"
		require.Equal(rt, []any{asked[i], why, mock}, []any{a.Provider, string(a.Why), a.Mock}, "provider, reason, mock")
	}
}

// expectCall is Call by the oracle: the providers tried, and the last outcome.
func (m *machine) expectCall(rt *rapid.T, q registry.Query, script []outcome, once bool) (asked []string, last outcome) {
	o := m.oracle
	call, larger, window := o.newCall(), false, 0
	entering := make(map[group]bool)
	for _, p := range o.order(q, (*provider).callable) {
		if !p.callable() {
			continue // an attempt before has taken its domain away
		}
		if !entering[p.group()] { // the iteration enters a group
			entering[p.group()] = true
			o.picked(q, p)
		}
		if p.full() || larger && o.defect != "asks too small windows" && p.window > 0 && p.window <= window {
			continue
		}
		last = script[len(asked)]
		asked = append(asked, p.name)
		o.settle(o.enter(p, call), last)
		if last.name == tooLong.name {
			larger, window = true, max(window, p.window)
		}
		if moves := last.next == "always" || (!once || o.defect == "runs twice") && (last.next == "yes" || last.next == "refused" && q.TryRefused); !moves {
			break
		}
	}
	m.adopt(rt)
	if len(asked) > 0 {
		o.hits++
	} else {
		o.misses++
	}
	return asked, last
}

// requireUnavailable checks that the error matches every reason that there is.
func (m *machine) requireUnavailable(rt *rapid.T, q registry.Query, err error) {
	require.ErrorIs(rt, err, registry.ErrUnavailable)
	for _, p := range m.oracle.candidates(q) {
		for _, reason := range []struct {
			there bool
			is    error
		}{
			{p.sick, registry.ErrUnhealthy},
			{p.state == status.BreakerOpen, registry.ErrBreakerOpen},
			{p.callable() && p.full(), registry.ErrAtCapacity},
		} {
			if reason.there {
				require.ErrorIs(rt, err, reason.is, p.name)
			}
		}
		// A parked provider among others is cooling down, alone it is credentials.
		require.False(rt, p.cooling() && !errors.Is(err, registry.ErrCoolingDown) && !errors.Is(err, registry.ErrCredentials), p.name)
	}
	require.NotContains(rt, err.Error(), "\n")
}

// Get looks up.
func (m *machine) Get(rt *rapid.T) {
	q := m.drawQuery(rt)
	got, err := services.Bind(m.reg, q).Get(m.t.Context())
	order := m.oracle.order(q, (*provider).steady)
	if len(order) == 0 {
		m.oracle.misses++
		require.ErrorIs(rt, err, registry.ErrUnavailable)
		return
	}
	m.oracle.hits++
	m.oracle.picked(q, order[0])
	require.NoError(rt, err)
	require.Equal(rt, order[0].name, got)
}

// Many looks up all there are.
func (m *machine) Many(rt *rapid.T) {
	q := m.drawQuery(rt)
	limit := rapid.IntRange(0, 2).Draw(rt, "limit")
	got, err := services.Bind(m.reg, q).GetAll(m.t.Context(), limit)
	m.oracle.forget(q)
	var expected []string
	for _, p := range m.oracle.candidates(q) {
		if p.steady() && (limit == 0 || len(expected) < limit) {
			expected = append(expected, p.name)
		}
	}
	if len(expected) == 0 {
		m.oracle.misses++
		require.ErrorIs(rt, err, registry.ErrUnavailable)
		return
	}
	m.oracle.hits++
	require.NoError(rt, err)
	require.Equal(rt, expected, got)
}

// Acquire leases a provider and keeps it.
func (m *machine) Acquire(rt *rapid.T) {
	q := m.drawQuery(rt)
	got, err := services.Bind(m.reg, q).Acquire(m.t.Context())
	entering := make(map[group]bool)
	for _, p := range m.oracle.order(q, (*provider).callable) {
		if !entering[p.group()] {
			entering[p.group()] = true
			m.oracle.picked(q, p)
		}
		if !p.full() {
			require.NoError(rt, err)
			require.Equal(rt, p.name, got.Value)
			m.hold(m.oracle.enter(p, m.oracle.newCall()), got)
			m.oracle.hits++
			return
		}
	}
	m.oracle.misses++
	m.requireUnavailable(rt, q, err)
}

// AcquireAll leases all there are and keeps them.
func (m *machine) AcquireAll(rt *rapid.T) {
	q := m.drawQuery(rt)
	limit := rapid.IntRange(0, 2).Draw(rt, "limit")
	got, err := services.Bind(m.reg, q).AcquireAll(m.t.Context(), limit)
	m.oracle.forget(q)
	count, call := 0, m.oracle.newCall()
	for _, p := range m.oracle.candidates(q) {
		if !p.callable() || p.full() || count == limit && limit > 0 {
			continue
		}
		require.Less(rt, count, len(got))
		require.Equal(rt, p.name, got[count].Value)
		m.hold(m.oracle.enter(p, call), got[count])
		count++
	}
	require.Len(rt, got, count)
	if count == 0 {
		m.oracle.misses++
		m.requireUnavailable(rt, q, err)
		return
	}
	m.oracle.hits++
	require.NoError(rt, err)
}

func (m *machine) hold(l *lease, got *registry.Lease[string]) {
	l.expires = m.oracle.now + leaseTime + time.Second
	m.oracle.leases = append(m.oracle.leases, l)
	m.held[l] = got
}

// Answered tells that the answer of a lease has begun.
func (m *machine) Answered(rt *rapid.T) {
	if len(m.held) == 0 {
		return
	}
	all := m.allHeld()
	l := all[rapid.IntRange(0, len(all)-1).Draw(rt, "lease")]
	m.held[l].Steps().Answered()
	if slices.Contains(m.oracle.leases, l) {
		m.oracle.answer(l)
	}
}

// Done reports a lease, which may have expired.
func (m *machine) Done(rt *rapid.T) {
	if len(m.held) == 0 {
		return
	}
	all := m.allHeld()
	m.report(rt, all[rapid.IntRange(0, len(all)-1).Draw(rt, "lease")], rapid.SampledFrom(outcomes).Draw(rt, "outcome"))
}

func (m *machine) allHeld() []*lease {
	all := make([]*lease, 0, len(m.held))
	for l := range m.held {
		all = append(all, l)
	}
	slices.SortFunc(all, func(a, b *lease) int {
		if a.began != b.began {
			return int(a.began - b.began)
		}
		return strings.Compare(fmt.Sprint(a.of.name, a.of.joined), fmt.Sprint(b.of.name, b.of.joined))
	})
	return all
}

func (m *machine) report(rt *rapid.T, l *lease, out outcome) {
	open := slices.Contains(m.oracle.leases, l)
	late := m.oracle.now >= l.began+leaseTime // any error would be blamed on the time that is over
	if open && (late || out.name == cut.name && m.oracle.now > l.began) {
		out = fine // what a cut says after some time is another test's
	}
	class := m.held[l].Done(out.err)
	delete(m.held, l)
	if !open {
		require.Equal(rt, verdict.ClassIgnored, class, "it has expired")
		return
	}
	m.oracle.end(l, out)
	m.adopt(rt)
}
