package registry_test

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/health"
	"github.com/capreg/registry/selection"
	"github.com/capreg/registry/startup"
)

func FuzzPriorityIsReadAsItIsWritten(f *testing.F) {
	for _, text := range []string{"CRITICAL", "high", "9", "4", "-1", "", " normal", "1.0", "null", "FALLBACK\x00", "İ"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p := registry.PriorityLow
		err := p.UnmarshalText([]byte(text))
		if err != nil {
			require.ErrorIs(t, err, registry.ErrInvalid)
			requireOneLine(t, err)
			require.Equal(t, registry.PriorityLow, p, "nothing is changed")
		} else {
			written, err := p.MarshalText()
			require.NoError(t, err)
			require.True(t, strings.EqualFold(string(written), text) || strconv.Itoa(p.Rank()) == text, "%q is %s", text, written)
		}
		quoted, marshalErr := json.Marshal(text)
		require.NoError(t, marshalErr)
		var fromJSON registry.Priority
		if strings.ToValidUTF8(text, "") == text {
			require.Equal(t, err == nil, json.Unmarshal(quoted, &fromJSON) == nil, "JSON and text agree on %q", text)
		}
	})
}

func FuzzStrategyIsReadAsItIsWritten(f *testing.F) {
	for _, text := range []string{"FALLBACK", "round_robin", "", " x", "x\n", "\xff", "least-loaded", strings.Repeat("n", 257)} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s := registry.StrategyRoundRobin
		if err := s.UnmarshalText([]byte(text)); err != nil {
			require.Equal(t, registry.StrategyRoundRobin, s, "nothing is changed")
			require.NotContains(t, err.Error(), "\n")
			return
		}
		written, err := s.MarshalText()
		require.NoError(t, err)
		require.True(t, strings.EqualFold(string(written), text))
		var again registry.Strategy
		require.NoError(t, again.UnmarshalText(written))
		require.True(t, s.Same(again) || s.IsZero() && again.IsZero())
	})
}

// A definition that was read registers, or is refused in one line without a trace; what
// was registered reads as it was written.
func FuzzDefinitionInJSON(f *testing.F) {
	for _, text := range []string{
		`{}`, `null`, `[]`, `{"name":"a","capabilities":["x","x"],"priority":"HIGH","group":-3,"strategy":"round_robin"}`,
		`{"name":" a"}`, `{"priority":9,"handler":"*","metadata":{"":"x"}}`, `{"endpoint":"http://host/ path"}`, `{"endpoint":"unix:///run/x"}`,
		`{"window":-1}`, `{"strategy":"nobody knows it"}`, `{"name":"a\u2028b","version":"\ud800"}`, `{"domain":" d"}`, `{"group":1e30}`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var d registry.Definition
		if json.Unmarshal(text, &d) != nil {
			return
		}
		reg := newRegistry(t, registry.Options{})
		input := chat.Provider(d)
		input.Instance = says("x")
		registration, err := chat.Register(t.Context(), reg, input)
		if err != nil {
			requireOneLine(t, err)
			require.Zero(t, reg.Stats())
			return
		}
		written, err := json.Marshal(registration.Definition())
		require.NoError(t, err)
		var again registry.Definition
		require.NoError(t, json.Unmarshal(written, &again))
		rewritten, err := json.Marshal(again)
		require.NoError(t, err)
		require.JSONEq(t, string(written), string(rewritten))
		r := chat.Bind(reg, registry.Query{Handler: again.Handler, Require: again.Capabilities})
		require.Equal(t, "x", asked(t, r))
		require.NoError(t, reg.Close(t.Context()))
	})
}

// A query asks the same in any order of its words; a bad one is an error of every method.
func FuzzQueryInJSON(f *testing.F) {
	for _, text := range []string{
		`{}`, `{"handler":"h","own_only":true}`, `{"own_only":true}`, `{"require":["x","y","x"]}`, `{"require":[""]}`, `{"handler":"*"}`,
		`{"try_refused":true,"near":"eu-west-1","prefer":["a","b"]}`, `{"where":{"max_cost":-1}}`, `{"where":{"min_version":"v1.2.3-rc.1+b","tags":["t"],"regions":["r"],"exclude":["p"]}}`,
		`{"where":{"max_latency":1}}`, `{"require":["a\nb"]}`, `{"handler":"a\u2028b"}`, `{"handler":" h"}`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var q registry.Query
		if json.Unmarshal(text, &q) != nil {
			return
		}
		reg := newRegistry(t, registry.Options{})
		handler := strings.Join(words([]string{q.Handler}), "") // none where the query's is a bad one
		add(t, reg, provider{Name: "a", Strategy: registry.StrategyRoundRobin, Handler: handler, Capabilities: words(q.Require)})
		add(t, reg, provider{Name: "b", Handler: handler, Capabilities: words(q.Require)})
		r := chat.Bind(reg, q)
		e := r.Explain()
		_, getErr := r.Get(t.Context())
		_, callErr := ask(t.Context(), r)
		require.Equal(t, getErr == nil, callErr == nil, "%v, %v", getErr, callErr)
		if getErr != nil {
			requireOneLine(t, getErr)
			require.Empty(t, e.Winner)
			return
		}
		slices.Reverse(q.Require)
		slices.Reverse(q.Prefer)
		require.Equal(t, r.Explain().Winner, chat.Bind(reg, q).Explain().Winner, "they share their turns")
		_, err := json.Marshal(e)
		require.NoError(t, err)
		require.NotContains(t, q.String(), "\n")
		require.Len(t, strings.Split(e.String(), "\n"), 1+len(e.Candidates), "a line for each candidate")
	})
}

// words returns those that a provider may have as capabilities.
func words(wanted []string) (fit []string) {
	for _, word := range wanted {
		if word != "" && len(word) <= 256 && strings.TrimSpace(word) == word && strings.ToValidUTF8(word, "") == word {
			fit = append(fit, word)
		}
	}
	return fit
}

func FuzzVersionsAreOrdered(f *testing.F) {
	f.Add("1.2.3", "v1.2.3", "1.2.3-rc.1")
	f.Add("", "0", "00.0")
	f.Add("1.10", "1.9", "1.x")
	f.Add("1-", "1-0", "1+b")
	f.Fuzz(func(t *testing.T, a, b, c string) {
		ab, bc, ac := selection.CompareVersions(a, b), selection.CompareVersions(b, c), selection.CompareVersions(a, c)
		require.Zero(t, selection.CompareVersions(a, a))
		require.Equal(t, -ab, selection.CompareVersions(b, a), "%q and %q", a, b)
		if ab <= 0 && bc <= 0 {
			require.LessOrEqual(t, ac, 0, "%q, %q, %q", a, b, c)
		}
	})
}

// policies are what a provider and a service can be configured with.
type policies struct {
	Breaker   registry.BreakerPolicy `json:"breaker"`
	Retry     registry.RetryPolicy   `json:"retry"`
	Limits    registry.LimitPolicy   `json:"limits"`
	Selection selection.Policy       `json:"selection"`
	Timeout   time.Duration          `json:"timeout"`
	Drain     time.Duration          `json:"drain"`
}

// Policies that are accepted work: calls fail and succeed, time goes by, and nothing
// hangs, panics or is left over.
func FuzzPoliciesInJSON(f *testing.F) {
	for _, text := range []string{
		`{}`, `{"breaker":{"failure_threshold":1,"recovery_timeout":1}}`, `{"breaker":{"failure_rate":1,"minimum_calls":1,"window":1}}`,
		`{"breaker":{"recovery_timeout":9223372036854775807,"recovery_growth":1000,"recovery_jitter":1}}`,
		`{"breaker":{"slow_rate":0.5,"slow_after":1,"trial_slots":3,"success_threshold":3}}`, `{"breaker":{"trial_slots":4}}`,
		`{"retry":{"retries":3,"first_delay":1,"max_delay":1,"budget":2147483647,"refund":0.001,"floor":1e-9}}`, `{"retry":{"retries":101}}`,
		`{"limits":{"max_concurrent":1,"no_queue":true,"rate":0.0000001}}`, `{"limits":{"burst":1}}`, `{"limits":{"max_wait":9223372036854775807}}`,
		`{"selection":{"spill_over":1.4,"slow_start":9223372036854775807,"max_ejected":0.5,"least_bad":true,"decay":100000000}}`,
		`{"timeout":9223372036854775807,"drain":9223372036854775807}`, `{"timeout":1}`, `{"timeout":-1}`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var p policies
		if json.Unmarshal(text, &p) != nil {
			return
		}
		synctest.Test(t, func(t *testing.T) {
			reg, err := registry.New(registry.Options{DrainTimeout: p.Drain, Selection: p.Selection})
			if err != nil {
				requireRefused(t, err)
				return
			}
			fails := 3
			registration, err := chat.Register(t.Context(), reg, provider{
				Name: "p", Breaker: p.Breaker, Retry: p.Retry, Limits: p.Limits, AttemptTimeout: p.Timeout,
				Instance: answers(func() (string, error) {
					if fails--; fails >= 0 {
						return "", errDown
					}
					return "fine", nil
				}),
			})
			if err != nil {
				requireRefused(t, err)
				require.Zero(t, reg.Stats())
				require.NoError(t, reg.Close(t.Context()))
				return
			}
			for range 5 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				_, _ = ask(ctx, bind(reg))
				cancel()
				pass(time.Minute)
			}
			require.NoError(t, registration.Reset())
			previous, err := registration.SetBreaker(registry.BreakerPolicy{})
			require.NoError(t, err)
			_, err = registration.SetBreaker(previous)
			require.NoError(t, err, "what was in force is valid")
			_, err = registration.SetLimits(p.Limits)
			require.NoError(t, err)
			info := registration.Info()
			require.Equal(t, info.Attempts, info.Successes+info.Failures+info.Ignored+info.Limited)
			require.NoError(t, reg.Close(t.Context()))
		})
	})
}

func requireRefused(t *testing.T, err error) {
	t.Helper()
	var field *registry.FieldError
	require.ErrorAs(t, err, &field)
	require.NotEmpty(t, field.Field)
	require.NotEmpty(t, field.Bound)
	requireOneLine(t, err)
}

// Health policies that are accepted work in the same way.
func FuzzHealthPolicy(f *testing.F) {
	f.Add(int64(0), int64(0), int64(0), int64(0), int64(0), int64(0), 0, 0, 0, uint8(0))
	f.Add(int64(time.Second), int64(time.Millisecond), int64(time.Hour), int64(1), int64(1), int64(1), 1, 1, 1, uint8(255))
	f.Add(int64(-1), int64(1), int64(1), int64(1)<<62, int64(1)<<62, int64(1)<<62, 1<<30, 1<<30, -1, uint8(6))
	f.Fuzz(func(t *testing.T, interval, fast, idle, timeout, start, expected int64, fall, rise, recoveries int, flags uint8) {
		synctest.Test(t, func(t *testing.T) {
			reg := newRegistry(t, registry.Options{})
			policy := health.Policy{
				Interval: time.Duration(interval), FastInterval: time.Duration(fast), IdleInterval: time.Duration(idle),
				Timeout: time.Duration(timeout), StartTime: time.Duration(start), Expected: time.Duration(expected),
				Fall: fall, Rise: rise, RecoverLimit: recoveries, Off: flags&1 != 0, TrustCalls: flags&2 != 0,
				Probe: func(ctx context.Context) error {
					if flags&4 != 0 {
						return errDown
					}
					return ctx.Err()
				},
			}
			if flags&8 != 0 {
				policy.Recover = func(context.Context) error { return nil }
			}
			registration, err := chat.Register(t.Context(), reg, provider{Name: "p", Instance: says("p"), Health: policy})
			if err != nil {
				requireRefused(t, err)
			} else {
				pass(20 * time.Millisecond) // an interval may be a millisecond
				previous, err := registration.SetHealth(health.Policy{Off: true})
				require.NoError(t, err)
				_, err = registration.SetHealth(previous)
				require.NoError(t, err, "what was in force is valid")
			}
			require.NoError(t, reg.Close(t.Context()))
		})
	})
}

// Components of any kind make a plan, or errors that name them; a plan has everybody
// once, behind what he needs.
func FuzzComponents(f *testing.F) {
	f.Add("db\nweb needs db\n", int64(0), 0)
	f.Add("a needs b\nb needs a\n", int64(1), 1)
	f.Add("a needs a\na\n", int64(-1), -1)
	f.Add(" x\n needs \n", int64(1)<<62, 1<<30)
	f.Add("a needs nobody\n\xff needs \xff\n", int64(0), 0)
	f.Add("a\tb needs a\n", int64(0), 0)
	f.Fuzz(func(t *testing.T, text string, timeout int64, most int) {
		var components []registry.Component
		for line := range strings.Lines(text) {
			name, needs, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " needs ")
			c := registry.Component{Name: name, StopTimeout: time.Duration(timeout), NonCritical: len(needs)%2 == 0}
			for need := range strings.SplitSeq(needs, ",") {
				if need != "" {
					c.Needs = append(c.Needs, startup.Need{Component: need})
				}
			}
			components = append(components, c)
		}
		o, err := registry.NewOrchestrator(newRegistry(t, registry.Options{}), startup.Options{MaxConcurrent: most, StartTimeout: time.Duration(timeout)}, components...)
		if err != nil {
			require.NotRegexp(t, `[\x00-\x1f\x7f]`, err.Error())
			var field *registry.FieldError
			var graph *startup.PlanError
			require.True(t, errors.As(err, &field) || errors.As(err, &graph), "%T: %v", err, err)
			return
		}
		plan := o.Plan()
		seen := make(map[string]bool)
		for _, step := range plan.Steps {
			require.False(t, seen[step.Name], "%s comes twice", step.Name)
			for _, link := range step.After {
				require.True(t, seen[link.Name], "%s comes before %s", step.Name, link.Name)
			}
			seen[step.Name] = true
		}
		require.Len(t, plan.Steps, len(components))
		_, err = json.Marshal(plan)
		require.NoError(t, err)
	})
}
