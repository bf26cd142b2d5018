//go:build unix

package main

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == serveCommand {
		if err := serve(os.Args[2:]); err != nil {
			panic(err)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

func TestAgent_LosesNoCall(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	require.NoError(t, run(t.Context(), &out, 500*time.Millisecond, 15))
	text := out.String()
	require.True(t, strings.HasSuffix(text, "calls 47 answered 47 lost 0\n"), text)
	for _, want := range []string{"files process   process  process ", "files           mcp      2 tools of files 1.0", `gets the signal "killed"`, `gets the signal "stopped`, "files is out: ", "14 notes were added by 14 calls"} {
		require.Contains(t, text, want)
	}
}

func TestAgent_EndsWhenItIsInterrupted(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, run(ctx, &strings.Builder{}, time.Hour, 3), context.DeadlineExceeded)
}

func TestServe_RefusesWhatIsNoServer(t *testing.T) {
	t.Parallel()
	require.Error(t, serve(nil))
	require.Error(t, serve([]string{"notes", "127.0.0.1:0", "soon"}))
	require.Error(t, serve([]string{"search", "nowhere:none"}))
}
