package registrytest_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/event"
	"github.com/capreg/registry/hedge"
	"github.com/capreg/registry/registrytest"
	"github.com/capreg/registry/verdict"
)

func TestRecorder_RecordsCallsLeasesAndEvents(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		reg := registrytest.New(t, registry.Options{})
		record := registrytest.Record(t, reg)
		down := registrytest.NewScript().Always(registrytest.Fail(verdict.ClassServerError).After(time.Second))
		add(t, reg, provider{Name: "cloud", Instance: fake{down, ""}, Breaker: registry.BreakerPolicy{FailureThreshold: 2}})
		add(t, reg, provider{Name: "local", Group: 1})
		require.Equal(t, "local", asked(t, reg))
		record.AssertCalls(1)
		record.AssertAttempts("cloud", "local")
		record.AssertAnsweredBy("local")
		record.AssertNoEvent(event.BreakerOpened, "")
		require.Equal(t, "local", asked(t, reg))
		record.AssertEvent(event.BreakerOpened, "cloud")
		record.AssertAsked("cloud", 2)
		record.AssertAsked("local", 2)

		lease, err := chat.Bind(reg, registry.Query{}).Acquire(t.Context())
		require.NoError(t, err)
		record.AssertCalls(2)
		lease.Done(nil)
		record.AssertCalls(3)
		record.AssertAttempts("local")

		registrytest.Override(t, reg, chat)
		_, err = ask(t.Context(), reg)
		require.Error(t, err)
		record.AssertFailed(registry.ErrUnavailable)
		record.AssertAttempts()
		require.Len(t, record.Calls(), 4)
		trail := record.Trail()
		for _, want := range []string{
			"        1s  call of \"chat\" answered by local in 1s",
			"            - cloud (first): server error in 1s: scripted: server error",
			"            - local (failover): success in 0s",
			"        2s  event breaker_opened cloud: 2 failures in a row (closed → open): server error: scripted: server error for 1m0s",
			"            - not cloud: breaker open (2 failures in a row), retry in 1m0s",
			`event changed: override ( → TestRecorder_Records`, `call of "chat" failed`, `overridden by "TestRecorder_Records`,
		} {
			require.Contains(t, trail, want)
		}
		require.Less(t, len(record.Events()), 20)
		record.Clear()
		require.Empty(t, record.Calls())
		require.Equal(t, "nothing was recorded", record.Trail())
		record.AssertCalls(0)
	})
}

func TestRecorder_FailedAssertionPrintsTheTrail(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		assert func(*registrytest.Recorder) bool
		want   string
	}{
		"calls":       {func(r *registrytest.Recorder) bool { return r.AssertCalls(2) }, "1 calls are over, want 2"},
		"attempts":    {func(r *registrytest.Recorder) bool { return r.AssertAttempts("b") }, "the last call asked [a], want [b]"},
		"answered by": {func(r *registrytest.Recorder) bool { return r.AssertAnsweredBy("b") }, `"a" answered the last call, want "b"`},
		"failed":      {func(r *registrytest.Recorder) bool { return r.AssertFailed(errDown) }, "the last call was answered"},
		"asked":       {func(r *registrytest.Recorder) bool { return r.AssertAsked("a", 2) }, `"a" was asked 1 times, want 2`},
		"event": {
			func(r *registrytest.Recorder) bool { return r.AssertEvent(event.BreakerOpened, "a") }, `no event breaker_opened of "a", want one`,
		},
		"no event": {func(r *registrytest.Recorder) bool { return r.AssertNoEvent(event.Registered, "") }, "1 events registered, want none"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := spyOn(t, "Test", func(tb testing.TB) {
				reg := registrytest.New(tb, registry.Options{})
				record := registrytest.Record(tb, reg)
				add(tb, reg, provider{Name: "a"})
				asked(tb, reg)
				require.False(t, test.assert(record))
				require.False(t, test.assert(record))
			})
			require.True(t, s.failed)
			require.Contains(t, s.text(), test.want)
			require.Len(t, s.lines, 3, "the trail is printed once:\n%s", s.text())
			require.Contains(t, s.text(), `call of "chat" answered by a`)
			require.Contains(t, s.text(), "event registered a")
		})
	}
	s := spyOn(t, "Test", func(tb testing.TB) {
		record := registrytest.Record(tb, registrytest.New(tb, registry.Options{}))
		require.False(t, record.AssertAttempts("a"))
		require.False(t, record.AssertAnsweredBy("a"))
		require.False(t, record.AssertFailed(errDown))
	})
	require.Contains(t, s.text(), "no call is over")
	s = spyOn(t, "Test", func(tb testing.TB) {
		reg := registrytest.New(tb, registry.Options{})
		record := registrytest.Record(tb, reg)
		add(tb, reg, provider{Name: "a", Instance: fake{registrytest.NewScript(registrytest.Error(errDown)), ""}})
		_, err := ask(tb.Context(), reg)
		require.Error(t, err)
		require.True(t, record.AssertFailed(errDown))
		require.False(t, record.AssertFailed(registry.ErrClosed))
		require.False(t, record.AssertAnsweredBy("a"))
	})
	require.Contains(t, s.text(), "no provider answered the last call")
	require.Contains(t, s.text(), "unknown in ")
}

func TestRecorder_PrintsEachPartOfARecord(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := spyOn(t, "Test", func(tb testing.TB) {
			reg := registrytest.New(tb, registry.Options{})
			a := add(tb, reg, provider{Name: "a"})
			add(tb, reg, provider{Name: "b"})
			record := registrytest.Record(tb, reg)
			asked(tb, reg)
			require.False(t, record.AssertAnsweredBy("x"))
			require.NoError(t, a.Unregister(t.Context()))
			record.Clear()
			asked(tb, reg)
			require.False(t, record.AssertAnsweredBy("x"))
		})
		require.Contains(t, s.text(), "answered by a")
		require.Contains(t, s.text(), "answered by b")
	})
}

func TestRecorder_CopiesReports(t *testing.T) {
	t.Parallel()
	reg := registrytest.New(t, registry.Options{})
	add(t, reg, provider{Name: "a"})
	record := registrytest.Record(t, reg)
	var report registry.CallReport
	_, err := ask(t.Context(), reg, registry.ReportTo(&report))
	require.NoError(t, err)
	report.Attempts[0].Provider = "changed"
	record.AssertAttempts("a")
}

func TestRecorder_RecordsAHedgedCallAfterItsLosers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		reg := registrytest.New(t, registry.Options{})
		add(t, reg, provider{Name: "slow", Instance: fake{registrytest.NewScript(registrytest.OK().After(time.Minute).Deaf()), "late"}})
		add(t, reg, provider{Name: "fast"})
		record := registrytest.Record(t, reg)
		answer, err := hedge.Call(t.Context(), chat.Bind(reg, registry.Query{}), hedge.Policy{}, func(ctx context.Context, m chatModel) (string, error) {
			return m.Chat(ctx, "?")
		})
		require.NoError(t, err)
		require.Equal(t, "fast", answer)
		require.Empty(t, record.Calls())
		time.Sleep(time.Hour)
		record.AssertAnsweredBy("fast")
		record.AssertAsked("slow", 1)
	})
}

func TestRecorder_FailedTestPrintsTheTrailAtItsEnd(t *testing.T) {
	t.Parallel()
	s := spyOn(t, "Test", func(tb testing.TB) {
		reg := registrytest.New(tb, registry.Options{})
		registrytest.Record(tb, reg)
		add(tb, reg, provider{Name: "a"})
		asked(tb, reg)
		tb.Errorf("something else")
	})
	require.Contains(t, s.text(), `call of "chat" answered by a`)
	s = spyOn(t, "Test", func(tb testing.TB) {
		registrytest.Record(tb, registrytest.New(tb, registry.Options{}))
	})
	require.Empty(t, s.text())
	s = spyOn(t, "Test", func(tb testing.TB) {
		registrytest.Record(tb, nil)
		panic("not reached")
	})
	require.Contains(t, s.text(), "registrytest: record:")
}
