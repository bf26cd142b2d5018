package config_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/config"
)

const small = `
required: [llm]
domains:
  key: {limits: {max_concurrent: 8, max_wait: 2s}}
services:
  llm:
    selection: {spill_over: 1.4}
    groups:
      1: {strategy: ROUND_ROBIN}
    providers:
      - name: primary
        kind: model
        settings: {model: big}
        domain: key
        priority: HIGH
        attempt_timeout: 1m30s
        breaker: {failure_threshold: 3, recovery_timeout: 2m}
        health: {interval: 10s}
      - {name: backup, kind: model, group: 1, weight: 2.5, tags: [cheap], metadata: {team: insight}}
queries:
  chat: {service: llm, require: [chat], where: {max_latency: 1s}}
`

// problemsOf returns the problems of a text that is refused.
func problemsOf(t *testing.T, text string) (lines []string) {
	t.Helper()
	_, err := config.Parse("a.yaml", []byte(text))
	var refused *config.Error
	require.ErrorAs(t, err, &refused)
	for _, p := range refused.Problems {
		lines = append(lines, p.String())
	}
	return lines
}

// with returns a document whose only provider has these fields too.
func with(fields string) string {
	return "services:\n  s:\n    providers:\n    - {name: a, kind: k, " + fields + "}\n"
}

func TestDocument_IsReadWithDurationsAsText(t *testing.T) {
	t.Parallel()
	d, err := config.Parse("a.yaml", []byte(small))
	require.NoError(t, err)
	require.Equal(t, []string{"llm"}, d.Required)
	require.Equal(t, registry.LimitPolicy{MaxConcurrent: 8, MaxWait: 2 * time.Second}, d.Domains["key"].Limits)
	llm := d.Services["llm"]
	require.InDelta(t, 1.4, llm.Selection.SpillOver, 0)
	require.Equal(t, "ROUND_ROBIN", llm.Groups[1].Strategy.String())
	require.Len(t, llm.Providers, 2)
	p := llm.Providers[0]
	require.Equal(t, registry.PriorityHigh, p.Priority)
	require.Equal(t, config.Duration(90*time.Second), p.AttemptTimeout)
	require.Equal(t, registry.BreakerPolicy{FailureThreshold: 3, RecoveryTimeout: 2 * time.Minute}, p.Breaker)
	require.Equal(t, 10*time.Second, p.Health.Interval)
	require.InDelta(t, 2.5, llm.Providers[1].Weight, 0)
	require.Equal(t, time.Second, d.Queries["chat"].Where.MaxLatency)
	require.Equal(t, []string{"chat"}, d.Queries["chat"].Require)
}

func TestDocument_IsTheSameInJSON(t *testing.T) {
	t.Parallel()
	d, err := config.Parse("a.yaml", []byte(small))
	require.NoError(t, err)
	text, err := json.Marshal(d)
	require.NoError(t, err)
	again, err := config.Parse("a.json", text)
	require.NoError(t, err, "%s", text)
	second, err := json.Marshal(again)
	require.NoError(t, err)
	require.JSONEq(t, string(text), string(second))
	require.Contains(t, string(text), `"recovery_timeout":"2m"`)
	require.Contains(t, string(text), `"attempt_timeout":"1m30s"`)
}

func TestDocument_UnknownFieldsAreToldWithPlaceAndNearestName(t *testing.T) {
	t.Parallel()
	require.Equal(t, []string{
		`a.yaml:1:1: domain: unknown field, did you mean "domains"?`,
		`a.yaml:4:5: services.s.provider: unknown field, did you mean "providers"?`,
		`a.yaml:8:9: services.s.providers[a].prioritty: unknown field, did you mean "priority"?`,
		`a.yaml:9:19: services.s.providers[a].breaker.failure_treshold: unknown field, did you mean "failure_threshold"?`,
		`a.yaml:10:9: services.s.providers[a].colour: unknown field`,
	}, problemsOf(t, `domain: {}
services:
  s:
    provider: []
    providers:
      - name: a
        kind: k
        prioritty: HIGH
        breaker: {failure_treshold: 3}
        colour: red
`))
}

func TestDocument_WrongValuesAreToldTogether(t *testing.T) {
	t.Parallel()
	for fields, want := range map[string]string{
		"group: one":                            `group: is "one": want a whole number`,
		"group: 1.5":                            "group: is 1.5: want a whole number",
		"group: 99999999999999999999":           "group: is 99999999999999999999: want a whole number",
		"weight: .nan":                          "weight: is .nan: want a number",
		"weight: [1]":                           "weight: is a list: want one value",
		"mock: yes please":                      `mock: is "yes please": want true or false`,
		"version: 1.10":                         "version: is 1.10: want a text; put it in quotes",
		"region: ":                              "region: is empty: want a text; put it in quotes",
		"priority: URGENT":                      `priority: is "URGENT": want one of CRITICAL`,
		"attempt_timeout: 30":                   "attempt_timeout: is 30: want a text",
		"attempt_timeout: soon":                 `attempt_timeout: is "soon": want a duration such as "1m30s"`,
		"breaker: {window: 10}":                 "breaker.window: is 10: want a text",
		"tags: cheap":                           `tags: is "cheap": want a list`,
		"metadata: [a]":                         "metadata: is a list: want fields",
		"settings: 1":                           "settings: is 1: want fields",
		"group: 1, group: 2":                    "group: is there twice",
		"endpoint: '${env:URL}'":                `endpoint: "${env:URL}" is a reference: want it in the settings of a provider`,
		"domain: d":                             `domain: "d" is not one of the domains`,
		"no_timeout: true, attempt_timeout: 1s": "no_timeout: excludes attempt_timeout",
	} {
		require.Contains(t, problemsOf(t, with(fields))[0], want, fields)
	}
	require.Len(t, problemsOf(t, with("group: one, weight: two, mock: 3")), 3)
}

func TestDocument_MissingFieldsAreTold(t *testing.T) {
	t.Parallel()
	require.Equal(t, []string{
		"a.yaml:4:7: services.s.providers[0]: name is missing",
		"a.yaml:4:7: services.s.providers[0]: kind is missing",
	}, problemsOf(t, "services:\n  s:\n    providers:\n    - {group: 1}\n"))
	for text, want := range map[string]string{
		"":                   "a.yaml: is empty",
		"# nothing":          "a.yaml: is empty",
		"~":                  "a.yaml: is empty",
		"[]":                 "a.yaml:1:1: is a list: want fields",
		"services: {}":       "services: there are none",
		"a: b: c":            "a.yaml: mapping values are not allowed",
		"services:\n\t- a":   "a.yaml:2:1: found character that cannot start any token",
		with("") + "---\n{}": "is a second document",
		"include: [b.yaml]":  "only a document of a file can include others",
		"required: [t]\n" + with("") + "queries: {q: {service: t}}": `required: "t" has no provider`,
		with("") + "    groups: {1: {}}":                            "services.s.groups.1: no provider is in the group",
		with("") + "    - {name: a, kind: k}":                       "services.s.providers[a]: is there twice",
	} {
		require.Contains(t, strings.Join(problemsOf(t, text), "\n"), want, text)
	}
}

func TestDocument_AnchorsAndMergeKeysWork(t *testing.T) {
	t.Parallel()
	d, err := config.Parse("a.yaml", []byte(`
x-usual: &usual {kind: model, priority: LOW, breaker: {failure_threshold: 7}}
x-more: &more {kind: other, region: eu}
services:
  llm:
    providers:
      - {<<: *usual, name: a}
      - {<<: [*usual, *more], name: b, priority: HIGH}
      - {name: c, kind: model, tags: &tags [x, y]}
      - {name: d, kind: model, tags: *tags}
`))
	require.NoError(t, err)
	p := d.Services["llm"].Providers
	require.Equal(t, "model", p[0].Kind)
	require.Equal(t, 7, p[0].Breaker.FailureThreshold)
	require.Equal(t, registry.PriorityHigh, p[1].Priority)
	require.Equal(t, "model", p[1].Kind, "the first one of a list takes precedence")
	require.Equal(t, "eu", p[1].Region)
	require.Equal(t, []string{"x", "y"}, p[3].Tags)
}

func TestDocument_AliasesThatExplodeAreRefused(t *testing.T) {
	t.Parallel()
	var bomb strings.Builder
	bomb.WriteString("x-a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n")
	for i := 1; i < 10; i++ {
		previous := string(rune('0' + i - 1))
		bomb.WriteString("x-a" + string(rune('0'+i)) + ": &a" + string(rune('0'+i)) + " [" + strings.Repeat("*a"+previous+", ", 9) + "*a" + previous + "]\n")
	}
	bomb.WriteString(with("tags: *a9"))
	require.NotEmpty(t, problemsOf(t, bomb.String()))
	require.NotEmpty(t, problemsOf(t, "x-a: &a [*a]\n"+with("tags: *a")))
}

func TestDocument_ProblemsAreOneError(t *testing.T) {
	t.Parallel()
	_, err := config.Parse("", []byte(with("group: one, mock: 3")))
	require.EqualError(t, err, `config: 4:33: services.s.providers[a].group: is "one": want a whole number; `+
		`4:44: services.s.providers[a].mock: is 3: want true or false`)
	require.NotErrorIs(t, err, errors.ErrUnsupported)
}

func TestSize_IsReadAndWrittenAsText(t *testing.T) {
	t.Parallel()
	for text, bytes := range map[string]config.Size{
		"0B": 0, "512B": 512, "1kB": 1000, "1KiB": 1024, "16MiB": 16 << 20, "2GB": 2e9, "3TiB": 3 << 40,
	} {
		var s config.Size
		require.NoError(t, s.UnmarshalText([]byte(text)))
		require.Equal(t, bytes, s)
		require.Equal(t, text, s.String())
	}
	for _, text := range []string{"", "1", "1.5MiB", "-1B", "1 MB", "1mb", "9999999999TiB"} {
		s := config.Size(7)
		require.Error(t, s.UnmarshalText([]byte(text)), text)
		require.Equal(t, config.Size(7), s)
	}
}

func FuzzParse_NeverPanics(f *testing.F) {
	f.Add([]byte(small))
	f.Add([]byte("a: &a [*a]"))
	f.Fuzz(func(t *testing.T, text []byte) {
		d, err := config.Parse("f.yaml", text)
		require.Equal(t, err == nil, d != nil)
		if d == nil {
			return
		}
		written, err := json.Marshal(d)
		require.NoError(t, err)
		_, err = config.Parse("f.json", written)
		require.NoError(t, err, "%s", written)
	})
}
