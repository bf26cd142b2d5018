package changeset_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/internal/changeset"
	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/limit"
	"github.com/capreg/registry/selection"
	"github.com/capreg/registry/status"
)

var errBad = errors.New("bad")

// members is a host whose changes are notes. Each of its newcomers proves itself as its script says.
type members struct {
	sync.Mutex

	world  world
	within map[int]time.Duration
	proofs map[int]changeset.Proof
	closed bool
	refuse string // the step that fails, such as "accept 1"
	notes  []string
	wake   chan struct{}
}

func newMembers(w world) *members {
	return &members{world: w, within: map[int]time.Duration{}, proofs: map[int]changeset.Proof{}, wake: make(chan struct{})}
}

// note notes a step, which is an error where the test wants it.
func (m *members) note(step string, i int) error {
	if m.TryLock() {
		panic("the lock is not held")
	}
	text := fmt.Sprintf("%s %d", step, i)
	m.notes = append(m.notes, text)
	if text == m.refuse {
		return errBad
	}
	return nil
}

func (m *members) Open() error {
	if m.closed {
		return fault.ErrClosed
	}
	return nil
}

func (m *members) Complete(i int, _ *changeset.Change) error { return m.note("complete", i) }
func (m *members) Accept(i int) error                        { return m.note("accept", i) }
func (m *members) Make(i int) time.Duration                  { _ = m.note("make", i); return m.within[i] }
func (m *members) Prepare(i int)                             { _ = m.note("prepare", i) }
func (m *members) Apply(i int)                               { _ = m.note("apply", i) }
func (m *members) Done()                                     { _ = m.note("done", 0) }

func (m *members) Prove(i int) {
	m.Lock()
	defer m.Unlock()
	_ = m.note("prove", i)
}

func (m *members) Proof(i int) changeset.Proof { return m.proofs[i] }
func (m *members) Changed() <-chan struct{}    { return m.wake }

func (m *members) Unproven(i int, late bool) error {
	_ = m.note("unproven", i)
	return fmt.Errorf("%d unproven, late: %v", i, late)
}

func (m *members) SetStrategy(by status.ProviderID, s selection.Strategy) {
	m.notes = append(m.notes, fmt.Sprint("strategy of ", by, ": ", s))
}

func (m *members) SetLimits(by status.ProviderID, p limit.Policy) {
	m.notes = append(m.notes, fmt.Sprint("limits of ", by, ": ", p.MaxConcurrent))
}

func (m *members) Refuse(no changeset.Refusal) error {
	return fmt.Errorf("%d: %w: %s", no.Index, no.Kind, no.Bound)
}

func (m *members) Join(errs []error) error { return errors.Join(errs...) }

// become changes how far a newcomer has proven itself.
func (m *members) become(i int, p changeset.Proof) {
	m.Lock()
	defer m.Unlock()
	m.proofs[i] = p
	close(m.wake)
	m.wake = make(chan struct{})
}

// applied reports whether the changes were made.
func (m *members) applied() bool { return m.notes[len(m.notes)-1] == "done 0" }

func (m *members) run(ctx context.Context, changes ...changeset.Change) error {
	t := changeset.Transaction{Host: m, World: m.world, Changes: changes}
	return t.Run(ctx)
}

func TestTransaction_MakesItsChangesInTheirOrder(t *testing.T) {
	t.Parallel()
	m := newMembers(keyOfTwo())
	require.NoError(t, m.run(context.Background(), join("c", sharing("key", large)), leave("a"), leave("b"), join("d", in(7, ring))))
	require.Equal(t, "complete 0, complete 1, complete 2, complete 3, accept 0, accept 1, accept 2, accept 3, make 0, make 3, "+
		"prepare 0, prepare 1, prepare 2, prepare 3, apply 1, apply 2, apply 0, apply 3, "+
		"strategy of s/d: ROUND_ROBIN, limits of s/c: 2, done 0", strings.Join(m.notes, ", "))
}

func TestTransaction_RefusedMakesNothing(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		closed  bool
		refuse  string
		changes []changeset.Change
		want    error
		at      string // the last step
	}{
		"closed":       {closed: true, want: fault.ErrClosed},
		"incomplete":   {refuse: "complete 1", want: errBad, at: "complete 1"},
		"inconsistent": {changes: []changeset.Change{leave("x"), leave("a")}, want: fault.ErrNotRegistered, at: "complete 1"},
		"unacceptable": {refuse: "accept 0", want: errBad, at: "accept 1"},
	} {
		m := newMembers(ringOfTwo())
		m.closed, m.refuse = row.closed, row.refuse
		if row.changes == nil {
			row.changes = []changeset.Change{leave("a"), join("n", in(0, ring))}
		}
		require.ErrorIs(t, m.run(context.Background(), row.changes...), row.want, name)
		if row.at == "" {
			require.Empty(t, m.notes, name)
			continue
		}
		require.Equal(t, row.at, m.notes[len(m.notes)-1], name)
	}
}

func TestTransaction_WaitsForTheProofOfNewcomers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(ringOfTwo())
		m.within = map[int]time.Duration{0: time.Minute, 2: time.Hour}
		var err error
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			err = m.run(context.Background(), join("p", in(0, ring)), join("q", in(0, ring)), join("r", in(0, ring)))
		}()
		synctest.Wait()
		require.Equal(t, []string{"prove 0", "prove 2"}, m.notes[len(m.notes)-2:], "the other one need not")
		m.become(0, changeset.Proven)
		time.Sleep(2 * time.Minute)
		require.Equal(t, "prove 2", m.notes[len(m.notes)-1])
		m.become(2, changeset.Proven)
		<-ended
		require.NoError(t, err)
		require.True(t, m.applied())
		require.Contains(t, strings.Join(m.notes, ", "), "prove 2, complete 0, complete 1, complete 2, accept 0", "it is checked again")
	})
}

func TestTransaction_IsRefusedWhereAProofIsMissing(t *testing.T) {
	t.Parallel()
	cancelled := errors.New("cancelled")
	for name, row := range map[string]struct {
		do   func(m *members, cancel context.CancelCauseFunc)
		want error
		text string
	}{
		"failed": {do: func(m *members, _ context.CancelCauseFunc) { m.become(0, changeset.Failed) }, text: "0 unproven, late: false"},
		"late":   {do: func(*members, context.CancelCauseFunc) {}, text: "0 unproven, late: true"},
		"closed meanwhile": {do: func(m *members, _ context.CancelCauseFunc) {
			m.closed = true
			m.become(0, changeset.Proven)
		}, want: fault.ErrClosed},
		"no longer consistent": {do: func(m *members, _ context.CancelCauseFunc) {
			m.world.members[of("n")] = in(0, ring)
			m.become(0, changeset.Proven)
		}, want: fault.ErrExists},
		"context ended": {do: func(_ *members, cancel context.CancelCauseFunc) { cancel(cancelled) }, want: cancelled, text: "0 unproven, late: false"},
		"not ready":     {do: func(_ *members, cancel context.CancelCauseFunc) { cancel(nil) }, want: fault.ErrNotReady},
	} {
		synctest.Test(t, func(t *testing.T) {
			m := newMembers(ringOfTwo())
			m.within[0] = time.Minute
			ctx, cancel := context.WithCancelCause(context.Background())
			defer cancel(nil)
			var err error
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				err = m.run(ctx, join("n", in(0, ring)))
			}()
			synctest.Wait()
			row.do(m, cancel)
			<-ended
			require.Error(t, err, name)
			if row.want != nil {
				require.ErrorIs(t, err, row.want, name)
			}
			require.ErrorContains(t, err, row.text, name)
			require.False(t, m.applied(), name)
		})
	}
}

func TestTransaction_CheckTellsWhatRunWouldAndMakesNothing(t *testing.T) {
	t.Parallel()
	check := func(m *members, changes ...changeset.Change) error {
		t := changeset.Transaction{Host: m, World: m.world, Changes: changes}
		return t.Check()
	}
	m := newMembers(ringOfTwo())
	require.NoError(t, check(m, leave("a"), join("n", in(0, ring))))
	require.Equal(t, []string{"complete 0", "complete 1", "accept 0", "accept 1"}, m.notes)
	m = newMembers(ringOfTwo())
	require.ErrorIs(t, check(m, leave("x")), fault.ErrNotRegistered)
	m.closed = true
	require.ErrorIs(t, check(m, leave("a")), fault.ErrClosed)
}
