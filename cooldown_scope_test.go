package registry_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/reason"
	"github.com/capreg/registry/status"
	"github.com/capreg/registry/verdict"
)

// codeError is an error of an SDK: a status and a code.
type codeError struct {
	StatusCode int
	Code       string
}

func (e *codeError) Error() string { return e.Code }

// What holds for one model keeps that model away, what holds for a key all that use it. Variants: calls, leases;
// 529, 503 with a delay, a model that is gone, rates by key and by model, a dead key, a scope that is stated.
func TestCooldown_CoversWhatTheOutcomeIsAbout(t *testing.T) {
	t.Parallel()
	stated := func(class verdict.Class, scope verdict.Scope) error {
		return verdict.As(testkit.ErrDown, verdict.Verdict{Class: class, Scope: scope})
	}
	for name, row := range map[string]struct {
		err  error
		cool []bool // opus, sonnet
	}{
		"529":                     {testkit.StatusError{Code: 529}, []bool{true, false}},
		"503 with a delay":        {testkit.StatusError{Code: 503, After: time.Minute}, []bool{true, false}},
		"503":                     {testkit.StatusError{Code: 503}, []bool{false, false}},
		"500 with a delay":        {testkit.StatusError{Code: 500, After: time.Minute}, []bool{true, false}},
		"overloaded":              {&codeError{200, "overloaded_error"}, []bool{true, false}},
		"model":                   {&codeError{404, "model_not_found"}, []bool{true, false}},
		"429":                     {testkit.StatusError{Code: 429}, []bool{true, true}},
		"429 of a model":          {&codeError{429, "rate_limit_exceeded"}, []bool{true, false}},
		"quota":                   {&codeError{429, "insufficient_quota"}, []bool{true, true}},
		"key":                     {&codeError{401, "invalid_api_key"}, []bool{true, true}},
		"overload of the host":    {stated(verdict.ClassOverloaded, verdict.ScopeDomain), []bool{true, true}},
		"rate of this model":      {stated(verdict.ClassRateLimited, verdict.ScopeProvider), []bool{true, false}},
		"a delay of one provider": {verdict.As(testkit.ErrDown, verdict.Verdict{After: time.Minute}), []bool{true, false}},
	} {
		for _, lease := range []bool{false, true} {
			testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
				limits := registry.LimitPolicy{MaxConcurrent: 4}
				opus := testkit.Add(t, reg, testkit.Provider{Name: "opus", Domain: "key", Limits: limits, Instance: testkit.Fails(row.err)})
				sonnet := testkit.Add(t, reg, testkit.Provider{Name: "sonnet", Domain: "key", Limits: limits})
				if lease {
					held, err := testkit.Bind(reg).Acquire(t.Context())
					require.NoError(t, err)
					held.Done(row.err)
				} else {
					text, err := testkit.Ask(t.Context(), testkit.Bind(reg))
					require.Equal(t, row.cool[1], err != nil, name)
					require.Equal(t, !row.cool[1], text == "sonnet", name)
				}
				cooling := []bool{!opus.Info().Cooldown.Until.IsZero(), !sonnet.Info().Cooldown.Until.IsZero()}
				require.Equal(t, row.cool, cooling, name)
				testkit.Pass(2 * time.Hour)
				require.True(t, opus.Info().Eligible && sonnet.Info().Eligible, name)
			})
		}
	}
}

// Variants: one call that fails over within a domain, leases of one call, an answer between, a refusal of the resource
// and a bad request between, a reset.
func TestCooldown_OneCallerParksNoKey(t *testing.T) {
	t.Parallel()
	unauthenticated := testkit.StatusError{Code: 401}
	bubble := func(next *error, f func(t *testing.T, all []*registry.Registration, ask func() error)) {
		testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
			var all []*registry.Registration
			for _, name := range []string{"a", "b", "c", "d"} {
				all = append(all, testkit.Add(t, reg, testkit.Provider{
					Name: name, Domain: "key", Instance: testkit.Answers(func() (string, error) { return name, *next }),
				}))
			}
			f(t, all, func() error { _, err := testkit.Ask(t.Context(), testkit.Bind(reg)); return err })
		})
	}
	var next error
	bubble(&next, func(t *testing.T, all []*registry.Registration, ask func() error) {
		for _, between := range []error{nil, testkit.StatusError{Code: 404}, testkit.StatusError{Code: 400}} {
			for range 10 {
				next = unauthenticated
				require.ErrorIs(t, ask(), unauthenticated)
				require.ErrorIs(t, ask(), unauthenticated)
				require.True(t, all[0].Info().Eligible)
				next = between
				require.ErrorIs(t, ask(), between)
			}
		}
		next = unauthenticated
		for range 2 {
			require.Error(t, ask())
		}
		require.True(t, all[3].Info().Eligible)
		require.Error(t, ask())
		for _, registration := range all {
			require.False(t, registration.Info().Eligible, "the third in a row")
		}
		require.ErrorIs(t, ask(), registry.ErrCredentials)
		require.NoError(t, all[2].Reset())
		for range 2 {
			require.NotErrorIs(t, ask(), registry.ErrCredentials)
			require.True(t, all[0].Info().Eligible, "a reset forgets the ones before")
		}
	})
}

func TestCooldown_LeasesOfOneCallParkNoKey(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		unauthenticated := testkit.StatusError{Code: 401}
		for _, name := range []string{"a", "b", "c", "d"} {
			testkit.Add(t, reg, testkit.Provider{Name: name, Domain: "key"})
		}
		first, err := testkit.Bind(reg).Acquire(t.Context())
		require.NoError(t, err)
		beside, err := first.Steps().Beside()
		require.NoError(t, err)
		beside.Done(unauthenticated)
		lease := first
		for range 2 {
			lease, err = lease.MoveOn(unauthenticated)
			require.NoError(t, err)
		}
		lease.Done(unauthenticated)
		require.NotEmpty(t, testkit.MustAsk(t, testkit.Bind(reg)), "four refusals of one call")
	})
}

// Variants: a domain of its own, one that goes on with another member, one that it leaves; parked by a code, and by
// three refusals; a rate limit, which a new key does not end.
func TestCooldown_ReplacementOfADeadKeyIsAskedAtOnce(t *testing.T) {
	t.Parallel()
	for _, domain := range []string{"", "key"} {
		for name, err := range map[string]error{"code": verdict.Fatal(testkit.ErrDown, time.Hour), "refusals": testkit.StatusError{Code: 401}} {
			testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
				testkit.Add(t, reg, testkit.Provider{Name: "a", Domain: domain, Instance: testkit.Fails(err)})
				other := testkit.Add(t, reg, testkit.Provider{Name: "other", Domain: domain, Group: 1, Instance: testkit.Fails(err)})
				for range 3 {
					_, _ = testkit.Ask(t.Context(), testkit.Bind(reg))
				}
				require.False(t, other.Info().Eligible, name)
				events := reg.Subscribe(0)
				testkit.Add(t, reg, testkit.Provider{Name: "a", Domain: domain, Replace: true})
				require.Equal(t, "a", testkit.MustAsk(t, testkit.Bind(reg)), name)
				require.Equal(t, domain != "", other.Info().Eligible, "it shares the key: %s", name)
				require.Equal(t, domain != "", len(testkit.Kinds(t, events)) > 3, "one end of a cooldown for each: %s", name)
			})
		}
	}
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "a", Domain: "key", Instance: testkit.Fails(verdict.RateLimited(testkit.ErrDown, time.Hour))})
		testkit.Add(t, reg, testkit.Provider{Name: "b", Domain: "key"})
		_, _ = testkit.Ask(t.Context(), testkit.Bind(reg))
		replaced := testkit.Add(t, reg, testkit.Provider{Name: "a", Domain: "key", Replace: true})
		require.False(t, replaced.Info().Eligible, "the limit is the account's")
	})
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		testkit.Add(t, reg, testkit.Provider{Name: "dead", Domain: "dead", Instance: testkit.Fails(verdict.Fatal(testkit.ErrDown, time.Hour))})
		_, _ = testkit.Ask(t.Context(), testkit.Bind(reg))
		testkit.Add(t, reg, testkit.Provider{Name: "a"})
		moved := testkit.Add(t, reg, testkit.Provider{Name: "a", Domain: "dead", Replace: true})
		require.False(t, moved.Info().Eligible, "its new domain's key is as dead as before")
	})
}

// Variants: the one that has left answers, refuses the request; it was unregistered, replaced, which forgets the
// refusals before.
func TestCooldown_AnswerOfOneThatHasLeftForgetsNoRefusals(t *testing.T) {
	t.Parallel()
	refuses := testkit.Fails(testkit.StatusError{Code: 401})
	for _, late := range []error{nil, verdict.Permanent(testkit.ErrDown)} {
		for _, replaced := range []bool{false, true} {
			testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
				ask := func() error { _, err := testkit.Ask(t.Context(), testkit.Bind(reg)); return err }
				a := testkit.Add(t, reg, testkit.Provider{Name: "a", Domain: "key", Instance: testkit.Fails(testkit.StatusError{Code: 403})})
				held, err := testkit.Bind(reg).Acquire(t.Context())
				require.NoError(t, err)
				b := testkit.Add(t, reg, testkit.Provider{Name: "b", Domain: "key", Priority: registry.PriorityCritical, Instance: refuses})
				require.Error(t, ask())
				if replaced {
					testkit.Add(t, reg, testkit.Provider{Name: "a", Domain: "key", Replace: true, Instance: refuses})
					require.Error(t, ask())
				} else {
					go func() { _ = a.Unregister(context.Background()) }()
					testkit.Pass(0)
				}
				require.Error(t, ask())
				held.Done(late)
				require.True(t, b.Info().Eligible)
				require.Error(t, ask())
				require.False(t, b.Info().Eligible, "the third in a row of those that are there")
			})
		}
	}
}

// What a process has learned of a key, its successor does not ask for again.
func TestCooldown_IsContinuedFromAnEarlierProcess(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Domain: "key"})
		b := testkit.Add(t, reg, testkit.Provider{Name: "b", Domain: "key"})
		until := time.Now().Add(time.Hour)
		require.NoError(t, a.CoolDown(status.Cooldown{Class: verdict.ClassFatal, Scope: verdict.ScopeDomain, Until: until}, testkit.ErrDown))
		for _, each := range []*registry.Registration{a, b} {
			require.False(t, each.Info().Eligible)
			require.True(t, each.Info().Cooldown.Parked)
			require.Equal(t, until, each.Info().Cooldown.Until)
		}
		require.NoError(t, a.CoolDown(status.Cooldown{Class: verdict.ClassRateLimited, Until: until.Add(time.Hour)}, nil))
		time.Sleep(time.Hour)
		synctest.Wait()
		require.False(t, a.Info().Eligible)
		require.True(t, b.Info().Eligible, "the second one is of the provider alone")
		require.Equal(t, []uint64{0, 0}, []uint64{a.Info().Attempts, b.Info().Attempts}, "no attempt was made")
		time.Sleep(time.Hour)
		synctest.Wait()
		require.True(t, a.Info().Eligible)

		for _, wrong := range []status.Cooldown{
			{Class: verdict.ClassRateLimited},
			{Class: verdict.ClassRateLimited, Until: time.Now()},
			{Class: 250, Until: until.Add(24 * time.Hour)},
			{Scope: 9, Until: until.Add(24 * time.Hour)},
		} {
			require.ErrorIs(t, a.CoolDown(wrong, testkit.ErrDown), registry.ErrInvalid)
		}
		require.True(t, a.Info().Eligible)

		require.NoError(t, a.CoolDown(status.Cooldown{Class: verdict.ClassFatal, Scope: verdict.ScopeDomain, Until: until.Add(24 * time.Hour)}, nil))
		require.NoError(t, a.ForceOpen(time.Hour, "maintenance"))
		require.NoError(t, b.CoolDown(status.Cooldown{}, nil))
		require.True(t, b.Info().Eligible, "the zero value ends that of the domain")
		require.Equal(t, reason.BreakerOpen, a.Info().Code, "and leaves breakers alone")
		require.NoError(t, b.Unregister(t.Context()))
		require.ErrorIs(t, b.CoolDown(status.Cooldown{Class: verdict.ClassFatal, Until: time.Now().Add(time.Hour)}, nil), registry.ErrNotRegistered)
		require.ErrorIs(t, (*registry.Registration)(nil).CoolDown(status.Cooldown{Until: time.Now().Add(time.Hour)}, nil), registry.ErrNotRegistered)
	})
}
