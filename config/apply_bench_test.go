package config_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/config"
	"github.com/capreg/registry/registrytest"
)

// thousand returns a document with a thousand providers in ten services, the settings of every tenth by a version.
func thousand(version int) string {
	var b strings.Builder
	b.WriteString("services:\n")
	for s := range 10 {
		fmt.Fprintf(&b, "  s%d:\n    groups: {1: {strategy: ROUND_ROBIN}}\n    providers:\n", s)
		for p := range 100 {
			of := 0
			if p%10 == 0 {
				of = version
			}
			fmt.Fprintf(&b, "    - {name: p%d-%d, kind: model, settings: {model: m%d, cache: 1MiB}, group: %d, tags: [a, b], weight: %d, breaker: {failure_threshold: 3}}\n",
				s, p, of, p%2, 1+version*(p%3)%7)
		}
	}
	b.WriteString("queries: {a: {service: s0}, b: {service: s1, where: {tags: [a]}}}\n")
	return b.String()
}

func thousandManager(tb testing.TB) (*registry.Registry, *config.Manager) {
	tb.Helper()
	w := &workshop{}
	var kinds []config.Kind
	for s := range 10 {
		kinds = append(kinds, config.Bind(registry.NewService[model](fmt.Sprintf("s%d", s)), "model", w.make))
	}
	reg := registrytest.New(tb, registry.Options{})
	m, err := config.New(reg, config.Options{Kinds: kinds})
	require.NoError(tb, err)
	return reg, m
}

func BenchmarkParse_Thousand(b *testing.B) {
	text := []byte(thousand(0))
	for b.Loop() {
		_, err := config.Parse("a.yaml", text)
		require.NoError(b, err)
	}
}

func BenchmarkPlan_Thousand(b *testing.B) {
	_, m := thousandManager(b)
	first, err := config.Parse("a.yaml", []byte(thousand(0)))
	require.NoError(b, err)
	second, err := config.Parse("a.yaml", []byte(thousand(1)))
	require.NoError(b, err)
	_, err = m.Apply(b.Context(), first)
	require.NoError(b, err)
	for b.Loop() {
		_, err := m.Plan(b.Context(), second)
		require.NoError(b, err)
	}
}

func BenchmarkApply_Thousand(b *testing.B) {
	_, m := thousandManager(b)
	documents := make([]*config.Document, 2)
	for i := range documents {
		var err error
		documents[i], err = config.Parse("a.yaml", []byte(thousand(i)))
		require.NoError(b, err)
	}
	for i := 0; b.Loop(); i++ {
		_, err := m.Apply(b.Context(), documents[i%2])
		require.NoError(b, err)
	}
}
