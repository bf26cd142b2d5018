package overall_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/internal/overall"
)

// chain has providers by name, which all have one capability of that name and require others.
type chain struct {
	requires map[string][]string
	works    map[string]bool
}

func (c chain) Name(p string) string       { return p }
func (c chain) Requires(p string) []string { return c.requires[p] }
func (c chain) Works(p, _ string) bool     { return c.works[p] }

func (c chain) Having(capability string) map[string]struct{} {
	if _, known := c.requires[capability]; !known {
		return nil
	}
	return map[string]struct{}{capability: {}}
}

// counted counts how often the requirements of one provider are asked for.
type counted struct {
	chain

	of    string
	times *int
}

func (c counted) Requires(p string) []string {
	if p == c.of {
		*c.times++
	}
	return c.chain.Requires(p)
}

func TestCauses_AreAtTheRootOfTheChain(t *testing.T) {
	t.Parallel()
	c := chain{
		requires: map[string][]string{
			"api": {"cache", "db"}, "cache": {"db"}, "db": {"disk"}, "disk": nil,
			"mail": {"smtp"}, "web": {"api", "mail"}, "a": {"b"}, "b": {"a"},
		},
		works: map[string]bool{},
	}
	require.Equal(t, []string{"disk"}, overall.Causes(c, "api"))
	require.Equal(t, []string{"disk", `no provider has "smtp"`}, overall.Causes(c, "web"))
	require.Equal(t, []string{"b"}, overall.Causes(c, "a"), "a ring ends")
	visits := 0
	require.Equal(t, []string{"disk"}, overall.Causes(counted{c, "db", &visits}, "api"))
	require.Equal(t, 1, visits, "what several need is searched once")
	c.works["db"] = true
	require.Equal(t, []string{"cache"}, overall.Causes(c, "api"))
	c.works["cache"] = true
	require.Empty(t, overall.Causes(c, "api"))
}
