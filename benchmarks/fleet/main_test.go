package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestRun_MeasuresAll(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	require.NoError(t, run(t.Context(), sizes{changes: 3, calls: 3, tasks: 3, picks: 3, nodes: 2, entries: 3, rest: time.Millisecond}, &out))
	require.Equal(t, 9, strings.Count(out.String(), "\n"), "%s", out.String())
}
