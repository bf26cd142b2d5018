package sight_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/internal/choice"
	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/query"
	"github.com/capreg/registry/internal/refusal"
	"github.com/capreg/registry/internal/sight"
	"github.com/capreg/registry/reason"
	"github.com/capreg/registry/verdict"
)

// drawn are candidates with random places, rates and latencies.
type drawn struct {
	full, slow []bool
	throttled  []time.Duration
	bounded    bool
}

func (d *drawn) Full(i int) bool                            { return d.full[i] }
func (d *drawn) ThrottledFor(i int, _ string) time.Duration { return d.throttled[i] }
func (d *drawn) Bounded() bool                              { return d.bounded }
func (d *drawn) TooSlow(i int) (latency, bound, retryIn time.Duration, slow bool) {
	return time.Second, time.Millisecond, 3 * time.Second, d.slow[i]
}

// drawRecord returns a record with a random standing, and sometimes without the capability "chat" or with that out.
func drawRecord(random *rand.Rand, i int) *sight.Record {
	r := &sight.Record{
		Who: sight.Who{Provider: fmt.Sprint("p", i)}, Last: &atomic.Pointer[verdict.LastError]{},
		Profile: choice.Profile{Name: fmt.Sprint("p", i), Capabilities: []string{"chat"}, Cost: random.Float64()},
	}
	switch random.IntN(5) {
	case 0:
		r.Gate, r.Standing = refusal.Unhealthy, refusal.Standing{Code: reason.Unhealthy, Words: "ill", Err: fault.ErrUnhealthy}
	case 1:
		r.Gate, r.Standing = refusal.Cooling, refusal.Standing{Code: reason.Parked, Words: "parked", Err: fault.ErrCredentials}
		r.Until = now.Add(time.Duration(1+random.IntN(9)) * time.Second)
	case 2:
		r.Gate, r.Standing = refusal.HalfOpen, refusal.Of(refusal.HalfOpen, nil, now)
	default:
		r.Standing = refusal.Of(0, nil, now)
	}
	switch random.IntN(6) {
	case 0:
		r.Profile.Capabilities = nil
	case 1:
		r.Outages = map[string]*refusal.Reason{"chat": refusal.CapabilityOut("chat", "no answer", nil)}
	case 2:
		r.MatchesAny = true
	}
	return r
}

// requireConsistent compares what a sight says at once with what its list says.
func requireConsistent(t *testing.T, o *sight.Sight) {
	t.Helper()
	var all []sight.Seen
	for seen := range o.All() {
		all = append(all, *seen)
	}
	require.Len(t, all, o.Len())
	var codes []reason.Code
	parked := len(all) > 0
	for _, seen := range all {
		if !slices.Contains(codes, seen.Code) {
			codes = append(codes, seen.Code)
		}
		parked = parked && seen.Code == reason.Parked
	}
	require.ElementsMatch(t, codes, o.Codes)
	require.Equal(t, parked, o.AllParked())
	wanted := refusal.Soonest(all, func(s *sight.Seen) (bool, time.Duration) { return s.Eligible, s.RetryIn })
	require.Equal(t, wanted, o.RetryIn)
	named := func(name string) bool { return name == "p0" || name == "p3" }
	others := slices.DeleteFunc(slices.Clone(all), func(s sight.Seen) bool { return named(s.Provider) })
	require.Equal(t, len(others), o.LenWithout(named))
	for _, allowed := range [][]reason.Code{codes, {reason.Unhealthy}, {reason.Parked, reason.Unhealthy, reason.AtCapacity}} {
		only := !slices.ContainsFunc(others, func(s sight.Seen) bool { return !slices.Contains(allowed, s.Code) })
		require.Equal(t, only, o.Only(named, allowed...), "%v of %v", allowed, codes)
	}
	for sentinel, code := range map[error]reason.Code{fault.ErrUnhealthy: reason.Unhealthy, fault.ErrDenied: reason.Denied, fault.ErrNoCapability: reason.CapabilityMissing} {
		means := slices.Contains(codes, code) || code == reason.Unhealthy && slices.Contains(codes, reason.CapabilityOut)
		require.Equal(t, means, o.Means(sentinel), "%v", sentinel)
	}
	for seen := range o.All() { // an iteration may end early
		require.Equal(t, all[0].Provider, seen.Provider)
		break
	}
}

// What a refusal says without looking at each candidate is what a look at each says. Variants: look-ups that are no
// trials; skips; a caller with rates; a bound of the latency; providers that the query does not accept.
func TestSight_SaysAtOnceWhatItsListSays(t *testing.T) {
	t.Parallel()
	for seed := range uint64(500) {
		random := rand.New(rand.NewPCG(seed, 3))
		size := random.IntN(80)
		d := &drawn{bounded: random.IntN(4) == 0}
		var accepted, seen []*sight.Record
		q := &query.Query{Require: []string{"chat"}}
		if random.IntN(2) == 0 {
			q.Only = []string{"p0", "p1", "p2", "p3", "p4", "p5"}
		}
		if random.IntN(3) == 0 {
			q.Where.MaxCost = 0.5
		}
		for i := range size {
			r := drawRecord(random, i)
			seen = append(seen, r)
			if r.Mismatch(q) == nil {
				accepted = append(accepted, r)
			}
			d.full, d.slow = append(d.full, random.IntN(3) == 0), append(d.slow, random.IntN(3) == 0)
			d.throttled = append(d.throttled, time.Duration(max(0, random.IntN(4)-2))*time.Second)
		}
		board := sight.NewBoard(len(accepted), func(i int) *sight.Record { return accepted[i] })
		all := sight.NewBoard(size, func(i int) *sight.Record { return seen[i] })
		o := sight.Sight{At: now, Strict: random.IntN(3) == 0, View: board.View(0, nil)}
		require.Equal(t, slices.ContainsFunc(accepted, func(r *sight.Record) bool { return r.Gate&refusal.Unhealthy != 0 }), o.View.Any(refusal.Unhealthy))
		if random.IntN(2) == 0 {
			first := sight.NewUnwanted(q, all.View(0, nil))
			o.Others = first.At(all.View(0, nil))
		}
		var skips []sight.Seen
		for i := range accepted {
			for _, why := range []*refusal.Reason{refusal.BudgetSpent(), refusal.MocksOnly()} {
				if i < 4 && random.IntN(3) == 0 {
					skip := sight.Seen{Who: accepted[i].Who}
					skip.Refuse(why, 0)
					skips = append(skips, skip)
				}
			}
		}
		var caller *string
		if random.IntN(2) == 0 {
			caller = new(string)
		}
		o.Note(d, skips, caller)
		requireConsistent(t, &o)
		requireStanding(t, &o, d, skips, caller)
	}
}

// requireStanding looks at each candidate alone, and compares that with the list.
func requireStanding(t *testing.T, o *sight.Sight, d *drawn, skips []sight.Seen, caller *string) {
	t.Helper()
	i := 0
	for seen := range o.All() {
		if i == o.View.Len() {
			break // the others are not accepted
		}
		want := standing(o.View.At(i), o.Strict, d.full[i])
		for _, skip := range skips { // only the last one counts, and only if nothing else keeps calls away
			if skip.Provider == seen.Provider && (want.Eligible || want.Code == reason.BudgetSpent) {
				want = skip.Standing
			}
		}
		if caller != nil && !o.Strict && d.throttled[i] > 0 && (want.Eligible || want.Code == reason.AtCapacity) {
			want.Refuse(refusal.Throttled(), d.throttled[i])
		}
		if d.bounded && d.slow[i] {
			want.RefuseTooSlow(time.Second, time.Millisecond, 3*time.Second)
		}
		require.Equal(t, want, seen.Standing, "%v", seen)
		i++
	}
}

// standing is what the record and the places of a provider say.
func standing(r *sight.Record, strict, full bool) refusal.Standing {
	s := r.Standing
	switch {
	case !r.Until.IsZero():
		s.RetryIn = r.Until.Sub(now)
	case strict && s.Code == reason.Trial:
		s.Refuse(refusal.OnlyTrials(), 0)
	case !strict && s.Eligible && full:
		s.Refuse(refusal.Full(), 0)
	}
	return s
}

func TestSight_OfNothingSaysNothing(t *testing.T) {
	t.Parallel()
	var o sight.Sight
	require.Zero(t, o.Len())
	require.Zero(t, o.LenWithout(func(string) bool { return true }))
	for range o.All() {
		t.Fatal("there is none")
	}
	require.False(t, o.AllParked())
}

func TestSight_ErrorTextNamesCauseCandidatesAndTime(t *testing.T) {
	t.Parallel()
	o := sight.Sight{Cause: fault.ErrClosed}
	require.Equal(t, `registry: no provider available: service "chat" with tools: shutting down; retry in 2s`, o.ErrorText("chat", " with tools", 2*time.Second))
	parked := down(0, now)
	parked.Standing = refusal.Standing{Code: reason.Parked, Words: "credentials refused", Err: fault.ErrCredentials}
	o = sight.Sight{At: now, View: sight.NewBoard(1, func(int) *sight.Record { return parked }).View(0, nil)}
	o.Note(&places{}, nil, nil)
	require.Equal(t, `registry: no provider available: service "a\nb": no usable credentials: 0: credentials refused`, o.ErrorText("a\nb", "", 0))
}

func TestSight_ErrorTextBoundsTheNameOfTheService(t *testing.T) {
	t.Parallel()
	var o sight.Sight
	require.Equal(t, `registry: no provider available: service "`+strings.Repeat("x", 64)+`…"`, o.ErrorText(strings.Repeat("x", 100), "", 0))
}

func TestAppendCauses_CredentialsOnlyWhereAllAreParked(t *testing.T) {
	t.Parallel()
	parked, ill := sight.Seen{}, sight.Seen{}
	parked.Code, parked.Err = reason.Parked, fault.Join("", []error{fault.ErrCoolingDown, fault.ErrCredentials})
	ill.Code, ill.Err = reason.Unhealthy, fault.ErrUnhealthy
	candidates := slices.Values([]*sight.Seen{&parked, {}, &ill})
	some := sight.AppendCauses(nil, candidates, false)
	require.Len(t, some, 2)
	require.NotErrorIs(t, some[0], fault.ErrCredentials)
	require.ErrorIs(t, some[0], fault.ErrCoolingDown)
	require.ErrorIs(t, some[1], fault.ErrUnhealthy)
	require.ErrorIs(t, sight.AppendCauses(nil, candidates, true)[0], fault.ErrCredentials)
}
