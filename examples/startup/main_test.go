package main

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/capreg/registry/startup"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// page collects the output, for concurrent reads; written is signalled after each write.
type page struct {
	mu      sync.Mutex
	text    strings.Builder
	written func(text string)
}

func (p *page) Write(text []byte) (int, error) {
	p.mu.Lock()
	n, err := p.text.Write(text)
	p.mu.Unlock()
	if p.written != nil {
		p.written(p.String())
	}
	return n, err
}

func (p *page) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.String()
}

// after returns the names on the line below a title.
func after(t *testing.T, text, title string) []string {
	t.Helper()
	lines := strings.Split(text, "\n")
	at := slices.Index(lines, title)
	require.GreaterOrEqual(t, at, 0, text)
	return strings.Split(lines[at+1], ", ")
}

func requireOrder(t *testing.T, names []string, order ...string) {
	t.Helper()
	last := -1
	for _, name := range order {
		at := slices.Index(names, name)
		require.Greater(t, at, last, "%s in %v", name, names)
		last = at
	}
}

func TestPlatform_StartsAlongItsLongestChainAndStopsInReverse(t *testing.T) {
	t.Parallel()
	var out, progress page
	dot, trace := filepath.Join(t.TempDir(), "plan.dot"), filepath.Join(t.TempDir(), "start.json")
	require.NoError(t, run(t.Context(), []string{"-dot", dot, "-trace", trace}, &out, &progress))
	text := out.String()
	require.Contains(t, text, "plan\nbatch 1: config\nbatch 2: ")
	require.Contains(t, text, "15 components in ")
	// The critical chain leads through the model, unless the machine holds up another.
	require.Regexp(t, `\n(chat adapter|http front) @.*\n  speak handler @.*\n    (llm gateway @.*\n      model|memory @.*\n      (cache|vector store)) @`, text)
	require.Contains(t, text, `llm gateway: goes without "metrics" (optional)`)
	require.Contains(t, text, `HELLO; we have not met; "hello" has 1 words`)
	stopped := after(t, text, "stopped, in this order")
	require.Len(t, stopped, 15)
	requireOrder(t, stopped, "http front", "speak handler", "llm gateway", "model", "config")
	requireOrder(t, stopped, "speak handler", "memory", "vector store", "database", "secrets", "config")
	require.Contains(t, progress.String(), "[15/15] ready")

	picture, err := os.ReadFile(dot)
	require.NoError(t, err)
	require.Contains(t, string(picture), `"vector store" -> "memory" [label="vectors"];`)
	traced, err := os.ReadFile(trace)
	require.NoError(t, err)
	require.True(t, json.Valid(traced))
	require.Contains(t, string(traced), `"name":"model"`)
}

func TestPlatform_FailedStartRollsBack(t *testing.T) {
	t.Parallel()
	for _, arguments := range [][]string{{"-fail"}, {"-fail", "-wait"}} {
		var out, progress page
		err := run(t.Context(), arguments, &out, &progress)
		require.ErrorIs(t, err, errDamaged)
		require.Contains(t, out.String(), "vector store: failed: the index is damaged")
		require.Contains(t, out.String(), "memory: skipped")
		undone := after(t, out.String(), "rolled back, in this order")
		requireOrder(t, undone, "database", "secrets", "config")
		require.NotContains(t, undone, "vector store")
		require.NotContains(t, undone, "http front")
		require.Contains(t, progress.String(), "failed vector store")
	}
}

func TestPlatform_RunsUntilItIsInterrupted(t *testing.T) {
	t.Parallel()
	ctx, interrupt := context.WithCancel(t.Context())
	var progress page
	out := page{written: func(text string) {
		if strings.Contains(text, "up until interrupted") {
			interrupt()
		}
	}}
	require.NoError(t, run(ctx, []string{"-wait"}, &out, &progress))
	require.Len(t, after(t, out.String(), "stopped, in this order"), 15)
}

func TestPlatform_InterruptedStartRollsBack(t *testing.T) {
	t.Parallel()
	for _, arguments := range [][]string{nil, {"-wait"}} {
		ctx, interrupt := context.WithCancel(t.Context())
		progress := page{written: func(text string) {
			if strings.Contains(text, "ready database") {
				interrupt()
			}
		}}
		var out page
		require.ErrorIs(t, run(ctx, arguments, &out, &progress), context.Canceled)
		requireOrder(t, after(t, out.String(), "rolled back, in this order"), "database", "config")
	}
}

func TestMain_RefusesBadArguments(t *testing.T) {
	t.Parallel()
	for _, arguments := range [][]string{{"-unheard-of"}, {"-wait=maybe"}, {"-dot", t.TempDir()}} {
		var out, progress page
		require.Error(t, run(t.Context(), arguments, &out, &progress), arguments)
	}
	var out, progress page
	require.NoError(t, run(t.Context(), []string{"-help"}, &out, &progress))
	require.Contains(t, progress.String(), "-trace")
}

func TestPlatform_StopsWhenAPictureCannotBeWritten(t *testing.T) {
	t.Parallel()
	var out, progress page
	err := run(t.Context(), []string{"-trace", filepath.Join(t.TempDir(), "no", "such", "folder")}, &out, &progress)
	require.ErrorIs(t, err, os.ErrNotExist)
	require.Len(t, after(t, out.String(), "stopped, in this order"), 15)
}

func TestWatcher_KeepsTheOrderOfStops(t *testing.T) {
	t.Parallel()
	w := newWatcher(func(startup.Event) {})
	for _, name := range []string{"b", "a", ""} {
		w.listen(startup.Event{Component: name, State: startup.Stopped})
	}
	w.wait()
	require.Equal(t, []string{"b", "a"}, w.order)
}
