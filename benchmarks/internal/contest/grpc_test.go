package contest

import (
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/balancer"
)

func TestPickerOfGRPCTakesTurnsAmongAll(t *testing.T) {
	t.Parallel()
	picker, closing, err := roundRobinPicker(Providers)
	require.NoError(t, err)
	defer func() { require.NoError(t, closing()) }()
	picked := map[balancer.SubConn]int{}
	for range 3 * Providers {
		result, err := picker.Pick(balancer.PickInfo{Ctx: t.Context()})
		require.NoError(t, err)
		picked[result.SubConn]++
	}
	require.Len(t, picked, Providers)
	for _, times := range picked {
		require.Equal(t, 3, times)
	}
}
