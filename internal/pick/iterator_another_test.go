package pick_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/internal/choice"
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

func TestAnother_PassesBySlowCandidatesOfLaterTiers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := of(fallback(1), fallback(1), fallback(1), fallback(1))
		f.config.Request.Where.MaxLatency = 100 * time.Millisecond
		p := f.plan()
		it := p.Iterate(p.Healthy)
		require.Equal(t, 0, it.Next(nil))
		for slow := 1; slow < 3; slow++ {
			require.Equal(t, slow, it.Another())
			f.vitals[slow].Begin()
			f.vitals[slow].End(time.Since(*f.config.Epoch), 200*time.Millisecond, choice.Answered, nil)
			require.Equal(t, slow+1, it.Another())
		}
	})
}
