package config_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/config"
	"github.com/capreg/registry/registrytest"
	"github.com/capreg/registry/selectors"
)

// model is what the providers of the tests are.
type model interface{ Answer() string }

var llm = registry.NewService[model]("llm")

// modelSettings are those of the kind "model".
type modelSettings struct {
	Model string        `json:"model"`
	Key   config.Secret `json:"key"`
	Port  int           `json:"port"`
	Fail  string        `json:"fail"`
	Cache config.Size   `json:"cache"`
}

func (s modelSettings) Validate() error {
	if s.Port < 0 {
		return errors.New("port is negative")
	}
	return nil
}

// workshop makes the instances of the tests, and counts them.
type workshop struct {
	mu     sync.Mutex
	made   []modelSettings
	open   atomic.Int64
	before func(ctx context.Context, s modelSettings) error // runs in each factory; nil: nothing
	wrong  string                                           // a key that is refused; empty: none
}

// refuse makes the factory refuse a key.
func (w *workshop) refuse(key string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wrong = key
}

type fakeModel struct {
	modelSettings
	closed atomic.Bool
	of     *workshop
}

func (m *fakeModel) Answer() string { return m.Model }

func (m *fakeModel) Close() error {
	if !m.closed.Swap(true) {
		m.of.open.Add(-1)
	}
	return nil
}

func (w *workshop) make(ctx context.Context, s modelSettings) (model, error) {
	w.mu.Lock()
	w.made = append(w.made, s)
	wrong := w.wrong != "" && w.wrong == s.Key.Reveal()
	w.mu.Unlock()
	if wrong {
		return nil, errors.New("unknown key " + s.Key.Reveal())
	}
	if w.before != nil {
		if err := w.before(ctx, s); err != nil {
			return nil, err
		}
	}
	if s.Fail != "" {
		return nil, errors.New(s.Fail + " with key " + s.Key.Reveal())
	}
	w.open.Add(1)
	return &fakeModel{modelSettings: s, of: w}, nil
}

// last returns the settings that were used last.
func (w *workshop) last() modelSettings {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.made[len(w.made)-1]
}

func (w *workshop) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.made)
}

// manage returns a registry, its manager and the workshop of its kind.
func manage(t *testing.T, more ...config.Kind) (*registry.Registry, *config.Manager, *workshop) {
	t.Helper()
	w := &workshop{}
	reg := registrytest.New(t, registry.Options{Strategies: selectors.All()})
	m, err := config.New(reg, config.Options{Kinds: append(more, config.Bind(llm, "model", w.make))})
	require.NoError(t, err)
	return reg, m, w
}

func parse(t *testing.T, text string) *config.Document {
	t.Helper()
	d, err := config.Parse("a.yaml", []byte(text))
	require.NoError(t, err)
	return d
}

// models returns a document whose service "llm" has these providers.
func models(providers ...string) string {
	var b strings.Builder
	b.WriteString("services:\n  llm:\n    providers:\n")
	for _, p := range providers {
		b.WriteString("    - {kind: model, " + p + "}\n")
	}
	return b.String()
}

func apply(t *testing.T, m *config.Manager, text string) *config.Plan {
	t.Helper()
	plan, err := m.Apply(t.Context(), parse(t, text))
	require.NoError(t, err)
	return plan
}

// listing describes all that a registry has, for comparisons.
func listing(reg *registry.Registry) (all []registry.Info) {
	for info := range reg.All() {
		all = append(all, info)
	}
	return all
}

// ask returns the answer of the provider that a call gets.
func ask(t *testing.T, reg *registry.Registry) string {
	t.Helper()
	answer, err := registry.Call(t.Context(), llm.Bind(reg, registry.Query{}), func(_ context.Context, m model) (string, error) {
		return m.Answer(), nil
	})
	require.NoError(t, err)
	return answer
}
