package ranked_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/capreg/registry/internal/ranked"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestNames_AreReadByNameAndRank(t *testing.T) {
	t.Parallel()
	n := ranked.Names{First: -1, Names: []string{"HIGH", "LOW"}, Ranks: []int{0, 9}}
	for text, want := range map[string]int{"HIGH": -1, "low": 0, "0": -1, "9": 0} {
		value, ok := n.Read(text)
		require.True(t, ok, text)
		require.Equal(t, want, value, text)
		require.True(t, n.Valid(value))
	}
	for _, text := range []string{"", "1", "HIGH ", "09"} {
		_, ok := n.Read(text)
		require.False(t, ok, text)
	}
	require.Equal(t, "LOW", n.String("level", 0))
	require.Equal(t, "level(1)", n.String("level", 1))
	require.Equal(t, 9, n.Rank(0))
	require.Equal(t, 255, n.Rank(-2))
}
