package overall_test

import (
	"math/rand/v2"
	"strconv"
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
	of := func(among overall.Dependencies[string], name string) []string {
		var causes overall.Causes[string]
		return causes.Of(name, among, 0)
	}
	require.Equal(t, []string{"disk"}, of(c, "api"))
	require.Equal(t, []string{"disk", `no provider has "smtp"`}, of(c, "web"))
	require.Equal(t, []string{"b"}, of(c, "a"), "a ring ends")
	c.works["db"] = true
	require.Equal(t, []string{"cache"}, of(c, "api"))
	c.works["cache"] = true
	require.Empty(t, of(c, "api"))
	require.Empty(t, of(c, "disk"), "it requires nothing")
}

func TestCauses_AreSearchedOnceForAllUntilTheVersionChanges(t *testing.T) {
	t.Parallel()
	c := chain{
		requires: map[string][]string{"web": {"db"}, "api": {"db"}, "jobs": {"db", "mail"}, "mail": nil, "db": {"disk"}, "disk": nil},
		works:    map[string]bool{},
	}
	visits := 0
	among := counted{c, "db", &visits}
	var causes overall.Causes[string]
	for range 2 {
		require.Equal(t, []string{"disk"}, causes.Of("web", among, 1))
		require.Equal(t, []string{"disk"}, causes.Of("api", among, 1))
		require.Equal(t, []string{"disk", "mail"}, causes.Of("jobs", among, 1))
	}
	require.Equal(t, 1, visits)
	c.works["db"] = true
	require.Equal(t, []string{"disk"}, causes.Of("web", among, 1), "it was searched")
	require.Empty(t, causes.Of("web", among, 2))
}

// One state for all gives each provider what a state of its own would give it.
func TestCauses_AreThoseOfASearchForEachAlone(t *testing.T) {
	t.Parallel()
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 1))
		c := chain{requires: make(map[string][]string), works: make(map[string]bool)}
		for i := range 8 {
			name := strconv.Itoa(i)
			c.requires[name], c.works[name] = nil, random.IntN(4) == 0
			for range random.IntN(3) {
				c.requires[name] = append(c.requires[name], strconv.Itoa(random.IntN(9)))
			}
		}
		var shared overall.Causes[string]
		for name := range c.requires {
			var alone overall.Causes[string]
			require.Equal(t, alone.Of(name, c, 0), shared.Of(name, c, 0), "%d: %s of %v", seed, name, c)
		}
	}
}
