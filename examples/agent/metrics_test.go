package main

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/internal/testkit"
)

// metricsLine says where the metrics are.
var metricsLine = regexp.MustCompile(`metrics   (http://\S+)/metrics`)

// reader asks a question, and reads the metrics when the answer is there.
type reader struct {
	t     *testing.T
	shown string // the file of the output
	asked int
	read  string
}

func (r *reader) Read(into []byte) (int, error) {
	if r.asked++; r.asked == 1 {
		return copy(into, "what is up\n"), nil
	}
	text, err := os.ReadFile(r.shown)
	require.NoError(r.t, err)
	request, err := http.NewRequestWithContext(r.t.Context(), http.MethodGet, metricsLine.FindStringSubmatch(string(text))[1]+"/metrics", nil)
	require.NoError(r.t, err)
	answer, err := http.DefaultClient.Do(request)
	require.NoError(r.t, err)
	body, err := io.ReadAll(answer.Body)
	require.NoError(r.t, err)
	require.NoError(r.t, answer.Body.Close())
	r.read = string(body)
	http.DefaultClient.CloseIdleConnections()
	return 0, io.EOF
}

func TestMetrics_AreServedWhileTheAgentRuns(t *testing.T) {
	t.Setenv("OPENAI_API_KEY", "")
	t.Setenv("ANTHROPIC_API_KEY", "")
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	require.NoError(t, err)
	defer func() { require.NoError(t, out.Close()) }()
	in := &reader{t: t, shown: out.Name()}
	require.NoError(t, run(t.Context(), []string{"-chat", "-metrics", "127.0.0.1:0"}, in, out))
	for _, line := range []string{
		`registry_attempt_duration_seconds_count{error_type="",provider="openai",service="llm"} 1`,
		`registry_circuit_breaker_status{provider="openai",service="llm",state="closed"} 1`,
	} {
		require.True(t, strings.Contains(in.read, "\n"+line+"\n"), line) //nolint:testifylint // it is long
	}
	require.Error(t, run(t.Context(), []string{"-metrics", "no address"}, strings.NewReader(""), out))
}

func TestMetrics_OfABadDayAreReadByPrometheus(t *testing.T) {
	t.Setenv("OPENAI_API_KEY", "")
	t.Setenv("ANTHROPIC_API_KEY", "")
	testkit.Program(t, "prometheus")
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	require.NoError(t, err)
	defer func() { require.NoError(t, out.Close()) }()
	backends, err := newBackends(t.Context(), "")
	require.NoError(t, err)
	defer func() { require.NoError(t, backends.close()) }()
	reg, err := registry.New(options())
	require.NoError(t, err)
	screen := newScreen(out)
	agent, err := newAgent(t.Context(), reg, backends, screen)
	require.NoError(t, err)
	defer func() { require.NoError(t, agent.close()) }()
	stop, err := serveMetrics(t.Context(), reg, "127.0.0.1:0", screen)
	require.NoError(t, err)
	defer func() { require.NoError(t, stop()) }()
	text, err := os.ReadFile(out.Name())
	require.NoError(t, err)

	server := testkit.StartPrometheus(t, metricsLine.FindStringSubmatch(string(text))[1], "")
	require.NoError(t, agent.play(t.Context(), 60))
	for _, provider := range reg.Registrations() {
		by := `{service="` + provider.Info().Service + `", provider="` + provider.Name() + `"}`
		server.Eventually(t, "attempts", "sum(registry_selections_total"+by+")", func(found []testkit.Series) bool {
			return testkit.Valued(int(provider.Info().Attempts))(found) // which a hedge may still add to
		})
	}
	server.Eventually(t, "the outage was seen", `registry_circuit_breaker_transitions_total{provider="openai", state="open"} > 0`,
		func(found []testkit.Series) bool { return len(found) == 1 })
	server.Eventually(t, "nothing was lost", `sum(registry_calls_total{service="llm", error_type!=""})`, testkit.Valued(0))
}
