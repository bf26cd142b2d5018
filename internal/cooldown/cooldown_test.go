package cooldown_test

import (
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/capreg/registry/internal/cooldown"
	"github.com/capreg/registry/status"
	"github.com/capreg/registry/verdict"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	errFirst  = errors.New("first")
	errSecond = errors.New("second")
	start     = time.Unix(1_000_000, 0)
)

func limited(after time.Duration, cause error) cooldown.Request {
	return cooldown.Request{Class: verdict.ClassRateLimited, Kind: verdict.CooldownAsked, After: after, Cause: cause}
}

func fatal(after time.Duration, cause error) cooldown.Request {
	return cooldown.Request{Class: verdict.ClassFatal, Kind: verdict.CooldownLong, After: after, Cause: cause}
}

func TestCooldown_Transitions(t *testing.T) {
	t.Parallel()
	idle := func() *cooldown.Cooldown { return &cooldown.Cooldown{} }
	cooling := func() *cooldown.Cooldown {
		c := idle()
		require.True(t, c.Apply(limited(time.Minute, errFirst), start))
		return c
	}
	parked := func() *cooldown.Cooldown {
		c := idle()
		require.True(t, c.Apply(fatal(time.Minute, errFirst), start))
		return c
	}
	const (
		rate, dead          = verdict.ClassRateLimited, verdict.ClassFatal
		isCooling, isParked = cooldown.Cooling, cooldown.Parked
	)
	for name, row := range map[string]struct {
		from    func() *cooldown.Cooldown
		request cooldown.Request
		changed bool
		state   cooldown.State
		class   verdict.Class
		cause   error
		later   bool
		growth  int
	}{
		"idle, not fatal":           {idle, limited(time.Second, errSecond), true, isCooling, rate, errSecond, true, 1},
		"idle, fatal":               {idle, fatal(time.Second, errSecond), true, isParked, dead, errSecond, true, 1},
		"cooling, not fatal, later": {cooling, limited(time.Hour, errSecond), true, isCooling, rate, errSecond, true, 1},
		"cooling, sooner":           {cooling, limited(time.Second, errSecond), false, isCooling, rate, errFirst, false, 1},
		"cooling, fatal, later":     {cooling, fatal(time.Hour, errSecond), true, isParked, dead, errSecond, true, 1},
		"cooling, fatal, sooner":    {cooling, fatal(time.Second, errSecond), true, isParked, dead, errSecond, false, 1},
		"parked, later":             {parked, limited(time.Hour, errSecond), true, isParked, dead, errFirst, true, 1},
		"parked, fatal, later":      {parked, fatal(time.Hour, errSecond), true, isParked, dead, errFirst, true, 1},
		"parked, sooner":            {parked, fatal(time.Second, errSecond), false, isParked, dead, errFirst, false, 1},
		"idle, nothing asked for": {
			idle, cooldown.Request{Class: verdict.ClassServerError, Cause: errSecond}, false, cooldown.Idle, 0, nil, false, 0,
		},
		"idle, a delay without a kind": {
			idle,
			cooldown.Request{Class: verdict.ClassServerError, After: time.Second, Cause: errSecond},
			true, isCooling, verdict.ClassServerError, errSecond, true, 0,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := row.from()
			before := c.Until()
			require.Equal(t, row.changed, c.Apply(row.request, start))
			require.Equal(t, row.state, c.State())
			require.Equal(t, row.class, c.Class())
			require.Equal(t, row.cause, c.Cause())
			require.Equal(t, row.later, c.Until().After(before))
			require.Equal(t, row.growth, c.Growth())
			require.Equal(t, row.state != cooldown.Idle, c.Active())
		})
	}
}

// Variants: the same call again, a success between, a delay that was asked for, one more after the third.
func TestCooldown_ParksAtTheThirdCallInARow(t *testing.T) {
	t.Parallel()
	refused := func(call uint64, after time.Duration) cooldown.Request {
		return cooldown.Request{Class: verdict.ClassUnauthenticated, Kind: verdict.CooldownThird, Call: call, After: after, Cause: errFirst}
	}
	var c cooldown.Cooldown
	for _, call := range []uint64{1, 1, 2, 1, 2, 2} {
		require.False(t, c.Apply(refused(call, 0), start))
	}
	require.True(t, c.Pending())
	var once cooldown.Cooldown
	require.False(t, once.Apply(refused(1, 0), start))
	require.True(t, once.Pending(), "from the first on")
	require.Equal(t, cooldown.Idle, c.State())
	c.ForgetRefusals()
	require.False(t, c.Pending())
	for _, call := range []uint64{3, 4} {
		require.False(t, c.Apply(refused(call, 0), start))
	}
	require.True(t, c.Apply(refused(5, 0), start))
	require.Equal(t, cooldown.Parked, c.State())
	require.Equal(t, verdict.ClassFatal, c.Class())
	require.GreaterOrEqual(t, c.Until().Sub(start), 4*time.Minute)
	c.End()
	require.True(t, c.Apply(refused(5, 0), start), "still no success")
	require.GreaterOrEqual(t, c.Until().Sub(start), 8*time.Minute, "it has grown")
	c.End()
	require.True(t, c.Apply(refused(6, 0), start), "a fourth call")
	require.Equal(t, cooldown.Parked, c.State())

	var asked cooldown.Cooldown
	require.True(t, asked.Apply(refused(1, time.Second), start))
	require.Equal(t, cooldown.Cooling, asked.State(), "the delay alone")
	require.Zero(t, asked.Growth(), "which does not grow")
	require.Equal(t, start.Add(time.Second), asked.Until())
}

func TestCooldown_EndKeepsGrowthAndResetGrowthKeepsTheDeadline(t *testing.T) {
	t.Parallel()
	var c cooldown.Cooldown
	require.True(t, c.Apply(fatal(0, errFirst), start))
	until := c.Until()
	require.False(t, c.Over(until.Add(-1)))
	require.True(t, c.Over(until))
	c.ResetGrowth()
	require.Zero(t, c.Growth())
	require.Equal(t, until, c.Until())
	require.Equal(t, cooldown.Parked, c.State())

	require.True(t, c.Apply(fatal(time.Hour, errSecond), start))
	require.Zero(t, c.Growth(), "an extension does not grow")
	c.End()
	require.True(t, c.Apply(limited(0, errFirst), start))
	require.Equal(t, 1, c.Growth())
	c.End()
	require.Equal(t, 1, c.Growth())
	require.False(t, c.Over(start.Add(cooldown.Max)))
	require.Zero(t, c.Until())
	require.NoError(t, c.Cause())
	require.Equal(t, cooldown.Idle, c.State())
}

func TestCooldown_LengthsGrowFromFirstToLast(t *testing.T) {
	t.Parallel()
	for kind, bounds := range map[verdict.Cooldown][2]time.Duration{
		verdict.CooldownShort: {5 * time.Second, 30 * time.Second},
		verdict.CooldownAsked: {2 * time.Second, time.Minute},
		verdict.CooldownModel: {time.Minute, 10 * time.Minute},
		verdict.CooldownLong:  {5 * time.Minute, time.Hour},
	} {
		var c cooldown.Cooldown
		expected := bounds[0]
		for range 40 {
			require.True(t, c.Apply(cooldown.Request{Class: verdict.ClassOverloaded, Kind: kind}, start))
			length := c.Until().Sub(start)
			require.LessOrEqual(t, length, expected)
			require.GreaterOrEqual(t, length, expected-expected/5)
			require.True(t, c.Guessed())
			c.End()
			expected = min(expected*2, bounds[1])
		}
	}
}

func TestCooldown_AskedTimeIsNeverShortenedNorLongerThanMax(t *testing.T) {
	t.Parallel()
	for _, asked := range []time.Duration{1, 9, 10, 19, time.Second, time.Hour, cooldown.Max - 1, cooldown.Max, 1 << 62, 1<<63 - 1} {
		for _, kind := range []verdict.Cooldown{
			verdict.CooldownNone, verdict.CooldownShort, verdict.CooldownAsked, verdict.CooldownModel, verdict.CooldownLong,
		} {
			var c cooldown.Cooldown
			require.True(t, c.Apply(cooldown.Request{Class: verdict.ClassOverloaded, Kind: kind, After: asked}, start))
			length := c.Until().Sub(start)
			require.GreaterOrEqual(t, length, min(asked, cooldown.Max))
			require.LessOrEqual(t, length, min(min(asked, cooldown.Max)*11/10, cooldown.Max))
			if kind == verdict.CooldownNone {
				require.Equal(t, min(asked, cooldown.Max), length)
			}
			require.False(t, c.Guessed())
		}
	}
}

func TestCooldown_LengthsAreSpread(t *testing.T) {
	t.Parallel()
	for _, r := range []cooldown.Request{limited(0, nil), limited(time.Minute, nil)} {
		seen := make(map[time.Time]bool)
		for range 100 {
			var c cooldown.Cooldown
			c.Apply(r, start)
			seen[c.Until()] = true
		}
		require.Greater(t, len(seen), 50)
	}
}

func TestCooldown_LengthsUseAllOfTheirJitter(t *testing.T) {
	t.Parallel()
	shortest, longest := time.Duration(1<<63-1), time.Duration(0)
	for range 2000 {
		var guessed, asked cooldown.Cooldown
		guessed.Apply(limited(0, nil), start)
		shortest = min(shortest, guessed.Until().Sub(start))
		asked.Apply(limited(time.Minute, nil), start)
		longest = max(longest, asked.Until().Sub(start))
	}
	require.Less(t, shortest, 2*time.Second*82/100, "a fifth less than guessed")
	require.Greater(t, longest, time.Minute*1095/1000, "a tenth more than asked for")
}

// naive is the model: it keeps every outcome of the cooldown in progress and computes the rest from them.
type naive struct {
	requests []cooldown.Request // of the cooldown in progress
	until    time.Time
	growth   int
}

func (n *naive) state() cooldown.State {
	state := cooldown.Idle
	for _, r := range n.requests {
		if r.Class == verdict.ClassFatal {
			return cooldown.Parked
		}
		state = cooldown.Cooling
	}
	return state
}

// apply judges the deadline that the engine has chosen, since that is random within bounds.
func (n *naive) apply(t *testing.T, r cooldown.Request, now, until time.Time, changed bool) {
	t.Helper()
	doubled := n.growth
	if len(n.requests) > 0 {
		doubled = max(n.growth-1, 0)
	}
	longest := 2 * time.Second
	for range doubled {
		longest = min(2*longest, time.Minute)
	}
	shortest := longest - longest/5
	if r.Class == verdict.ClassFatal {
		longest, shortest = time.Hour, 4*time.Minute
	}
	if r.After > 0 {
		shortest, longest = r.After, r.After+r.After/10
	}
	if len(n.requests) == 0 {
		require.True(t, changed)
		n.growth++
	} else if !until.After(n.until) {
		require.Equal(t, n.until, until, "never sooner")
		require.False(t, n.until.Before(now.Add(shortest)), "an extension was missed")
		require.Equal(t, r.Class == verdict.ClassFatal && n.state() != cooldown.Parked, changed)
	}
	if until.After(n.until) {
		require.True(t, changed)
		require.False(t, until.Before(now.Add(shortest)))
		require.False(t, until.After(now.Add(longest)))
	}
	n.until, n.requests = until, append(n.requests, r)
	if !changed {
		n.requests = n.requests[:len(n.requests)-1]
	}
}

func TestCooldown_AgreesWithANaiveModel(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(3, 4))
	var c cooldown.Cooldown
	var model naive
	now := start
	for range 20_000 {
		now = now.Add(time.Duration(random.Int64N(int64(5 * time.Second))))
		if c.Over(now) {
			c.End()
			model.requests, model.until = nil, time.Time{}
		}
		switch random.IntN(8) {
		case 0:
			c.ResetGrowth()
			model.growth = 0
		case 1:
			if c.Active() && random.IntN(4) == 0 {
				c.End()
				model.requests, model.until = nil, time.Time{}
			}
		case 2:
			r := fatal(time.Duration(random.Int64N(int64(20*time.Second))), errFirst)
			changed := c.Apply(r, now)
			model.apply(t, r, now, c.Until(), changed)
		default:
			r := limited(time.Duration(max(random.Int64N(int64(20*time.Second))-int64(10*time.Second), 0)), errSecond)
			changed := c.Apply(r, now)
			model.apply(t, r, now, c.Until(), changed)
		}
		require.Equal(t, model.state(), c.State())
		require.Equal(t, model.growth, c.Growth())
		require.Equal(t, model.until, c.Until())
	}
}

func TestLatest_ReturnsTheLaterDeadlineAndElseTheDomain(t *testing.T) {
	t.Parallel()
	var own, domain cooldown.Cooldown
	require.Same(t, &domain, cooldown.Latest(&own, &domain))
	own.Apply(limited(time.Minute, nil), start)
	require.Same(t, &own, cooldown.Latest(&own, &domain))
	domain.Apply(limited(time.Hour, nil), start)
	require.Same(t, &domain, cooldown.Latest(&own, &domain))
}

func TestCooldown_IsGuessedUnlessAServerHasAskedForTheDeadline(t *testing.T) {
	t.Parallel()
	var c cooldown.Cooldown
	require.False(t, c.Pending())
	require.True(t, c.Apply(limited(0, errFirst), start))
	require.True(t, c.Guessed())
	require.True(t, c.Pending(), "it has grown once")
	require.True(t, c.Apply(limited(time.Minute, errFirst), start))
	require.False(t, c.Guessed(), "extended as asked for")
	require.True(t, c.Apply(fatal(0, errFirst), start))
	require.True(t, c.Guessed(), "extended by a guess")
}

func TestStatus_ShowsACooldownInProgress(t *testing.T) {
	t.Parallel()
	var c cooldown.Cooldown
	require.Zero(t, c.Status(verdict.ScopeProvider))
	request := limited(time.Minute, errFirst)
	request.By = status.ProviderID{Service: "s", Name: "p"}
	require.True(t, c.Apply(request, start))
	require.Equal(t, status.Cooldown{
		Since: start, Until: c.Until(), Class: verdict.ClassRateLimited, By: request.By, Scope: verdict.ScopeDomain, Asked: true,
	}, c.Status(verdict.ScopeDomain))
	require.True(t, c.Apply(fatal(0, errSecond), start.Add(time.Second)))
	require.Equal(t, status.Cooldown{
		Since: start, Until: c.Until(), Class: verdict.ClassFatal, Scope: verdict.ScopeProvider, Parked: true,
	}, c.Status(verdict.ScopeProvider))
	c.End()
	require.Zero(t, c.Status(verdict.ScopeProvider))
}

func TestShown_IsTheOneThatKeepsAProviderAwayForLongest(t *testing.T) {
	t.Parallel()
	var own, domain cooldown.Timed
	require.Zero(t, cooldown.Shown(&own, &domain))
	own.Apply(limited(time.Minute, nil), start)
	require.Equal(t, own.Status(verdict.ScopeProvider), cooldown.Shown(&own, &domain))
	domain.Apply(limited(time.Hour, nil), start)
	require.Equal(t, domain.Status(verdict.ScopeDomain), cooldown.Shown(&own, &domain))
}
