package config_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"regexp"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/config"
)

// everySetting has a field of each type that settings may have.
type everySetting struct {
	Text     string            `json:"text" jsonschema:"required"`
	Key      config.Secret     `json:"key"`
	Whole    int               `json:"whole"`
	Small    int8              `json:"small"`
	Count    uint16            `json:"count"`
	Real     float64           `json:"real"`
	Is       bool              `json:"is"`
	Wait     time.Duration     `json:"wait"`
	Pause    config.Duration   `json:"pause"`
	Cache    config.Size       `json:"cache"`
	Priority registry.Priority `json:"priority"`
	List     []string          `json:"list"`
	Map      map[string]int    `json:"map"`
	Nested   *struct {
		Deep []struct {
			Value int `json:"value"`
		} `json:"deep"`
	} `json:"nested"`
	Any    any                  `json:"any"`
	Policy registry.RetryPolicy `json:"policy"`
	Hidden func()               `json:"-"`
}

func every() config.Kind {
	return config.Bind(llm, "every", func(context.Context, everySetting) (model, error) { return &fakeModel{}, nil })
}

func compile(t *testing.T, kinds ...config.Kind) *jsonschema.Schema {
	t.Helper()
	text, err := config.Schema(kinds...)
	require.NoError(t, err)
	parsed, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	require.NoError(t, err)
	c := jsonschema.NewCompiler()
	require.NoError(t, c.AddResource("schema.json", parsed))
	s, err := c.Compile("schema.json")
	require.NoError(t, err)
	return s
}

// validate returns what a schema has against a text in JSON.
func validate(t *testing.T, s *jsonschema.Schema, text []byte) error {
	t.Helper()
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	require.NoError(t, err)
	return s.Validate(value)
}

// garden makes random documents as JSON, most of them nearly right.
type garden struct{ *rand.Rand }

func pick[T any](g garden, of ...T) T { return of[g.IntN(len(of))] }

// value returns one that fits often.
func (g garden) value() any {
	return pick[any](g, "text", "", "1m30s", "0", "-1.5h", "5", "16MiB", "HIGH", "low", "9", "${env:CONFIG_TEST_ANY:-1}", "$${", "a$b${", "${", "$",
		0, 1, -1, 127, 128, 70000, 1.5, -0.25, 1e3, true, false, []any{}, []any{"a"}, []any{1}, map[string]any{}, map[string]any{"a": 1}, map[string]any{"a": "b"})
}

// fits returns a value of the field that fits, and sometimes one that may not.
func (g garden) fits(field string) any {
	if g.IntN(40) == 0 {
		return g.value()
	}
	switch field {
	case "text", "region", "handler", "version", "description":
		return pick[any](g, "a", "", "b c", "$5")
	case "key":
		return pick[any](g, "k", "${env:CONFIG_TEST_ANY:-1}", "Bearer ${env:CONFIG_TEST_ANY:-x}")
	case "whole", "small", "group", "window", "value":
		return pick[any](g, 0, 1, -7, 100, 2.0)
	case "count":
		return pick[any](g, 0, 65535, 8)
	case "real", "weight", "cost":
		return pick[any](g, 0, 1.5, 3)
	case "is", "mock", "last_resort", "no_traffic", "non_critical":
		return g.IntN(2) == 0
	case "wait", "pause", "attempt_timeout", "prove_within", "start_timeout", "stop_timeout", "decay":
		return pick[any](g, "1s", "1m30s", "0", "1.5h", "100ms")
	case "cache":
		return pick[any](g, "1B", "16MiB", "3GB")
	case "priority":
		return pick[any](g, "HIGH", "normal", "Fallback", "0", "9")
	case "list", "tags", "capabilities", "requires":
		return pick[any](g, []any{}, []any{"a", "b"})
	case "map":
		return pick[any](g, map[string]any{}, map[string]any{"a": 1})
	case "metadata":
		return pick[any](g, map[string]any{}, map[string]any{"a": "b"})
	case "nested":
		return pick[any](g, map[string]any{}, map[string]any{"deep": []any{map[string]any{"value": g.fits("value")}}})
	case "policy", "retry":
		return g.object("retries", "first_delay", "budget", "refund")
	case "breaker":
		return g.object("failure_threshold", "recovery_timeout", "failure_rate", "window")
	case "limits":
		return g.object("max_concurrent", "max_wait", "no_queue", "rate")
	case "health":
		return g.object("interval", "fall", "off", "groups")
	case "retries", "budget", "failure_threshold", "max_concurrent", "fall", "max_restarts":
		return g.IntN(20)
	case "first_delay", "recovery_timeout", "max_wait", "interval":
		return "5s"
	case "refund", "failure_rate", "rate":
		return 0.5
	case "off", "no_queue", "dependants":
		return true
	case "needs":
		return pick[any](g, []any{}, []any{map[string]any{"component": "db"}, map[string]any{"capability": "sql", "optional": true}})
	case "restart":
		return g.object("mode", "max_restarts", "decay", "dependants")
	case "mode":
		return pick[any](g, "never", "always")
	case "groups":
		return []any{"readiness"}
	}
	return g.value()
}

// object returns some of the fields, and seldom an unknown one.
func (g garden) object(fields ...string) map[string]any {
	made := make(map[string]any)
	for _, field := range fields {
		if g.IntN(3) == 0 {
			made[field] = g.fits(field)
		}
	}
	if g.IntN(40) == 0 {
		made["unknown"] = g.value()
	}
	return made
}

func (g garden) provider(i int) map[string]any {
	p := g.object("region", "handler", "version", "description", "group", "window", "weight", "cost", "mock", "last_resort",
		"no_traffic", "attempt_timeout", "prove_within", "priority", "tags", "capabilities", "requires", "metadata",
		"retry", "breaker", "limits", "health")
	p["name"], p["kind"] = fmt.Sprintf("p%d", i), pick[any](g, "every", "every", "every", "every", "every", "every", "other")
	p["settings"] = g.object("key", "whole", "small", "count", "real", "is", "wait", "pause", "cache", "priority", "list", "map", "nested", "any", "policy")
	if g.IntN(20) > 0 {
		p["settings"].(map[string]any)["text"] = g.fits("text") //nolint:forcetypeassert // just made
	}
	if g.IntN(60) == 0 {
		delete(p, pick(g, "name", "kind", "settings"))
	}
	return p
}

func (g garden) document() []byte {
	var providers []any
	for i := range 1 + g.IntN(2) {
		providers = append(providers, g.provider(i))
	}
	document := map[string]any{"services": map[string]any{pick(g, "llm", "llm", "llm", "llm", "llm", "llm", "llm", "other"): map[string]any{"providers": providers}}}
	if g.IntN(4) == 0 {
		document["components"] = map[string]any{"web": g.object("needs", "start_timeout", "stop_timeout", "non_critical", "restart"), "db": g.object("non_critical")}
	}
	if g.IntN(20) == 0 {
		document[pick(g, "x-note", "required", "domains", "queries", "note")] = pick[any](g, "text", []any{}, map[string]any{})
	}
	text, err := json.Marshal(document)
	if err != nil {
		panic(err)
	}
	return text
}

// ofValue matches problems of what a reference stands for.
var ofValue = regexp.MustCompile(`^is "(Bearer )?\$\{env:CONFIG[^"]*": want (a [^l]|true|one of)`)

// The schema and the decoder are of one mind about thousands of documents. Where they are not, the reason is one that
// the schema does not know: a bound of a policy, what several fields have to agree on, or the value of a reference.
func TestSchema_AcceptsWhatTheDecoderAccepts(t *testing.T) {
	t.Parallel()
	s := compile(t, every())
	g := garden{rand.New(rand.NewPCG(1, 6))}
	accepted, refused := 0, 0
	for range 4000 {
		text := g.document()
		d, err := config.Parse("f.json", text)
		if err == nil {
			err = config.Check(d, config.Options{Kinds: []config.Kind{every()}})
		}
		invalid := validate(t, s, text)
		if err == nil {
			accepted++
			require.NoError(t, invalid, "%s", text)
			continue
		}
		refused++
		var problems *config.Error
		require.ErrorAs(t, err, &problems)
		known := false
		for _, p := range problems.Problems {
			known = known || p.Err == nil && !ofValue.MatchString(p.Text)
		}
		require.Equal(t, known, invalid != nil, "%v\n%v\n%s", err, invalid, text)
	}
	require.Greater(t, accepted, 900)
	require.Greater(t, refused, 900)
}

func TestSchema_OfNoKindsLeavesSettingsOpen(t *testing.T) {
	t.Parallel()
	s := compile(t)
	d := parse(t, small)
	text, err := json.Marshal(d)
	require.NoError(t, err)
	require.NoError(t, validate(t, s, text))
	require.NoError(t, validate(t, s, []byte(`{"services": {"any": {"providers": [{"name": "a", "kind": "b", "settings": {"c": 1}}]}}, "x-y": 1}`)))
	for _, wrong := range []string{
		`{}`, `{"services": {}}`, `{"services": {"s": {"providers": [{"name": "a"}]}}}`, `{"services": {"s": {"groups": {"a": {}}}}}`,
		`{"services": {"s": {"provider": []}}}`, `[]`,
	} {
		require.Error(t, validate(t, s, []byte(wrong)), wrong)
	}
}

func TestSchema_IsTheSameEachTime(t *testing.T) {
	t.Parallel()
	first, err := config.Schema(every())
	require.NoError(t, err)
	for range 10 {
		again, err := config.Schema(every())
		require.NoError(t, err)
		require.Equal(t, string(first), string(again))
	}
	_, err = config.Schema(config.Kind{})
	require.ErrorIs(t, err, registry.ErrInvalid)
}
