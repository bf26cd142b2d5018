package registry_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/health"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/startup"
	"github.com/capreg/registry/verdict"
)

// longestReason bounds every text of a reason: the reasons of one provider, each of which quotes a few hundred bytes.
const longestReason = 4096

// Variants of the user's text: that of an attempt's error, a mark, a probe (failing, limping, of a capability, naming
// resources), a factory, an authoriser, a forced breaker, a component that fails, and many names of dependencies. It is
// looked for wherever a text leaves: Info, Explain, errors, history, health, totals, events, and the report of a start.
func TestReasons_AreBoundedAndOfOneLine(t *testing.T) {
	t.Parallel()
	long := errors.New("first\nsecond\r\u2028\x00" + strings.Repeat("é", 1<<13) + "\xff")
	options := registry.Options{Authorize: func(_ context.Context, _, _, provider string) error {
		if provider == "denied" {
			return long
		}
		return nil
	}}
	testkit.Bubble(t, options, func(t *testing.T, reg *registry.Registry) {
		events := reg.Subscribe(1 << 12)
		fails := func(context.Context) error { return long }
		var needs []string
		for i := range 24 {
			needs = append(needs, strings.Repeat("c", 200)+strconv.Itoa(i))
			testkit.Add(t, reg, testkit.Provider{
				Name: strings.Repeat("p", 200) + strconv.Itoa(i), Capabilities: needs[i:], Handler: "far",
				Health: health.Policy{Probe: fails, Fall: 1},
			})
		}
		limps := func(ctx context.Context) error {
			for i := range 100 {
				health.Use(ctx, long.Error()+strconv.Itoa(i), 1)
				health.Use(ctx, strconv.Itoa(i), 1)
			}
			return health.Limp(long)
		}
		probes := make(map[string]health.Probe)
		for _, name := range needs {
			probes[name] = fails
		}
		testkit.Add(t, reg, testkit.Provider{Name: "dependent", Requires: needs, Health: health.Policy{Probe: fails, Fall: 1}})
		testkit.Add(t, reg, testkit.Provider{Name: "limps", Capabilities: needs, Handler: "far", Health: health.Policy{Probe: limps, Capabilities: probes}})
		require.NoError(t, testkit.Add(t, reg, testkit.Provider{Name: "marked"}).MarkUnhealthy(long))
		require.NoError(t, testkit.Add(t, reg, testkit.Provider{Name: "forced"}).ForceOpen(time.Hour, long.Error()))
		testkit.Add(t, reg, testkit.Provider{Name: "not made", Factory: func(context.Context) (testkit.ChatModel, error) { return nil, long }})
		testkit.Add(t, reg, testkit.Provider{Name: "denied"})
		testkit.Add(t, reg, testkit.Provider{Name: "fails", Instance: testkit.Fails(long), Breaker: registry.BreakerPolicy{FailureThreshold: 1}})
		testkit.Add(t, reg, testkit.Provider{Name: "limited", Instance: testkit.Fails(verdict.RateLimited(long, time.Hour))})
		synctest.Wait()
		testkit.Pass(time.Minute)
		_, err := testkit.Ask(t.Context(), testkit.Bind(reg))
		testkit.RequireOneLine(t, err)

		o, err := registry.NewOrchestrator(reg, startup.Options{}, registry.Component{
			Name: "x", Start: func(context.Context, *startup.Run) error { return long },
		})
		require.NoError(t, err)
		report, err := o.Start(t.Context())
		testkit.RequireOneLine(t, err)

		shown := map[string]any{
			"infos": testkit.Infos(reg), "health": reg.Health(), "stats": reg.Stats(), "report": report,
			"explained": testkit.Bind(reg).Explain(), "explained to far": testkit.Chat.Bind(reg, registry.Query{Handler: "far"}).Explain(),
		}
		for info := range reg.All() {
			handle, _ := reg.Provider("chat", info.Name)
			shown["history of "+info.Name] = handle.HealthHistory()
		}
		for i, e := range testkit.Events(t, events) {
			e.Err = nil // a user's, as it is
			shown[fmt.Sprintf("event %d, %v", i, e.Kind)] = e
		}
		for what, value := range shown {
			text, err := json.Marshal(value)
			require.NoError(t, err, what)
			var plain any
			require.NoError(t, json.Unmarshal(text, &plain))
			eachText(plain, func(text string) {
				require.LessOrEqual(t, len(text), longestReason, "%s: %.300s", what, text)
				require.Equal(t, -1, strings.IndexFunc(text, func(r rune) bool {
					return unicode.IsControl(r) || r == '\u2028' || r == '\u2029'
				}), "%s: %.300q", what, text)
			})
		}
		require.Equal(t, len(testkit.Bind(reg).Explain().Candidates), strings.Count(testkit.Bind(reg).Explain().String(), "\n"))
	})
}

// eachText calls yield with every text of a JSON value, keys too.
func eachText(value any, yield func(string)) {
	switch value := value.(type) {
	case string:
		yield(value)
	case []any:
		for _, item := range value {
			eachText(item, yield)
		}
	case map[string]any:
		for key, item := range value {
			yield(key)
			eachText(item, yield)
		}
	}
}
