package meter_test

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/capreg/registry/internal/histogram"
	"github.com/capreg/registry/internal/meter"
	"github.com/capreg/registry/internal/record"
	"github.com/capreg/registry/metrics"
	"github.com/capreg/registry/reason"
	"github.com/capreg/registry/verdict"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// quick makes a quick call of a provider, as a registry does, that ends at now.
func quick(p *meter.Provider, took, now time.Duration) {
	cell := p.Cell()
	if cell == nil {
		cell = p.FirstCell()
	}
	cell.Attempts.Add(1)
	cell.QuickLatency.Add(uint64(took))
	if p.Due(now) {
		took = p.Turn(took, now)
	}
	cell.Quick[histogram.Index(took)].Add(1)
}

// slow makes an attempt that ends with the class.
func slow(p *meter.Provider, class verdict.Class, took, now time.Duration) {
	cell := p.Cell()
	if cell == nil {
		cell = p.FirstCell()
	}
	cell.Attempts.Add(1)
	p.Ended(class, took, now)
	if class == verdict.ClassSuccess {
		cell.Latency.Add(uint64(took))
		cell.Successes.Add(1)
	} else {
		cell.Failures.Add(1)
	}
}

func newPair(durations bool) (*meter.Service, *meter.Provider) {
	s, p := meter.NewService(), &meter.Provider{}
	p.Init(s, 0, durations)
	return s, p
}

// counts returns how many ended with each class.
func counts(all []metrics.Outcomes) map[verdict.Class]uint64 {
	counts := make(map[verdict.Class]uint64)
	for _, o := range all {
		counts[o.Class] = o.Duration.Count
	}
	return counts
}

func TestService_AQuickCallIsALookupACallAndAnAttempt(t *testing.T) {
	t.Parallel()
	s, p := newPair(true)
	quick(p, 3*time.Millisecond, time.Second)
	slow(p, verdict.ClassServerError, time.Second, 2*time.Second)
	slow(p, verdict.ClassSuccess, time.Second, 3*time.Second)
	s.Called(verdict.ClassSuccess, 2*time.Second, 2)
	s.Hit()
	s.Miss()
	s.MissFor(reason.BreakerOpen)

	read := s.Read("chat")
	require.Equal(t, "chat", read.Name)
	require.EqualValues(t, 2, read.Hits)
	require.EqualValues(t, 1, read.Misses)
	require.Equal(t, map[reason.Code]uint64{reason.BreakerOpen: 1}, read.MissesByReason)
	require.Equal(t, map[verdict.Class]uint64{verdict.ClassSuccess: 2}, counts(read.Calls))
	require.Equal(t, 2*time.Second+3*time.Millisecond, read.Calls[0].Duration.Sum)
	require.Equal(t, metrics.Amounts{Count: 2, Sum: 3, AtMost: []uint64{1, 2, 2, 2, 2}}, read.Attempts)

	var shown metrics.Provider
	p.Read(&shown, p.Totals().Attempts)
	require.Equal(t, map[verdict.Class]uint64{verdict.ClassSuccess: 2, verdict.ClassServerError: 1}, counts(shown.Attempts))
	require.EqualValues(t, 3, shown.Whys[reason.First])
	require.EqualValues(t, 2, p.Totals().Successes)
	require.Equal(t, (time.Second+3*time.Millisecond)/2, p.Totals().MeanLatency)
}

func TestService_KeepsTheQuickCallsOfProvidersThatHaveLeft(t *testing.T) {
	t.Parallel()
	s, p := newPair(true)
	quick(p, time.Millisecond, time.Second)
	p.Left()
	p.Left()
	hits, _ := s.Lookups()
	require.EqualValues(t, 1, hits)
	require.Equal(t, map[verdict.Class]uint64{verdict.ClassSuccess: 1}, counts(s.Read("").Calls))
	require.Equal(t, time.Millisecond, s.Read("").Calls[0].Duration.Sum)
}

func TestService_EveryClassHasAHistogramOfItsOwn(t *testing.T) {
	t.Parallel()
	s, _ := newPair(true)
	want := make(map[verdict.Class]uint64)
	for i, class := range verdict.Classes() {
		for range i + 1 {
			s.Called(class, time.Second, 1)
		}
		want[class] = uint64(i) + 1
	}
	require.Equal(t, want, counts(s.Read("").Calls))
	s.Called(verdict.Class(255), 0, 0)
	want[verdict.ClassUnknown]++
	require.Equal(t, want, counts(s.Read("").Calls), "no class counts as unknown")
}

func TestService_AttemptsAreCountedByBounds(t *testing.T) {
	t.Parallel()
	s, _ := newPair(true)
	for n := range 10 {
		s.Called(verdict.ClassCannot, 0, n)
	}
	require.Equal(t, metrics.Amounts{Count: 10, Sum: 45, AtMost: []uint64{2, 3, 4, 6, 9}}, s.Read("").Attempts)
	require.Len(t, metrics.AmountBounds(), 5)
}

func TestService_TimesSomeLookupsAndWaits(t *testing.T) {
	t.Parallel()
	s, _ := newPair(true)
	timed := 0
	for range 1 << 16 {
		if s.Hit() {
			timed++
			s.TimeLookup(100 * time.Nanosecond)
		}
	}
	require.Positive(t, timed)
	require.LessOrEqual(t, timed, 1<<6)
	read := s.Read("").LookupTime
	require.EqualValues(t, timed, read.Count)
	require.Equal(t, time.Duration(timed)*100, read.Sum)
	require.Len(t, read.Buckets, 1)
	require.Less(t, read.Buckets[0].Above, 100e-9)
	require.GreaterOrEqual(t, read.Buckets[0].AtMost, 100e-9)

	s.Waited(0)
	s.Waited(time.Second)
	require.EqualValues(t, 1, s.Read("").Waits.Count)
	require.Equal(t, time.Second, s.Read("").Waits.Sum)
}

func TestService_CallOfOneAttemptIsALookupToo(t *testing.T) {
	t.Parallel()
	s, _ := newPair(true)
	s.Single(verdict.ClassServerError, time.Second)
	read := s.Read("")
	require.EqualValues(t, 1, read.Hits)
	require.Equal(t, map[verdict.Class]uint64{verdict.ClassServerError: 1}, counts(read.Calls))
	require.Equal(t, metrics.Amounts{Count: 1, Sum: 1, AtMost: []uint64{1, 1, 1, 1, 1}}, read.Attempts)
}

func TestProvider_AnswersThatAreNotQuickAreMeasuredLikeOthers(t *testing.T) {
	t.Parallel()
	s, p := newPair(true)
	cell := p.FirstCell()
	cell.Attempts.Add(1)
	p.Answered(cell, time.Second, time.Hour)
	require.Equal(t, record.Totals{Attempts: 1, Successes: 1, MeanLatency: time.Second}, p.Totals())
	var shown metrics.Provider
	p.Read(&shown, 1)
	require.Equal(t, map[verdict.Class]uint64{verdict.ClassSuccess: 1}, counts(shown.Attempts))
	hits, _ := s.Lookups()
	require.Zero(t, hits, "its call is counted apart")
}

func TestForgotten_FollowsServicesThatAreStillBusy(t *testing.T) {
	t.Parallel()
	var f meter.Forgotten
	s, p := newPair(true)
	quick(p, time.Millisecond, time.Second)
	s.Miss()
	f.Add(s)
	quick(p, time.Millisecond, time.Second)
	for range 2 {
		hits, misses := f.Lookups()
		require.EqualValues(t, 2, hits)
		require.EqualValues(t, 1, misses)
		p.Left() // its service is a sum from now on
	}
	idle, _ := newPair(true)
	idle.Hit()
	f.Add(idle)
	hits, _ := f.Lookups()
	require.EqualValues(t, 3, hits)
}

func TestProvider_LastMinuteDropsWhatIsOlder(t *testing.T) {
	t.Parallel()
	_, p := newPair(true)
	require.Zero(t, p.LastMinute(time.Hour))
	now := time.Hour
	for range 120 { // one a second, every fourth a failure
		now += time.Second
		if now%(4*time.Second) == 0 {
			slow(p, verdict.ClassServerError, time.Second, now)
		} else {
			quick(p, 10*time.Millisecond, now)
		}
	}
	last := p.LastMinute(now)
	require.InDelta(t, 1, last.Rate, 0.1)
	require.InDelta(t, 0.25, last.Errors, 0.02)
	require.InDelta(t, 10e6, last.P50, 4e6)
	require.LessOrEqual(t, last.P99, 10*time.Millisecond)
	var ended, failed uint32
	for _, s := range last.Slices {
		require.InDelta(t, 10, s.Ended, 2)
		require.InDelta(t, 2.5, s.Failed, 1)
		ended, failed = ended+s.Ended, failed+s.Failed
	}
	require.InDelta(t, last.Errors, float64(failed)/float64(ended), 1e-9)
	require.Zero(t, p.LastMinute(now+time.Minute), "nothing has happened since")

	quick(p, time.Second, now+5*time.Minute)
	last = p.LastMinute(now + 5*time.Minute)
	require.InDelta(t, 1.0/60, last.Rate, 0.001, "one in the whole minute")
	require.Zero(t, last.Errors)
	require.InDelta(t, 1e9, last.P50, 3e8)
	require.Equal(t, [6]metrics.Slice{5: {Ended: 1}}, last.Slices)
	require.Equal(t, [6]metrics.Slice{2: {Ended: 1}}, p.LastMinute(now+5*time.Minute+35*time.Second).Slices, "it moves on")
}

func TestProvider_LastMinuteOfAGapIsNoRateOfASecond(t *testing.T) {
	t.Parallel()
	_, p := newPair(true)
	quick(p, time.Millisecond, 100*time.Second)
	quick(p, time.Millisecond, 164*time.Second)
	require.InDelta(t, 1.0/59, p.LastMinute(169*time.Second).Rate, 1e-9, "the slice before ended 59 seconds ago")
}

func TestProvider_LastMinuteHasAllThatEnded(t *testing.T) {
	t.Parallel()
	_, p := newPair(true)
	cell := p.FirstCell()
	for i, ended := range []struct {
		class verdict.Class
		count *atomic.Uint64
	}{
		{verdict.ClassSuccess, &cell.Successes},
		{verdict.ClassSlow, &cell.Successes},
		{verdict.ClassServerError, &cell.Failures},
		{verdict.ClassRateLimited, &cell.Limited},
		{verdict.ClassCancelled, &cell.Ignored},
	} {
		cell.Attempts.Add(1)
		p.Ended(ended.class, time.Duration(i+1)*time.Second, time.Hour)
		ended.count.Add(1)
	}
	last := p.LastMinute(time.Hour)
	require.InDelta(t, 5.0/60, last.Rate, 1e-9)
	require.InDelta(t, 1.0/5, last.Errors, 1e-9)
	require.InDelta(t, time.Second, last.P50, 3e8, "of the answers, the longer of which was slow")
	require.InDelta(t, 2*time.Second, last.P99, 6e8)
	require.Equal(t, [6]metrics.Slice{5: {Ended: 5, Failed: 1}}, last.Slices)
}

func TestProvider_LastMinuteOfNothingIsEmpty(t *testing.T) {
	t.Parallel()
	_, p := newPair(true)
	p.Turn(time.Second, time.Hour) // an attempt that is about to be counted
	require.Zero(t, p.LastMinute(time.Hour))
	_, p = newPair(true)
	quick(p, 0, 0)
	require.Zero(t, p.LastMinute(0), "it has just joined")
}

func TestProvider_LastMinuteOfANewOneIsShorter(t *testing.T) {
	t.Parallel()
	s := meter.NewService()
	var p meter.Provider
	p.Init(s, time.Hour, true)
	for i := range 20 {
		quick(&p, time.Millisecond, time.Hour+time.Duration(i)*time.Second)
	}
	require.InDelta(t, 1, p.LastMinute(time.Hour+20*time.Second).Rate, 0.01)
}

func TestProvider_WithoutDurationsOnlyCountsAreKept(t *testing.T) {
	t.Parallel()
	s, p := newPair(false)
	quick(p, time.Minute, time.Hour)
	slow(p, verdict.ClassServerError, time.Minute, time.Hour)
	var shown metrics.Provider
	p.Read(&shown, p.Totals().Attempts)
	require.Equal(t, map[verdict.Class]uint64{verdict.ClassSuccess: 1, verdict.ClassServerError: 1}, counts(shown.Attempts))
	for _, ended := range shown.Attempts {
		require.Zero(t, ended.Duration.Quantile(1).Truncate(100*time.Microsecond), "%v", ended.Class)
	}
	require.Zero(t, p.LastMinute(time.Hour))
	hits, _ := s.Lookups()
	require.EqualValues(t, 1, hits)
	require.Equal(t, time.Minute, p.Totals().MeanLatency, "it is a sum, and no distribution")
}

func TestProvider_CountsWhatAttemptsAreForAndRefusals(t *testing.T) {
	t.Parallel()
	_, p := newPair(true)
	for i, why := range reason.Whys() {
		for range i + 1 {
			quick(p, 0, 0)
			p.Entered(why)
		}
	}
	p.Refused(reason.Throttled)
	var shown metrics.Provider
	p.Read(&shown, p.Totals().Attempts)
	for i, why := range reason.Whys() {
		require.EqualValues(t, i+1, shown.Whys[why], why)
	}
	require.EqualValues(t, 2, p.Attempted(reason.Whys()[1]))
	require.Equal(t, map[reason.Code]uint64{reason.Throttled: 1}, shown.Refusals)
}

func TestMeter_ConcurrentCallsAreAllCounted(t *testing.T) {
	t.Parallel()
	s, p := newPair(true)
	const workers, each = 8, 2000
	var working sync.WaitGroup
	done := make(chan struct{})
	var last uint64
	working.Go(func() {
		for {
			hits, _ := s.Lookups()
			if hits < last {
				panic("a counter has fallen")
			}
			last = hits
			select {
			case <-done:
				return
			default:
			}
		}
	})
	var calling sync.WaitGroup
	for range workers {
		calling.Go(func() {
			for i := range each {
				now := time.Duration(i) * 100 * time.Millisecond
				quick(p, time.Duration(i)*time.Microsecond, now)
				slow(p, verdict.ClassOverloaded, time.Millisecond, now)
				p.LastMinute(now)
			}
		})
	}
	calling.Wait()
	close(done)
	working.Wait()
	p.Left()
	hits, _ := s.Lookups()
	require.EqualValues(t, workers*each, hits)
	require.EqualValues(t, 2*workers*each, p.Totals().Attempts)
	require.Zero(t, p.Totals().InFlight)
}
