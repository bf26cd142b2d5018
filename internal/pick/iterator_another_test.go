package pick_test

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAnother_IsStillToBeOffered(t *testing.T) {
	t.Parallel()
	for _, size := range []int{3, 80} {
		p := of(fallback(2), chosen(size, last)).plan()
		p.Set(0, false, false)
		it := p.Iterate(p.Healthy)
		require.Equal(t, 1, it.Another(), "before the first")
		require.Equal(t, 1, it.Next(nil))
		require.Equal(t, 2, it.Another())
		require.Equal(t, size+1, it.Next(nil))
		require.Equal(t, 2, it.Another())
		p.Set(2, false, false)
		require.Equal(t, 3, it.Another())
		drain(&it)
		require.Equal(t, -1, it.Another(), "it is over")
	}
}
