package override_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/internal/override"
)

type linked struct{ link override.Link[linked] }

func (l *linked) Replacements() *override.Link[linked] { return &l.link }

func TestChain_LeadsFromTheOriginalToTheCurrentOne(t *testing.T) {
	t.Parallel()
	a, b, c := &linked{}, &linked{}, &linked{}
	require.Equal(t, []*linked{a}, override.Chain(a))
	require.False(t, a.link.Replaced())
	b.link.Follow(a)
	require.Same(t, a, override.Current(a), "it leads to none yet")
	a.link.Lead(b)
	c.link.Follow(b)
	b.link.Lead(c)
	for _, at := range []*linked{a, b, c} {
		require.Same(t, c, override.Current(at))
		require.Len(t, override.Chain(at), 3)
	}
	require.True(t, a.link.Replaced())
	require.Nil(t, a.link.Of())
	require.Same(t, b, c.link.Of())

	of, by := override.Unlink(b)
	require.Same(t, a, of)
	require.Same(t, c, by)
	require.Same(t, a, c.link.Of())
	require.Same(t, c, override.Current(b), "those on their way find the current one")
	of, by = override.Unlink(c)
	require.Same(t, a, of)
	require.Nil(t, by)
	require.Equal(t, []*linked{a}, override.Chain(a))
	a.link.Lead(c)
	a.link.Lead(nil)
	require.False(t, a.link.Replaced())
}
