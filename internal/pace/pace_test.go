package pace_test

import (
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/capreg/registry/internal/pace"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const second = time.Second

func TestPace_KnowsTheLongestAnswerOfLate(t *testing.T) {
	t.Parallel()
	var p pace.Pace
	require.Zero(t, p.Known(0))
	require.True(t, p.Answered(0))
	require.Equal(t, pace.Known{Longest: 1}, p.Known(0), "an answer at once is known, too")
	require.True(t, p.Answered(8*second))
	require.False(t, p.Answered(8*second-1))
	require.True(t, p.Answered(8*second), "none took longer")
	require.Equal(t, 8*second, p.Known(time.Minute-1).Longest)
	require.Equal(t, 8*second, p.Known(time.Minute).Longest)
	require.Equal(t, 8*second, p.Known(time.Hour).Longest, "without later answers it does not fade")
	p.Answered(second)
	require.Equal(t, 4*second, p.Known(time.Hour+time.Minute).Longest)
	p.Answered(second)
	require.Equal(t, 4*second, p.Known(time.Hour+2*time.Minute-1).Longest)
	require.Equal(t, 2*second, p.Known(time.Hour+2*time.Minute).Longest)
	p.Answered(second)
	require.Equal(t, second, p.Known(time.Hour+3*time.Minute).Longest)
	p.Answered(5 * second)
	require.Equal(t, 5*second, p.Known(time.Hour+3*time.Minute).Longest, "a longer one counts at once")
}

func TestPace_AnAnswerAtOnceBeginsToFadeAsWell(t *testing.T) {
	t.Parallel()
	var p pace.Pace
	p.Answered(0)
	require.Equal(t, time.Duration(1), p.Known(time.Minute).Longest)
	p.Answered(second)
	require.Equal(t, second, p.Known(time.Minute+second).Longest)
	require.False(t, p.Answered(1), "the longer one is of this minute")
}

func TestPace_KnowsTheLongestWaitUntilAnAnswer(t *testing.T) {
	t.Parallel()
	var p pace.Pace
	p.Unanswered(2 * second)
	p.Unanswered(second)
	require.Equal(t, pace.Known{Waited: 2 * second}, p.Known(0))
	p.EndWait()
	p.EndWait()
	require.Zero(t, p.Known(0))
	p.Unanswered(1)
	p.EndWait()
	require.Zero(t, p.Known(0), "however short it was")
}

func TestPace_IsSafeForConcurrentUse(t *testing.T) {
	t.Parallel()
	var p pace.Pace
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for n := range 1000 {
				p.Answered(time.Duration(i*1000 + n))
				p.Unanswered(time.Duration(i*1000 + n))
				_ = p.Known(time.Duration(n))
			}
		})
	}
	all.Wait()
	require.Equal(t, pace.Known{Longest: 7999, Waited: 7999}, p.Known(0))
}

func TestKnown_TellsWhatALackOfAnAnswerSays(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		known   pace.Known
		peers   time.Duration
		took    time.Duration
		telling bool
		far     bool
	}{
		{pace.Known{}, 0, 99 * time.Millisecond, false, false},
		{pace.Known{}, 0, 100 * time.Millisecond, true, false},
		{pace.Known{}, 0, time.Hour, true, false},
		{pace.Known{}, second, second, false, false},
		{pace.Known{}, second, second + 1, true, false},
		{pace.Known{Waited: 2 * second}, second, second / 2, true, false},
		{pace.Known{Longest: second}, 0, second, false, false},
		{pace.Known{Longest: second}, 0, second + 1, true, false},
		{pace.Known{Longest: second}, 0, 4 * second, true, true},
		{pace.Known{Longest: second, Waited: 2 * second}, 0, 100 * time.Millisecond, true, false},
		{pace.Known{Longest: second, Waited: 2 * second}, 0, 99 * time.Millisecond, false, false},
		{pace.Known{Longest: time.Millisecond}, 0, 3 * time.Millisecond, false, false},
		{pace.Known{Longest: time.Millisecond}, 0, 4 * time.Millisecond, true, false},
		{pace.Known{Longest: time.Millisecond}, 0, 100 * time.Millisecond, true, true},
		{pace.Known{Waited: 1}, second, second / 2, true, false},
		{pace.Known{Longest: 1}, 0, 3, false, false},
		{pace.Known{Longest: 1}, 0, 4, true, false},
		{pace.Known{Longest: 1}, 0, 100 * time.Millisecond, true, true},
		{pace.Known{Longest: second, Waited: 1}, 0, 100 * time.Millisecond, true, false},
	} {
		require.Equal(t, c.telling, c.known.Telling(c.took, pace.Known{Longest: c.peers}), "%+v %v", c.known, c.took)
		require.Equal(t, c.far, c.known.FarBeyond(c.took), "%+v %v", c.known, c.took)
	}
}

// The rows of the comment of Share, with 8 s left.
func TestShare_FollowsItsTable(t *testing.T) {
	t.Parallel()
	const ms = time.Millisecond
	answers := func(longest time.Duration) pace.Known { return pace.Known{Longest: longest} }
	hangs := func(waited time.Duration) pace.Known { return pace.Known{Waited: waited} }
	for _, c := range []struct {
		name       string
		own, other pace.Known
		proof      bool
		want       time.Duration
	}{
		{"both new", pace.Known{}, pace.Known{}, false, 6 * second},
		{"new, the other fast", pace.Known{}, answers(ms), false, 7 * second},
		{"new, the other slow", pace.Known{}, answers(6 * second), false, 6 * second},
		{"fast, the other new", answers(ms), pace.Known{}, false, 6 * second},
		{"slow, the other new", answers(6 * second), pace.Known{}, false, 7500 * ms},
		{"both slow", answers(6 * second), answers(6 * second), false, 7500 * ms},
		{"both very slow", answers(7 * second), answers(7 * second), false, 8 * second},
		{"both too slow", answers(9 * second), answers(9 * second), false, 8 * second},
		{"takes all the time, the other fast", answers(8 * second), answers(ms), false, 7 * second},
		{"fast, the other takes all the time", answers(ms), answers(8 * second), false, 8 * second},
		{"at once, the other slow", answers(1), answers(6 * second), false, 2 * second},
		{"new, the other at once", pace.Known{}, answers(1), false, 7 * second},
		{"too slow, the other fast", answers(9 * second), answers(ms), false, 7 * second},
		{"too slow, the other slow", answers(9 * second), answers(6 * second), false, 2 * second},
		{"fast, the other too slow", answers(ms), answers(9 * second), false, 8 * second},
		{"hangs, the other new", hangs(6 * second), pace.Known{}, false, 2 * second},
		{"hangs, the other fast", hangs(6 * second), answers(ms), false, 7 * second},
		{"hangs, the other slow", hangs(6 * second), answers(4 * second), false, 3 * second},
		{"hangs, the other very slow", hangs(6 * second), answers(7 * second), false, second},
		{"hangs, the other too slow", hangs(6 * second), answers(9 * second), false, 2 * second},
		{"hangs, the other less so", hangs(6 * second), hangs(2 * second), false, 2 * second},
		{"both hang", hangs(6 * second), hangs(6 * second), false, 8 * second},
		{"both hang, nearly as long", hangs(6100 * ms), hangs(6 * second), false, 8 * second},
		{"both hang, an eighth longer", hangs(9 * second), hangs(8 * second), false, 8 * second},
		{"both hang, more than an eighth longer", hangs(9*second + 1), hangs(8 * second), false, 2 * second},
		{"both have hung, for a moment", hangs(1), hangs(1), false, 8 * second},
		{"at once and has hung, the other has hung", pace.Known{Longest: 1, Waited: 1}, hangs(1), false, 6 * second},
		{"hangs, on trial", hangs(6 * second), answers(ms), true, 7 * second},
		{"slow and hangs", pace.Known{Longest: 6 * second, Waited: 7 * second}, answers(6 * second), false, second},
		{"slow and hangs, on trial", pace.Known{Longest: 6 * second, Waited: 7 * second}, answers(6 * second), true, 7500 * ms},
	} {
		require.Equal(t, c.want, pace.Share(8*second, c.own, c.other, c.proof), c.name)
	}
}

// Whatever is known, both have time, and never more than there is.
func TestShare_IsBounded(t *testing.T) {
	t.Parallel()
	values := []time.Duration{0, 1, time.Millisecond, second, 7 * second, 8 * second, 1 << 62}
	for _, left := range []time.Duration{0, 1, 7, second, 8 * second} {
		for _, a := range values {
			for _, b := range values {
				for i := range 8 {
					own, other := pace.Known{Longest: a}, pace.Known{Longest: b}
					if i&1 > 0 {
						own.Waited = second
					}
					if i&2 > 0 {
						other.Waited = 2 * second
					}
					share := pace.Share(left, own, other, i&4 > 0)
					require.LessOrEqual(t, share, left)
					require.GreaterOrEqual(t, share, left/pace.SmallestShare)
				}
			}
		}
	}
}

func TestPace_GoesOnFromWhatWasKnownBefore(t *testing.T) {
	t.Parallel()
	var p pace.Pace
	p.Continue(pace.Known{Longest: 8 * second, Waited: 9 * second}, time.Hour)
	require.Equal(t, pace.Known{Longest: 8 * second, Waited: 9 * second}, p.Known(time.Hour))
	require.Equal(t, 8*second, p.Known(2*time.Hour).Longest, "without answers it does not fade")
	p.Answered(second)
	require.Equal(t, 4*second, p.Known(2*time.Hour).Longest)
	p.Continue(pace.Known{Longest: time.Hour}, 2*time.Hour)
	require.Equal(t, 4*second, p.Known(2*time.Hour).Longest, "there is a wait")
	p.EndWait()
	p.Answered(second)
	p.Continue(pace.Known{Longest: time.Hour, Waited: time.Hour}, 2*time.Hour)
	require.Equal(t, pace.Known{Longest: 4 * second}, p.Known(2*time.Hour), "its own answers tell more")
}
