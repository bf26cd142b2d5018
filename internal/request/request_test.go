package request_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/capreg/registry/internal/request"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestMetadata_TravelInTheContextAndReplaceThoseBefore(t *testing.T) {
	t.Parallel()
	require.Zero(t, request.Of(t.Context()))
	ctx := request.With(t.Context(), request.Metadata{Correlation: "a", Caller: "me"})
	require.Equal(t, request.Metadata{Correlation: "a", Caller: "me"}, request.Of(ctx))
	require.Equal(t, request.Metadata{Correlation: "b"}, request.Of(request.With(ctx, request.Metadata{Correlation: "b"})))
}

func TestNewID_IsAnIdentifierThatNoOtherRequestHas(t *testing.T) {
	t.Parallel()
	seen := make(map[string]bool)
	for range 10_000 {
		id := request.NewID()
		require.Regexp(t, `^[A-Z2-7]{26}$`, id)
		require.False(t, seen[id])
		seen[id] = true
	}
}
