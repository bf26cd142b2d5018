package main

import (
	"context"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// quick is as little as can be measured.
var quick = []string{"-rounds", "1", "-turns", "1", "-turn", "10us"}

func TestMain_EveryObserverIsOneLine(t *testing.T) { //nolint:paralleltest // it measures
	var out strings.Builder
	err := run(t.Context(), quick, &out)
	lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	require.Len(t, lines, len(observers()))
	for i, line := range lines {
		require.Regexp(t, "^"+observers()[i].name+` \d+\.\d \d+\.\d (\d+\.\d{3}|\+Inf) \d\.\d{3} (ok|short)$`, line)
	}
	if strings.Contains(out.String(), "short") {
		require.ErrorIs(t, err, errShort)
	} else {
		require.NoError(t, err)
	}
}

func TestMain_RefusesBadArguments(t *testing.T) {
	t.Parallel()
	for _, arguments := range [][]string{{"-rounds", "0"}, {"-turns", "0"}, {"-turn", "0"}, {"-unheard-of"}} {
		require.Error(t, run(t.Context(), arguments, &strings.Builder{}), arguments)
	}
}

func TestMain_InterruptionIsAnError(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, run(ctx, quick, &strings.Builder{}), context.Canceled)
}
