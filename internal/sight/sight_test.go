package sight_test

import (
	"errors"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/internal/breaker"
	"github.com/capreg/registry/internal/choice"
	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/query"
	"github.com/capreg/registry/internal/refusal"
	"github.com/capreg/registry/internal/sight"
	"github.com/capreg/registry/reason"
	"github.com/capreg/registry/selection"
	"github.com/capreg/registry/verdict"
)

var (
	now     = time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)
	errSick = errors.New("sick")
)

// down returns the record of a provider with an open breaker, until that time.
func down(i int, until time.Time) *sight.Record {
	opening := refusal.NewOpening("slow", until)
	standing := refusal.Standing{}
	standing.Code, standing.Words, _, standing.Err = opening.Refusal(until)
	return &sight.Record{
		Who: sight.Who{Provider: strconv.Itoa(i)}, Gate: refusal.Open, Until: until, Last: &atomic.Pointer[verdict.LastError]{},
		Standing: standing, Profile: choice.Profile{Capabilities: []string{"chat"}},
	}
}

func up(i int) *sight.Record {
	r := down(i, time.Time{})
	r.Gate, r.Standing = 0, refusal.Of(0, nil, now)
	return r
}

func sick(i int, words string) *sight.Record {
	r := down(i, time.Time{})
	r.Gate, r.Depends = refusal.Unhealthy, true
	r.Standing = refusal.Standing{Code: reason.Unhealthy, Words: words, Err: errSick}
	return r
}

// places says which candidates have none free; none of them is throttled or slow.
type places struct {
	full  map[int]bool
	asked int
}

func (p *places) Full(i int) bool                                              { p.asked++; return p.full[i] }
func (*places) ThrottledFor(int, string) time.Duration                         { return 0 }
func (*places) Bounded() bool                                                  { return false }
func (*places) TooSlow(int) (latency, bound, retryIn time.Duration, slow bool) { return 0, 0, 0, false }

func TestSight_IsOfItsMomentWhateverChangesLater(t *testing.T) {
	const size = 200
	board := sight.NewBoard(size, func(i int) *sight.Record { return down(i, now.Add(time.Duration(i+1)*time.Second)) })
	of := &places{}
	before := sight.Sight{At: now, View: board.View(0, nil)}
	before.Note(of, nil, nil)
	require.Same(t, before.View, board.View(0, nil), "shared until a change")
	board.Set(0, sick(0, "unhealthy: probe failed"))
	board.Set(130, up(130))
	require.Nil(t, board.Latest(0))
	of.full = map[int]bool{130: true}
	after := sight.Sight{At: now, View: board.View(0, func(i int) *sight.Record { return sick(i, "unhealthy: probe failed") })}
	after.Note(of, nil, nil)

	require.Equal(t, []reason.Code{reason.BreakerOpen}, before.Codes)
	require.Equal(t, time.Second, before.RetryIn)
	require.True(t, before.Means(fault.ErrBreakerOpen))
	require.False(t, before.Means(fault.ErrUnhealthy))
	require.Equal(t, []reason.Code{reason.Unhealthy, reason.BreakerOpen, reason.AtCapacity}, after.Codes)
	require.Equal(t, 2*time.Second, after.RetryIn)
	require.LessOrEqual(t, of.asked, 2, "only the eligible candidate is looked at")
	codes := func(o *sight.Sight) map[reason.Code]int {
		count := map[reason.Code]int{}
		for seen := range o.All() {
			count[seen.Code]++
		}
		return count
	}
	require.Equal(t, map[reason.Code]int{reason.BreakerOpen: size}, codes(&before))
	require.Equal(t, map[reason.Code]int{reason.BreakerOpen: size - 2, reason.Unhealthy: 1, reason.AtCapacity: 1}, codes(&after))
	require.Equal(t, size-1, after.LenWithout(func(name string) bool { return name == "7" }))
}

func TestSight_LastErrorIsNotOfALaterMoment(t *testing.T) {
	r := down(0, now)
	o := sight.Sight{At: now, View: sight.NewBoard(1, func(int) *sight.Record { return r }).View(0, nil)}
	last := func() (found *verdict.LastError) {
		for seen := range o.All() {
			found = seen.LastError
		}
		return found
	}
	r.Last.Store(&verdict.LastError{Text: "then", Time: now})
	require.Equal(t, "then", last().Text)
	r.Last.Store(&verdict.LastError{Text: "later", Time: now.Add(1)})
	require.Nil(t, last())
}

func TestSight_TellsWhatTheQueryDoesNotAccept(t *testing.T) {
	board := sight.NewBoard(3, func(i int) *sight.Record { return down(i, now) })
	q := &query.Query{Require: []string{"vision"}}
	o := sight.Sight{At: now, View: sight.NewBoard(0, nil).View(0, nil), Others: sight.NewUnwanted(q, board.View(0, nil))}
	o.Note(&places{}, nil, nil)
	require.Equal(t, []reason.Code{reason.CapabilityMissing}, o.Codes)
	require.Equal(t, 3, o.Len())
	for seen := range o.All() {
		require.Equal(t, reason.CapabilityMissing, seen.Code)
	}
}

func TestBoard_RenewsRecordsThatDependOnOthersOnceForEachChange(t *testing.T) {
	board := sight.NewBoard(100, func(i int) *sight.Record { return sick(i, "because db") })
	renewed := 0
	record := func(i int) *sight.Record { renewed++; return sick(i, "because disk") }
	first := board.View(1, record)
	require.Equal(t, 100, renewed)
	require.Same(t, first, board.View(1, record))
	board.Set(3, down(3, now)) // the view is gone, and what the others say stays
	board.View(1, record)
	require.Equal(t, 100, renewed)
	require.Nil(t, board.Latest(2))
	board.View(2, record)
	require.Equal(t, 199, renewed)
}

func TestBoard_RenewsARecordInItsPlace(t *testing.T) {
	t.Parallel()
	board := sight.NewBoard(300, func(i int) *sight.Record {
		if i < 100 { // others of the first providers are not the reason
			return down(i, now)
		}
		return sick(i, "because db")
	})
	view := board.View(1, func(i int) *sight.Record { return sick(i, "because disk") })
	for i := range 300 {
		require.Equal(t, strconv.Itoa(i), view.At(i).Provider)
		require.Equal(t, i >= 100, view.At(i).Words == "because disk", "%d", i)
	}
}

func TestUnwanted_OfALaterViewSaysWhatIsKnownThen(t *testing.T) {
	t.Parallel()
	r := down(0, now)
	board := sight.NewBoard(1, func(int) *sight.Record { return r })
	before := sight.NewUnwanted(&query.Query{Require: []string{"vision"}}, board.View(0, nil))
	opened := *r
	opened.Breaker = breaker.Open
	board.Set(0, &opened)
	o := sight.Sight{At: now, View: sight.NewBoard(0, nil).View(0, nil), Others: before.At(board.View(0, nil))}
	for seen := range o.All() {
		require.Equal(t, breaker.Open, seen.Breaker)
	}
	o.Others = before
	for seen := range o.All() {
		require.Equal(t, breaker.Closed, seen.Breaker, "it never changes")
	}
}

func TestRecord_MismatchIsTheFirstThingThatTheQueryMisses(t *testing.T) {
	t.Parallel()
	r := &sight.Record{Profile: choice.Profile{Name: "a", Capabilities: []string{"chat", "vision"}, Cost: 3}}
	r.NoteOutages(func(capabilities []string) *refusal.Reason {
		if capabilities[0] == "vision" {
			return refusal.CapabilityOut("vision", "no answer", nil)
		}
		return nil
	})
	cheap := selection.Requirements{MaxCost: 1}
	for name, row := range map[string]struct {
		query query.Query
		want  reason.Code
	}{
		"nothing":                    {query.Query{}, ""},
		"what it has":                {query.Query{Require: []string{"chat"}, Only: []string{"b", "a"}, Where: selection.Requirements{MaxCost: 3}}, ""},
		"no such capability":         {query.Query{Require: []string{"chat", "speech"}}, reason.CapabilityMissing},
		"a capability that is out":   {query.Query{Require: []string{"chat", "vision"}}, reason.CapabilityOut},
		"another name":               {query.Query{Only: []string{"b"}}, reason.Excluded},
		"a lower cost":               {query.Query{Where: cheap}, reason.TooExpensive},
		"a capability and a name":    {query.Query{Require: []string{"speech"}, Only: []string{"b"}}, reason.CapabilityMissing},
		"a name and a cost":          {query.Query{Only: []string{"b"}, Where: cheap}, reason.Excluded},
		"a cost and one that is out": {query.Query{Require: []string{"vision"}, Where: cheap}, reason.TooExpensive},
	} {
		require.Equal(t, row.want, codeOf(r.Mismatch(&row.query)), name)
	}
	r.MatchesAny = true
	require.Nil(t, r.Mismatch(&query.Query{Require: []string{"speech"}, Only: []string{"b"}, Where: cheap}), "it stands in for all")
	require.Equal(t, reason.CapabilityOut, codeOf(r.Mismatch(&query.Query{Require: []string{"vision"}})), "what is out is out")
}

// codeOf returns the code of a reason; "" for none.
func codeOf(r *refusal.Reason) reason.Code {
	if r == nil {
		return ""
	}
	return r.Code()
}

func TestSight_RefusalWhoseTimeIsOverIsWorthARetryNow(t *testing.T) {
	t.Parallel()
	board := sight.NewBoard(1, func(i int) *sight.Record { return down(i, now.Add(-time.Second)) })
	o := sight.Sight{At: now, View: board.View(0, nil)}
	o.Note(&places{}, nil, nil)
	require.Zero(t, o.RetryIn)
	for seen := range o.All() {
		require.Zero(t, seen.RetryIn)
	}
}

func TestSight_ChangesAndReadersDoNotMeet(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	board := sight.NewBoard(300, func(i int) *sight.Record { return down(i, now) })
	var running sync.WaitGroup
	for range 4 {
		running.Go(func() {
			for i := range 300 {
				mu.Lock()
				board.Set(i, sick(i, "x"))
				o := sight.Sight{At: now, View: board.View(0, func(i int) *sight.Record { return sick(i, "y") })}
				mu.Unlock()
				o.Note(&places{}, nil, nil)
				for seen := range o.All() {
					require.Contains(t, []reason.Code{reason.BreakerOpen, reason.Unhealthy}, seen.Code)
				}
			}
		})
	}
	running.Wait()
}

func TestSight_RefusalAllocatesNothingForEachCandidate(t *testing.T) {
	board := sight.NewBoard(10_000, func(i int) *sight.Record { return down(i, now) })
	of := &places{}
	require.LessOrEqual(t, testing.AllocsPerRun(100, func() {
		o := sight.Sight{At: now, View: board.View(0, nil)}
		o.Note(of, nil, nil)
		if !o.Means(fault.ErrBreakerOpen) {
			t.Error(errors.ErrUnsupported)
		}
	}), 1.0)
}

func TestRecord_KeepsTheEndAndTheOutages(t *testing.T) {
	t.Parallel()
	at := time.Now()
	r := &sight.Record{Profile: choice.Profile{Capabilities: []string{"x", "y"}}}
	r.Fix(at)
	require.Zero(t, r.Until)
	r.RetryIn = time.Minute
	r.Fix(at)
	require.Equal(t, at.Add(time.Minute), r.Until)
	require.Zero(t, r.RetryIn)
	r.NoteOutages(func([]string) *refusal.Reason { return nil })
	require.Nil(t, r.Outages)
	out := refusal.Full()
	r.NoteOutages(func(capabilities []string) *refusal.Reason {
		return map[string]*refusal.Reason{"y": out}[capabilities[0]]
	})
	require.Equal(t, map[string]*refusal.Reason{"y": out}, r.Outages)
	r.NoteOutages(func([]string) *refusal.Reason { return out })
	require.Equal(t, map[string]*refusal.Reason{"x": out, "y": out}, r.Outages)
}
