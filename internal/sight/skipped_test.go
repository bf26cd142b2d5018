package sight_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/internal/refusal"
	"github.com/capreg/registry/internal/sight"
	"github.com/capreg/registry/reason"
)

func TestSkipped_ListsWhatTurnedTheCallAwayThenWhatWasBlockedOrFull(t *testing.T) {
	t.Parallel()
	board := sight.NewBoard(6, func(i int) *sight.Record {
		if i < 2 {
			return down(i, now.Add(time.Minute))
		}
		return up(i)
	})
	refused := func(name string, why *refusal.Reason) (s sight.Seen) {
		s.Provider = name
		s.Refuse(why, 0)
		return s
	}
	s := &sight.Skipped{
		Sight: sight.Sight{At: now, View: board.View(0, nil)},
		Skips: []sight.Seen{refused("3", refusal.BudgetSpent()), refused("0", refusal.Full()), refused("3", refusal.Throttled()), refused("5", refusal.Full())},
		Full:  []string{"2", "5"}, Tried: []string{"5"},
	}
	list := func() (all []string) {
		for seen := range s.All() {
			all = append(all, seen.Provider+" "+string(seen.Code))
		}
		return all
	}
	want := []string{
		"0 " + string(reason.AtCapacity), "3 " + string(reason.Throttled), "1 " + string(reason.BreakerOpen), "2 " + string(reason.AtCapacity),
	}
	require.Equal(t, want, list())
	board.Set(1, up(1))
	board.View(0, nil)
	require.Equal(t, want, list(), "as it was at the end of the call")
	for range s.All() { // an iteration may end early
		break
	}
	for range (&sight.Skipped{}).All() {
		t.Fatal("there is none")
	}
}
