package main

import (
	"bytes"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if slices.Contains(os.Args, "-agent") { // this is the process of an agent
		main()
		return
	}
	goleak.VerifyTestMain(m)
}

func TestFleet_LosesNoTaskAndDoesNoneTwice(t *testing.T) {
	t.Parallel()
	executable, err := os.Executable()
	require.NoError(t, err)
	var out bytes.Buffer
	require.NoError(t, run(t.Context(), executable, 300, &out))
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	require.Equal(t, "tasks 300 done 300 lost 0 twice 0", lines[len(lines)-1], "%s", out.String())
}
