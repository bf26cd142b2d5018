package config_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/config"
)

// routes is a form of a program's own.
type routes struct {
	Key     config.Secret                     `json:"key"`
	Timeout config.Duration                   `json:"timeout"`
	Memory  config.Size                       `json:"memory"`
	Breaker map[string]registry.BreakerPolicy `json:"breakers"`
	Models  []string                          `json:"models"`
}

func (r *routes) Validate() error {
	switch {
	case len(r.Models) == 0:
		return errors.New("models are missing for the key " + r.Key.Reveal())
	case r.Timeout < 0:
		return errors.Join(errors.New("timeout is too short"), errors.New("there is no way back"))
	}
	return nil
}

func TestLoadAs_ReadsAFormOfTheProgram(t *testing.T) {
	t.Setenv("OWN_KEY", "opensesame")
	file := filepath.Join(t.TempDir(), "routes.yaml")
	require.NoError(t, os.WriteFile(file, []byte(`
x-policy: &policy {failure_threshold: 7, recovery_timeout: 2m}
key: ${env:OWN_KEY}
timeout: 1m30s
memory: 16MiB
breakers: {a: *policy}
models: [one, "${env:OWN_ABSENT:-two}"]
`), 0o600))
	got, err := config.LoadAs[routes](file)
	require.NoError(t, err)
	require.Equal(t, routes{
		Key: "opensesame", Timeout: config.Duration(90 * time.Second), Memory: 16 << 20,
		Breaker: map[string]registry.BreakerPolicy{"a": {FailureThreshold: 7, RecoveryTimeout: 2 * time.Minute}}, Models: []string{"one", "two"},
	}, got)
	_, err = config.LoadAs[routes](file + "x")
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestParseAs_TellsAllThatIsWrongWithItsPlace(t *testing.T) {
	t.Setenv("OWN_KEY", "opensesame")
	for text, want := range map[string]string{
		"keys: a\nmodels: [1, {}]\ntimeout: soon": `config: r:1:1: keys: unknown field, did you mean "key"?; ` +
			`r:2:10: models[0]: is 1: want a text; put it in quotes; r:2:13: models[1]: is a mapping: want one value; r:3:10: timeout: is "soon": want a duration such as "1m30s"`,
		`{"key": "${env:OWN_KEY}"}`:           "config: r:1:1: models are missing for the key ${env:OWN_KEY}",
		"models: [a]\ntimeout: -1s":           "config: r:1:1: timeout is too short; r:1:1: there is no way back",
		"":                                    "config: r: is empty: want a document",
		"{}\n---\n{}":                         "config: r:2:1: is a second document: want one",
		"[1, 2]":                              "config: r:1:1: is a list: want fields",
		"key: ${env:OWN_ABSENT}\nmodels: [a]": "config: r:1:6: key: ${env:OWN_ABSENT}: the variable is not set",
	} {
		got, err := config.ParseAs[routes]("r", []byte(text))
		require.EqualError(t, err, want)
		require.Zero(t, got)
	}
}
