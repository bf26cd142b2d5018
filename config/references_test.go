package config_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
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

// Settings that are the same in the next document are not decoded again, but their secrets are known to it.
func TestSecret_IsHiddenInLaterDocumentsToo(t *testing.T) {
	t.Parallel()
	_, m, w := manage(t)
	const settings = ", settings: {model: x, key: " + secret + "}"
	for range 3 {
		apply(t, m, models("name: a"+settings))
	}
	w.refuse(secret)
	_, err := m.Apply(t.Context(), parse(t, models("name: a, tags: [t]"+settings)))
	require.ErrorContains(t, err, "unknown key [secret]")
	require.NotContains(t, err.Error(), secret)
}

func TestSecret_IsNeverPrinted(t *testing.T) {
	t.Parallel()
	s := struct{ Key config.Secret }{secret}
	text, err := json.Marshal(s)
	require.NoError(t, err)
	require.NotContains(t, fmt.Sprintf("%v %+v %#v %s %q", s, s, s, s.Key, s.Key)+string(text), "s3cr")
	require.Equal(t, secret, s.Key.Reveal())
}

// Variants: the file of a reference is written in place, renamed over, a link that is turned as Kubernetes does, deleted
// and made again; the document is of a file or of a program.
func TestReference_FilesThatChangeAreANewVersionOfTheDocument(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("files that are open cannot be replaced")
	}
	turn := func(t *testing.T, path, text string) {
		t.Helper()
		dir, err := os.MkdirTemp(filepath.Dir(path), "..version") //nolint:usetesting // beside the link
		require.NoError(t, err)
		put(t, filepath.Join(dir, "key"), text)
		require.NoError(t, os.Symlink(filepath.Join(filepath.Base(dir), "key"), path+".new"))
		require.NoError(t, os.Rename(path+".new", path))
	}
	for situation, change := range map[string]func(t *testing.T, path, text string){
		"written in place": put,
		"renamed over":     replace,
		"link turned":      turn,
		"deleted and made again": func(t *testing.T, path, text string) {
			t.Helper()
			require.NoError(t, os.Remove(path))
			put(t, path, text)
		},
	} {
		t.Run(situation, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			path := filepath.Join(dir, "key")
			put(t, path, secret+" 0\n")
			var v config.Value
			v.Set(parse(t, models("name: other", fmt.Sprintf("name: a, settings: {key: '${file:%s}'}", path))))
			f := follow(t, &v, quick())
			f.until(t, config.Applied, "other", "a")
			require.Equal(t, secret+" 0", f.keyOf("a"))
			other, _ := f.reg.Provider("llm", "other")
			before := other.Info().Generation
			for i := range 3 {
				change(t, path, fmt.Sprintln(secret, i+1))
				var plan *config.Plan
				for plan == nil || plan.Count(config.Replace) == 0 || f.keyOf("a") != fmt.Sprint(secret, " ", i+1) {
					plan = f.until(t, config.Applied).Plan // one that was empty or missing for a moment may have been seen
				}
				require.Contains(t, plan.String(), "settings (value of a reference) → (another value)")
				require.NotContains(t, plan.String(), "s3cr")
			}
			require.Equal(t, before, other.Info().Generation, "it has no reference")
		})
	}
}

// keyOf returns the key in the settings of a provider's instance.
func (f *following) keyOf(name string) (key string) {
	_, _ = registry.Call(context.Background(), llm.Bind(f.reg, registry.Query{Only: []string{name}}), func(_ context.Context, m model) (string, error) {
		key = m.(*fakeModel).Key.Reveal() //nolint:forcetypeassert // of the workshop
		return key, nil
	})
	return key
}

// A value that no provider can work with is refused, and the instance with the last good one stays.
func TestReference_FileWithAWrongValueLeavesTheLastGoodOne(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "key")
	put(t, path, secret)
	var v config.Value
	v.Set(parse(t, models(fmt.Sprintf("name: a, settings: {key: '${file:%s}'}", path))))
	f := follow(t, &v, quick())
	f.until(t, config.Applied, "a")
	f.w.refuse(secret + " wrong")
	replace(t, path, secret+" wrong")
	e := f.until(t, config.Refused)
	require.ErrorContains(t, e.Err, "unknown key")
	require.NotContains(t, e.String(), "s3cr")
	require.Equal(t, secret, f.keyOf("a"))
	f.w.refuse("")
	replace(t, path, secret+" right")
	for f.keyOf("a") != secret+" right" {
		f.until(t, config.Applied)
	}
}

func refersTo(t *testing.T, d *config.Document, path string) bool {
	t.Helper()
	text, err := json.Marshal(d.Services["llm"].Providers[0].Settings)
	require.NoError(t, err)
	return strings.Contains(string(text), path)
}

// A document with other references has other files watched.
func TestReference_FilesAreWatchedWhileADocumentNamesThem(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first, second := filepath.Join(dir, "first"), filepath.Join(dir, "second", "key")
	put(t, first, secret)
	require.NoError(t, os.Mkdir(filepath.Dir(second), 0o700))
	put(t, second, secret)
	with := func(path string) *config.Document {
		return parse(t, models(fmt.Sprintf("name: a, settings: {key: '${file:%s}'}", path)))
	}
	var v config.Value
	v.Set(parse(t, models("name: a")))
	f := follow(t, &v, quick())
	f.until(t, config.Applied, "a")
	v.Set(with(first))
	for f.keyOf("a") != secret {
		f.until(t, config.Applied)
	}
	v.Set(with(second))
	for !refersTo(t, f.m.Current(), second) {
		f.until(t, config.Applied)
	}
	replace(t, second, secret+" 2")
	for f.keyOf("a") != secret+" 2" {
		f.until(t, config.Applied)
	}
	made := f.w.count()
	replace(t, first, secret+" 3")
	replace(t, second, secret+" 4")
	for f.keyOf("a") != secret+" 4" {
		f.until(t, config.Applied)
	}
	require.Equal(t, made+1, f.w.count())
}
