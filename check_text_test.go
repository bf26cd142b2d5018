package registry_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/health"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/selection"
)

// refusedLines are texts that no field of one line takes.
func refusedLines() []string {
	return []string{strings.Repeat("9", 257), strings.Repeat("9", 1<<20), "\xff", "a\nb", "a\x00b", "a\u2028b"}
}

func manyWords() []string {
	words := make([]string, 20_000)
	for i := range words {
		words[i] = fmt.Sprint("capability", i)
	}
	return words
}

// Fields with a default besides the empty text are here as well: each that is kept, multiplied or published.
func TestTexts_OfProvidersAreBounded(t *testing.T) {
	t.Parallel()
	reg := testkit.New(t, registry.Options{})
	for _, bad := range refusedLines() {
		for field, p := range map[string]testkit.Provider{
			"Name": {Name: bad}, "Handler": {Handler: bad}, "Region": {Region: bad}, "Version": {Version: bad}, "Domain": {Domain: bad}, "Team": {Team: bad},
			"Capabilities[0]": {Capabilities: []string{bad}}, "Requires[0]": {Requires: []string{bad}}, "Tags[0]": {Tags: []string{bad}},
			"Health.Groups[0]": {Health: health.Policy{Groups: []string{bad}}},
			"Metadata":         {Metadata: map[string]string{bad: "x"}},
			`Metadata["x"]`:    {Metadata: map[string]string{"x": strings.Repeat(bad, 100) + "\x00"}},
			"Description":      {Description: strings.Repeat(bad, 100) + "\x00"},
			"Endpoint":         {Endpoint: "https://host/" + strings.Repeat("x", 1<<20)},
			"Documentation":    {Documentation: "https://host/" + strings.Repeat("x", 1<<20)},
			`Endpoints["x"]`:   {Endpoints: map[string]string{"x": "https://host/" + strings.Repeat("x", 1<<20)}},
			"Endpoints":        {Endpoints: map[string]string{bad: "https://host"}},
		} {
			p.Instance = testkit.Says("x")
			_, err := testkit.Chat.Register(t.Context(), reg, p)
			var refused *registry.FieldError
			require.ErrorAs(t, err, &refused, field)
			require.Contains(t, refused.Field, strings.TrimSpace(field))
			testkit.RequireOneLine(t, err)
			require.Less(t, len(err.Error()), 1000)
		}
		_, err := registry.NewService[int](bad).Get(t.Context(), reg, registry.Query{})
		require.ErrorIs(t, err, registry.ErrInvalid)
	}
	for field, p := range map[string]testkit.Provider{
		"Capabilities": {Capabilities: manyWords()}, "Requires": {Requires: manyWords()}, "Tags": {Tags: manyWords()},
		"Health.Groups": {Health: health.Policy{Groups: manyWords()}},
	} {
		p.Instance = testkit.Says("x")
		_, err := testkit.Chat.Register(t.Context(), reg, p)
		require.ErrorContains(t, err, field+" is 20000 words: want at most 256 words")
	}
	require.Zero(t, reg.Stats().Providers)
	require.NoError(t, reg.Close(t.Context()))
}

func TestTexts_OfQueriesAreBounded(t *testing.T) {
	t.Parallel()
	reg := testkit.New(t, registry.Options{})
	testkit.Add(t, reg, testkit.Provider{Name: "a", Version: "1"})
	queries := map[string]registry.Query{
		"Query.Require": {Require: manyWords()}, "Query.Prefer": {Prefer: manyWords()},
		"Query.Where.Tags":    {Where: selection.Requirements{Tags: manyWords()}},
		"Query.Where.Regions": {Where: selection.Requirements{Regions: manyWords()}},
		"Query.Where.Exclude": {Where: selection.Requirements{Exclude: manyWords()}},
	}
	for i, bad := range refusedLines() {
		key := strings.Repeat(" ", i)
		queries["Query.Handler"+key] = registry.Query{Handler: bad}
		queries["Query.Near"+key] = registry.Query{Near: bad}
		queries["Query.Require[0]"+key] = registry.Query{Require: []string{bad}}
		queries["Query.Where.MinVersion"+key] = registry.Query{Where: selection.Requirements{MinVersion: bad}}
	}
	for field, q := range queries {
		for name, err := range map[string]error{"bound": testkit.Chat.Bind(reg, q).Explain().Err, "in passing": second(testkit.Chat.Get(t.Context(), reg, q))} {
			var refused *registry.FieldError
			require.ErrorAs(t, err, &refused, name)
			require.Equal(t, strings.TrimSpace(field), refused.Field)
			require.Less(t, len(err.Error()), 1000)
		}
	}
	require.NoError(t, reg.Close(t.Context()))
}

func second[T any](_ T, err error) error { return err }

// Calls and leases.
func TestTexts_OfCallersAreBounded(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a", Limits: registry.LimitPolicy{Rate: 1, Burst: 1}})
		for _, bad := range refusedLines() {
			_, err := testkit.Ask(t.Context(), testkit.Bind(reg), registry.Caller(bad))
			require.ErrorIs(t, err, registry.ErrInvalid)
			testkit.RequireOneLine(t, err)
			require.Less(t, len(err.Error()), 1000)
			_, err = testkit.Bind(reg).Acquire(t.Context(), registry.Caller(bad))
			require.ErrorIs(t, err, registry.ErrInvalid)
		}
		require.Zero(t, a.Info().Attempts)
		testkit.MustAsk(t, testkit.Bind(reg), registry.Caller("team a"))
	})
}

// A reason is cut rather than refused: the breaker has to open, whatever the reason. Marks have reasons as well.
func TestTexts_OfReasonsAreCut(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
		a := testkit.Add(t, reg, testkit.Provider{Name: "a"})
		for _, bad := range refusedLines() {
			require.NoError(t, a.ForceOpen(time.Second, bad))
			require.NoError(t, a.MarkUnhealthy(fmt.Errorf("%s", bad))) //nolint:err113 // a text of the test
			for _, reason := range []string{a.Breaker().Reason, a.Health().Reason} {
				require.LessOrEqual(t, len(reason), 256)
				require.Equal(t, strings.ToValidUTF8(reason, ""), reason)
				require.NotContains(t, reason, "\n")
			}
		}
	})
}
