package sight_test

import (
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/internal/sight"
	"github.com/capreg/registry/reason"
)

func TestTextsOf_NamesSixteenAndCountsTheRest(t *testing.T) {
	t.Parallel()
	all := make([]*sight.Seen, 20)
	for i := range all {
		all[i] = &sight.Seen{}
		all[i].Provider, all[i].Code = strconv.Itoa(i), reason.BreakerOpen
	}
	all[0].Words, all[0].RetryIn = "breaker open (test)", time.Minute
	texts := sight.TextsOf(slices.Values(all), len(all))
	require.Len(t, texts, 17)
	require.Equal(t, []string{"0: breaker open (test), retry in 1m0s", "1: breaker_open"}, texts[:2])
	require.Equal(t, "and 4 more", texts[16])
	require.Len(t, sight.TextsOf(slices.Values(all[:16]), 16), 16)
}
