package config_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/capreg/registry"
	"github.com/capreg/registry/config"
	"github.com/capreg/registry/registrytest"
)

const secret = "s3cr+t/value"

// literally writes a path in a single-quoted text of YAML.
func literally(path string) string { return filepath.ToSlash(path) }

func TestReference_StandsForVariablesFilesAndDefaults(t *testing.T) {
	t.Setenv("CONFIG_TEST_KEY", secret)
	t.Setenv("CONFIG_TEST_EMPTY", "")
	file := literally(filepath.Join(write(t, map[string]string{"key": "of a file\n"}), "key"))
	_, m, w := manage(t)
	for text, want := range map[string]string{
		"${env:CONFIG_TEST_KEY}":                              secret,
		"Bearer ${env:CONFIG_TEST_KEY}!":                      "Bearer " + secret + "!",
		"${file:" + file + "}":                                "of a file",
		"${env:CONFIG_TEST_ABSENT:-usual}":                    "usual",
		"${env:CONFIG_TEST_ABSENT:-}":                         "",
		"${env:CONFIG_TEST_EMPTY:-usual}":                     "",
		"${file:/nowhere/at/all:-usual}":                      "usual",
		"$${env:CONFIG_TEST_KEY} costs $5":                    "${env:CONFIG_TEST_KEY} costs $5",
		"${env:CONFIG_TEST_KEY}-${env:CONFIG_TEST_ABSENT:-b}": secret + "-b",
	} {
		apply(t, m, models(fmt.Sprintf("name: a, settings: {model: %q, key: %q}", text, text)))
		require.Equal(t, want, w.last().Model, text)
		require.Equal(t, want, w.last().Key.Reveal(), text)
	}
}

func TestReference_OnesThatStandForNothingAreTold(t *testing.T) {
	t.Parallel()
	_, m, _ := manage(t)
	for text, want := range map[string]string{
		"${env:CONFIG_TEST_ABSENT}": "${env:CONFIG_TEST_ABSENT}: the variable is not set",
		"${file:/nowhere/at/all}":   "${file:/nowhere/at/all}: stat /nowhere/at/all: no such file",
		"${file:/}":                 "no regular file",
		"${vault:key}":              `"${vault:key}" is no reference: want ${env:NAME} or ${file:PATH}`,
		"${env:}":                   "is no reference",
		"${":                        "is no reference",
	} {
		_, err := m.Plan(t.Context(), parse(t, models(fmt.Sprintf("name: a, settings: {model: %q}", text))))
		require.ErrorContains(t, err, want, text)
	}
}

func TestReference_ValuesAreShownNowhere(t *testing.T) {
	t.Setenv("CONFIG_TEST_KEY", secret)
	var log bytes.Buffer
	logger := zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), zapcore.AddSync(&log), zap.DebugLevel))
	reg := registrytest.New(t, registry.Options{Logger: logger})
	var seen bytes.Buffer // all that a person could see
	leaky := config.BindImplementation(llm, "leaky", func(s modelSettings) (config.Implementation[model], error) {
		fmt.Fprintf(&seen, "%v %+v %#v %s\n", s, s, s, s.Key)
		if s.Fail == "implement" {
			return config.Implementation[model]{}, errors.New("wrong key " + s.Key.Reveal())
		}
		return config.Implementation[model]{
			Factory: func(context.Context) (model, error) {
				switch s.Fail {
				case "error":
					return nil, fmt.Errorf("GET https://host/?key=s3cr%%2Bt%%2Fvalue: refused %q: %w", s.Key.Reveal(), os.ErrPermission)
				case "panic":
					panic("key " + s.Key.Reveal())
				}
				return &fakeModel{modelSettings: s, of: &workshop{}}, nil
			},
			Probe: func(context.Context) error {
				if s.Fail == "probe" {
					return errors.New("401 for " + s.Key.Reveal())
				}
				return nil
			},
		}, nil
	})
	m, err := config.New(reg, config.Options{Kinds: []config.Kind{leaky}, Listen: func(e config.Event) {
		text, err := json.Marshal(e)
		fmt.Fprintln(&seen, e, string(text), err)
	}})
	require.NoError(t, err)
	events := reg.Subscribe(1000)
	document := func(fail, key string) *config.Document {
		return parse(t, fmt.Sprintf("services: {llm: {providers: [{name: a, kind: leaky, health: {fall: 1}, settings: {fail: %q, key: %q, model: m}}]}}", fail, key))
	}
	for _, key := range []string{"${env:CONFIG_TEST_KEY}", secret} { // literal, in a field that is a Secret
		for _, fail := range []string{"implement", "error", "panic", "probe", ""} {
			plan, err := m.Apply(t.Context(), document(fail, key))
			require.Equal(t, fail == "", err == nil, "%v", err)
			fmt.Fprintln(&seen, plan, err)
			fmt.Fprintf(&seen, "%+v %#v", err, err)
			text, failed := json.Marshal(plan)
			require.NoError(t, failed)
			seen.Write(text)
		}
	}
	_, err = m.Apply(t.Context(), document("error", "${env:CONFIG_TEST_KEY}"))
	require.ErrorIs(t, err, os.ErrPermission, "it still matches what it matched")
	t.Setenv("CONFIG_TEST_KEY", "another one of them")
	plan, err := m.Apply(t.Context(), document("", "${env:CONFIG_TEST_KEY}"))
	require.NoError(t, err)
	fmt.Fprintln(&seen, plan)
	for _, info := range listing(reg) {
		text, err := json.Marshal(info)
		require.NoError(t, err)
		seen.Write(text)
	}
	require.NoError(t, reg.Close(t.Context()))
	for {
		e, err := events.Next(t.Context())
		if err != nil {
			break
		}
		text, err := json.Marshal(e)
		require.NoError(t, err)
		seen.Write(text)
	}
	all := seen.String() + log.String()
	require.Contains(t, all, "has not proven itself")
	for _, form := range []string{secret, "s3cr", "another one"} {
		require.NotContains(t, all, form)
	}
}

func TestSecret_IsNeverPrinted(t *testing.T) {
	t.Parallel()
	s := struct{ Key config.Secret }{secret}
	text, err := json.Marshal(s)
	require.NoError(t, err)
	require.NotContains(t, fmt.Sprintf("%v %+v %#v %s %q", s, s, s, s.Key, s.Key)+string(text), "s3cr")
	require.Equal(t, secret, s.Key.Reveal())
}
