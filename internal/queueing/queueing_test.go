package queueing_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/capreg/registry/internal/queueing"
	"github.com/capreg/registry/internal/slots"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// provider has places, and says of itself what a registry knows.
type provider struct {
	places     *slots.Slots
	maxWait    time.Duration
	blocked    bool
	superseded bool
	returnsIn  time.Duration
	cools      bool
}

type answers struct{}

func (answers) Admits(p *provider) bool                              { return !p.blocked }
func (answers) Superseded(p *provider) bool                          { return p.superseded }
func (answers) Places(p *provider) (*slots.Slots, time.Duration)     { return p.places, p.maxWait }
func (answers) ReturnsIn(p *provider) (in time.Duration, cools bool) { return p.returnsIn, p.cools }

// full returns a provider whose one place is taken, with a queue for one call and a wait of a minute.
func full(t *testing.T) *provider {
	t.Helper()
	p := &provider{places: slots.New(1, 1), maxWait: time.Minute}
	require.True(t, p.places.TryAcquire())
	return p
}

// queued returns the positions of a call at the providers.
func queued(t *testing.T, providers ...*provider) *queueing.Queues[*provider] {
	t.Helper()
	q := queueing.New[*provider](answers{}, "caller")
	t.Cleanup(q.End)
	q.Join(providers, all)
	return &q
}

func all(*provider) bool { return true }

// await waits for at most limit, and returns the queue that gave a place; -1: none.
func await(t *testing.T, q *queueing.Queues[*provider], limit time.Duration) int {
	t.Helper()
	at, _ := q.Await(t.Context(), limit, nil)
	return at
}

func bubble(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, test)
}

func TestQueues_TheFirstFreePlaceEndsTheWait(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a, b := full(t), full(t)
		q := queued(t, a, b)
		require.Equal(t, time.Minute, q.LeaveHopeless(0, queueing.Patience{}))
		time.AfterFunc(time.Second, b.places.Release)
		require.Equal(t, 1, await(t, q, time.Minute))
		places, first, ok := q.Granted(1, all)
		require.True(t, ok)
		require.Same(t, b, first)
		require.Same(t, b.places, places)
		b.places.Release()
		a.places.Release()
	})
}

func TestQueues_AWaitEndsAtItsLimitOrWithAChange(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q := queued(t, full(t))
		began := time.Now()
		at, woken := q.Await(t.Context(), time.Second, nil)
		require.Equal(t, -1, at)
		require.False(t, woken)
		require.Equal(t, time.Second, time.Since(began))

		changed := make(chan struct{})
		close(changed)
		_, woken = q.Await(t.Context(), time.Second, changed)
		require.True(t, woken)

		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		at, woken = q.Await(ctx, time.Second, nil)
		require.Equal(t, -1, at)
		require.False(t, woken)
	})
}

func TestJoin_LinesUpOnlyWhereThereIsSomethingToWaitFor(t *testing.T) {
	bubble(t, func(t *testing.T) {
		blocked, unwanted, crowded := full(t), full(t), full(t)
		blocked.blocked = true
		queued(t, crowded) // takes the only position
		q := queueing.New[*provider](answers{}, "caller")
		defer q.End()
		q.Join([]*provider{blocked, unwanted, crowded, {}}, func(p *provider) bool { return p != unwanted })
		require.Zero(t, q.LeaveHopeless(0, queueing.Patience{}))
	})
}

func TestJoin_PassesByThoseItCannotWaitFor(t *testing.T) {
	bubble(t, func(t *testing.T) {
		blocked, unwanted, open := full(t), full(t), full(t)
		blocked.blocked = true
		q := queueing.New[*provider](answers{}, "caller")
		q.Join([]*provider{blocked, unwanted, {}, open}, func(p *provider) bool { return p != unwanted })
		require.Equal(t, time.Minute, q.LeaveHopeless(0, queueing.Patience{}))
		require.Equal(t, 1, open.places.Waiting())
		q.End()
		require.Zero(t, open.places.Waiting())
	})
}

func TestLeaveHopeless_ReturnsTheShortestWait(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a, b, c := full(t), full(t), full(t)
		a.maxWait, b.maxWait = 2*time.Minute, time.Second
		require.Equal(t, time.Second, queued(t, a, b, c).LeaveHopeless(0, queueing.Patience{}))
	})
}

func TestJoin_ProvidersOfOneDomainShareAQueue(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a := full(t)
		b := &provider{places: a.places, maxWait: a.maxWait}
		q := queued(t, a, b)
		q.Join([]*provider{a, b}, all) // again
		a.places.Release()
		require.Zero(t, await(t, q, time.Minute))
		_, first, _ := q.Granted(0, func(p *provider) bool { return p != a })
		require.Same(t, b, first)
		a.places.Release()
	})
}

func TestGranted_PassesByThoseThatTurnedTheCallAway(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a := full(t)
		b := &provider{places: a.places, maxWait: a.maxWait}
		q := queued(t, a, b)
		a.places.Release()
		require.Zero(t, await(t, q, time.Minute))
		q.Refused(0, a)
		a.places.Release()
		q.Resume(0)
		require.Zero(t, await(t, q, time.Minute), "it goes on at its position")
		_, first, ok := q.Granted(0, all)
		require.True(t, ok)
		require.Same(t, b, first)

		q.Refused(0, b)
		_, _, ok = q.Granted(0, all)
		require.False(t, ok)
		require.Zero(t, q.LeaveHopeless(0, queueing.Patience{}), "no provider is left")
		a.places.Release()
	})
}

func TestRefused_OneThatTurnedTheCallAwayGrantsNoPlaceOfItsDomain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a := full(t)
		b := &provider{places: a.places, maxWait: a.maxWait}
		q := queued(t, a, b)
		a.places.Release()
		require.Zero(t, await(t, q, time.Minute))
		q.Refused(0, a)
		b.blocked = true
		a.places.Release()
		q.Resume(0)
		require.Equal(t, -1, await(t, q, time.Second), "nothing admits the call")
		b.blocked = false
		require.Zero(t, await(t, q, time.Second), "it has kept its turn")
		b.places.Release()
	})
}

func TestLeaveHopeless_EndsAWaitThatWasTooLong(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a, b := full(t), full(t)
		b.maxWait = time.Second
		q := queued(t, a, b)
		require.Equal(t, time.Second, q.LeaveHopeless(0, queueing.Patience{}))
		require.Equal(t, 59*time.Second, q.LeaveHopeless(time.Second, queueing.Patience{}), "the other queue has more time")
		require.Zero(t, q.LeaveHopeless(time.Minute, queueing.Patience{}))
		a.places.Release()
		require.Equal(t, -1, await(t, q, time.Second), "it was left")
	})
}

// A call whose turn comes while the provider is blocked keeps it only as long as there is another queue, or a return
// in time.
func TestLeaveHopeless_ATurnInVainIsKeptOnlyWhileThereIsHope(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a, b := full(t), full(t)
		q := queued(t, a, b)
		a.blocked = true
		a.returnsIn = 30 * time.Second
		a.places.Release()
		_, woken := q.Await(t.Context(), time.Second, nil)
		require.True(t, woken, "its turn came in vain")
		require.Positive(t, q.LeaveHopeless(0, queueing.Patience{}), "it waits for the other place")
		b.superseded = true
		require.Zero(t, q.LeaveHopeless(0, queueing.Patience{}))
		require.Equal(t, time.Minute, q.LeaveHopeless(0, queueing.Patience{ForReturn: true}))
		require.Positive(t, q.LeaveHopeless(30*time.Second, queueing.Patience{ForReturn: true}), "just in time")
		require.Zero(t, q.LeaveHopeless(30*time.Second+1, queueing.Patience{ForReturn: true}), "it returns too late")
		bounded := queueing.Patience{ForReturn: true, Bounded: true, Deadline: time.Now().Add(30*time.Second + 1)}
		require.Positive(t, q.LeaveHopeless(0, bounded))
		bounded.Deadline = time.Now().Add(30 * time.Second)
		require.Zero(t, q.LeaveHopeless(0, bounded), "the caller has no time for that")

		a.blocked = false
		require.Zero(t, await(t, q, time.Second), "it has kept its turn")
	})
}

// Variants: the other provider of the places is blocked for good, comes back in time, or admits calls.
func TestLeaveHopeless_AProviderThatHasLeftGrantsNoPlaceOfItsDomain(t *testing.T) {
	for name, patience := range map[string]queueing.Patience{"in vain": {}, "cooling": {ForReturn: true}} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				a := full(t)
				b := &provider{places: a.places, maxWait: a.maxWait, cools: true, returnsIn: time.Second}
				q := queued(t, a, b)
				a.superseded, b.blocked = true, true
				q.LeaveHopeless(0, patience)
				a.places.Release()
				at, _ := q.Await(t.Context(), time.Second, nil)
				require.Equal(t, -1, at, "nothing admits the call")
				b.blocked = false
				require.Zero(t, await(t, q, time.Second), "it has kept its turn")
				_, first, ok := q.Granted(0, all)
				require.True(t, ok)
				require.Same(t, b, first)
				b.places.Release()
			})
		})
	}
}

func TestLeaveHopeless_ACooldownDoesNotCountAsTimeInTheQueue(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a := full(t)
		q := queued(t, a)
		patience := queueing.Patience{ForReturn: true, Bounded: true, Deadline: time.Now().Add(time.Hour)}
		a.blocked, a.cools, a.returnsIn = true, true, 10*time.Minute
		require.Equal(t, time.Minute, q.LeaveHopeless(0, patience))
		require.Equal(t, time.Minute, q.LeaveHopeless(10*time.Minute, patience), "the time stood still")
		a.blocked = false
		require.Equal(t, time.Minute, q.LeaveHopeless(10*time.Minute, patience))
		require.Equal(t, 30*time.Second, q.LeaveHopeless(10*time.Minute+30*time.Second, patience))
	})
	bubble(t, func(t *testing.T) {
		a := full(t)
		a.maxWait = time.Millisecond
		q := queued(t, a)
		a.blocked, a.cools, a.returnsIn = true, true, -time.Second // over by now
		require.Equal(t, time.Second, q.LeaveHopeless(0, queueing.Patience{ForReturn: true}), "it looks again soon")
		require.Equal(t, time.Millisecond, q.LeaveHopeless(time.Minute, queueing.Patience{}), "its time runs again")
		require.Zero(t, q.LeaveHopeless(2*time.Minute, queueing.Patience{}))
	})
}

func TestLeaveHopeless_EndsForACallThatHadToMakeRoom(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a := &provider{places: slots.New(1, 2), maxWait: time.Minute}
		require.True(t, a.places.TryAcquire())
		first, second := queued(t, a), queued(t, a) // of one caller
		other := slots.NewWait("other")
		defer other.End()
		require.True(t, other.Join(a.places, 0, nil))
		_, woken := second.Await(t.Context(), time.Second, nil)
		require.True(t, woken)
		require.Zero(t, second.LeaveHopeless(0, queueing.Patience{}))
		require.Positive(t, first.LeaveHopeless(0, queueing.Patience{}))
	})
}

func TestFollow_MovesWithTheQueueToTheSuccessor(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a, successor, unwanted, elsewhere := full(t), full(t), full(t), full(t)
		unwanted.places = successor.places
		q := queued(t, a)
		candidates := []*provider{elsewhere, unwanted, successor}
		wants := func(p *provider) bool { return p != unwanted }
		require.Empty(t, q.Follow(candidates, wants), "nothing has moved")

		a.superseded = true
		a.places.MoveQueue(successor.places)
		require.Equal(t, []*provider{successor}, q.Follow(candidates, wants))
		require.Positive(t, q.LeaveHopeless(0, queueing.Patience{}))
		q.Join([]*provider{successor}, all) // it queues there already
		successor.places.Release()
		require.Zero(t, await(t, q, time.Second))
		_, first, ok := q.Granted(0, all)
		require.True(t, ok)
		require.Same(t, successor, first)
		successor.places.Release()
	})
}

func TestFollow_LeavesAQueueWithoutSuccessor(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a := full(t)
		q := queued(t, a)
		a.superseded = true
		require.Empty(t, q.Follow(nil, all))
		require.Zero(t, q.LeaveHopeless(0, queueing.Patience{}))
		require.Empty(t, q.FollowOne(0, []*provider{a}, all), "it was left for good")
	})
}

func TestFollow_FindsTheSuccessorInAQueueThatHasNotMoved(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a := full(t)
		successor := &provider{places: a.places, maxWait: a.maxWait}
		q := queued(t, a)
		require.Empty(t, q.Follow([]*provider{successor}, all), "nothing has changed")
		a.superseded = true
		require.Equal(t, []*provider{successor}, q.Follow([]*provider{successor}, all))
		require.Empty(t, q.Follow([]*provider{successor}, all), "it is followed")
		require.Equal(t, time.Minute, q.LeaveHopeless(0, queueing.Patience{}))
	})
}

func TestFollow_TakesAQueueThatHasMovedFromAProviderThatStays(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a, other := full(t), full(t)
		q := queued(t, a)
		a.places.MoveQueue(other.places)
		require.Equal(t, []*provider{other}, q.Follow([]*provider{a, other}, all))
	})
}

func TestFollow_ASuccessorIsAskedLikeOneThatWasJoined(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a, successor := full(t), full(t)
		q := queued(t, a)
		a.superseded = true
		a.places.MoveQueue(successor.places)
		require.Len(t, q.Follow([]*provider{successor}, all), 1)
		successor.blocked = true
		successor.places.Release()
		require.Equal(t, -1, await(t, q, time.Second), "it does not admit the call")
		successor.blocked = false
		require.Zero(t, await(t, q, time.Second))
		q.Refused(0, successor)
		successor.places.Release()
		q.Resume(0)
		q.Join([]*provider{successor}, all)
		require.Zero(t, q.LeaveHopeless(0, queueing.Patience{}), "it has turned the call away for good")
	})
}

func TestQueues_ProviderThatRefusedIsNoSuccessorOfItself(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a := full(t)
		q := queued(t, a)
		require.Equal(t, time.Minute, q.LeaveHopeless(0, queueing.Patience{}))
		a.places.Release()
		require.Zero(t, await(t, q, time.Minute))
		q.Refused(0, a)
		a.places.Release()
		q.Resume(0)
		require.Empty(t, q.Follow([]*provider{a}, all))
		require.Zero(t, q.LeaveHopeless(0, queueing.Patience{}), "nothing is left to wait for")
	})
}
