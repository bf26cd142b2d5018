package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
)

// The scenarios follow the descriptions of a public benchmark, failoverbench 0.1. Servers and clients are of this file, and time
// is virtual, so that an outage of a minute takes none.

var writes = flag.Bool("write", false, "write docs/gateway.md")

const tokens = 60

// faulty is a server whose attempts are counted. Its function answers each by its number, from 1.
type faulty struct {
	begun  time.Time
	at     []time.Duration // of the attempts
	answer func(f *faulty, attempt int, r *http.Request) (canned, error)
}

func (f *faulty) RoundTrip(r *http.Request) (*http.Response, error) {
	_, _ = io.Copy(io.Discard, r.Body)
	f.at = append(f.at, time.Since(f.begun))
	answer, err := f.answer(f, len(f.at), r)
	if err != nil {
		return nil, err
	}
	header := http.Header{"Content-Type": {answer.kind}}
	if answer.delay != "" {
		header.Set("Retry-After", answer.delay)
	}
	return &http.Response{StatusCode: answer.status, Header: header, ContentLength: -1, Request: r, Body: &body{r.Context(), answer.pieces}}, nil
}

// canned is what a server answers with.
type canned struct {
	status      int
	kind, delay string
	pieces      []any
}

// within counts the attempts up to a time.
func (f *faulty) within(limit time.Duration) (n int) {
	for _, at := range f.at {
		if at < limit {
			n++
		}
	}
	return n
}

// body is a stream that waits where its text has a pause.
type body struct {
	ctx    context.Context
	pieces []any // texts, times to wait, and an error
}

func (b *body) Read(p []byte) (int, error) {
	if len(b.pieces) == 0 {
		return 0, io.EOF
	}
	switch piece := b.pieces[0].(type) {
	case time.Duration:
		b.pieces = b.pieces[1:]
		select {
		case <-time.After(piece):
			return 0, nil
		case <-b.ctx.Done():
			return 0, context.Cause(b.ctx)
		}
	case error:
		return 0, piece
	case string:
		n := copy(p, piece)
		if b.pieces[0] = piece[n:]; n == len(piece) {
			b.pieces = b.pieces[1:]
		}
		return n, nil
	}
	return 0, io.ErrUnexpectedEOF
}

func (b *body) Close() error { return nil }

func streams(pieces ...any) (canned, error) {
	return canned{status: http.StatusOK, kind: "text/event-stream", pieces: pieces}, nil
}

func refuses(status int, code, delay string) (canned, error) {
	return canned{status, "application/json", delay, []any{`{"error":{"message":"refused","type":"api","code":"` + code + `"}}`}}, nil
}

// chunk is an event of a stream.
func chunk(model, content, finish string) string {
	text, _ := json.Marshal(map[string]any{"model": model, "choices": []any{map[string]any{
		"index": 0, "delta": map[string]any{"content": content}, "finish_reason": map[bool]any{true: nil, false: finish}[finish == ""],
	}}})
	return "data: " + string(text) + "\n\n"
}

// said returns the events of the first n tokens, 15 ms apart.
func said(model string, n int) (pieces []any) {
	for i := range n {
		pieces = append(pieces, chunk(model, fmt.Sprintf("word%d ", i), ""), 15*time.Millisecond)
	}
	return pieces
}

// ending returns the events behind the last token.
func ending(model, mark string) []any {
	return []any{chunk(model, "", "stop"), `data: {"model":"` + model + `","choices":[],"usage":{"prompt_tokens":20,"completion_tokens":60}}` + "\n\n", mark}
}

func complete(model string) (canned, error) {
	return streams(append(said(model, tokens), ending(model, "data: [DONE]\n\n")...)...)
}

// result is what a client has of one request.
type result struct {
	took                    time.Duration
	text, model             string
	usage, complete, failed bool
	by                      string
}

// request asks the gateway for a stream.
func request(t *testing.T, g *gateway) (got result) {
	t.Helper()
	begun := time.Now()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, chat, strings.NewReader(`{"model":"m","stream":true,"messages":[]}`))
	w := httptest.NewRecorder()
	g.ServeHTTP(w, r)
	got.took, got.by, got.failed = time.Since(begun), w.Header().Get("X-Served-By"), w.Code != http.StatusOK
	for event := range strings.SplitSeq(w.Body.String(), "\n\n") {
		data, _ := strings.CutPrefix(event, "data: ")
		var chunk struct {
			Model   string          `json:"model"`
			Usage   json.RawMessage `json:"usage"`
			Error   json.RawMessage `json:"error"`
			Choices []struct {
				Delta struct {
					Content string `json:"content"`
				} `json:"delta"`
				FinishReason string `json:"finish_reason"`
			} `json:"choices"`
		}
		_ = json.Unmarshal([]byte(data), &chunk)
		got.failed = got.failed || len(chunk.Error) > 0
		got.usage = got.usage || len(chunk.Usage) > 0
		if chunk.Model != "" {
			got.model = chunk.Model
		}
		for _, choice := range chunk.Choices {
			got.text += choice.Delta.Content
			got.complete = got.complete || choice.FinishReason != ""
		}
	}
	return got
}

// answered reports whether the client has the whole answer, and knows it.
func (got result) answered() bool {
	return !got.failed && got.complete && len(strings.Fields(got.text)) == tokens
}

// scenario is a fault with what a client should see.
type scenario struct {
	id, title string
	primary   func(f *faulty, attempt int, r *http.Request) (canned, error)
	refused   bool // an error is the right answer
	longest   time.Duration
	required  func(got result, primary, backup *faulty) bool
	noted     func(got result, primary, backup *faulty) bool // what a better system does, too
}

func always(result, *faulty, *faulty) bool { return true }

func first(n int, then func(r *http.Request) (canned, error)) func(*faulty, int, *http.Request) (canned, error) {
	return func(_ *faulty, attempt int, r *http.Request) (canned, error) {
		if n > 0 && attempt > n {
			return complete("primary")
		}
		return then(r)
	}
}

var errReset = &net.OpError{Op: "read", Net: "tcp", Err: os.NewSyscallError("read", syscall.ECONNRESET)}

func scenarios() []scenario {
	few := func(_ result, p, _ *faulty) bool { return len(p.at) <= 6 }
	one := func(_ result, p, _ *faulty) bool { return len(p.at) == 1 }
	twice := func(_ result, p, _ *faulty) bool { return len(p.at) >= 2 }
	cut := func(r *http.Request) (canned, error) {
		return streams(append(said("primary", 40), io.ErrUnexpectedEOF)...)
	}
	return []scenario{
		{
			"S01", "429 with Retry-After, then healthy", first(1, func(r *http.Request) (canned, error) {
				return refuses(429, "rate_limit_exceeded", "2")
			}), false, 20 * time.Second, func(_ result, p, _ *faulty) bool { return p.within(1500*time.Millisecond) <= 2 },
			func(_ result, p, _ *faulty) bool { return len(p.at) >= 2 && p.at[1]-p.at[0] >= 1800*time.Millisecond },
		},
		{
			"S02", "429 without Retry-After, for good", first(0, func(r *http.Request) (canned, error) { return refuses(429, "rate_limit_exceeded", "") }),
			false, 40 * time.Second, func(got result, p, b *faulty) bool { return few(got, p, b) && p.within(3*time.Second) <= 4 }, always,
		},
		{"S03", "500 once", first(1, func(r *http.Request) (canned, error) { return refuses(500, "server_error", "") }), false, 20 * time.Second, always, twice},
		{"S04", "503 for good", first(0, func(r *http.Request) (canned, error) { return refuses(503, "overloaded", "") }), false, 40 * time.Second, few, always},
		{"S05", "connection reset before the answer", first(1, func(*http.Request) (canned, error) { return canned{}, errReset }), false, 20 * time.Second, always, always},
		{"S06", "no response at all", first(0, func(r *http.Request) (canned, error) {
			select {
			case <-r.Context().Done():
			case <-time.After(2 * time.Minute):
			}
			return canned{}, errReset
		}), false, 130 * time.Second, func(got result, _, _ *faulty) bool { return got.took <= 100*time.Second }, one},
		{"S07", "first token after 20 s", first(0, func(r *http.Request) (canned, error) {
			return streams(append(append([]any{20 * time.Second}, said("primary", tokens)...), ending("primary", "data: [DONE]\n\n")...)...)
		}), false, time.Minute, always, func(got result, _, _ *faulty) bool { return got.took <= 15*time.Second }},
		{"S08", "stream cut after 40 of 60 tokens", first(0, cut), false, 40 * time.Second, always, always},
		{"S09", "stream silent after 20 tokens", first(0, func(r *http.Request) (canned, error) {
			return streams(append(said("primary", 20), 30*time.Second, io.ErrUnexpectedEOF)...)
		}), false, 70 * time.Second, func(got result, _, _ *faulty) bool { return got.took <= 45*time.Second }, always},
		{"S10", "event that is no JSON", first(0, func(r *http.Request) (canned, error) {
			pieces := append(said("primary", 9), "data: {\"choices\":[{\"delta\"\n\n")
			return streams(append(append(pieces, said("primary", tokens)[18:]...), ending("primary", "data: [DONE]\n\n")...)...)
		}), false, 30 * time.Second, always, always},
		{"S11", "stream without an end mark", first(0, func(r *http.Request) (canned, error) {
			return streams(append(said("primary", tokens), ending("primary", "")...)...)
		}), false, 30 * time.Second, func(got result, _, _ *faulty) bool { return got.took <= 8*time.Second }, func(got result, _, _ *faulty) bool { return got.usage }},
		{
			"S12", "prompt too long for the model", first(0, func(r *http.Request) (canned, error) { return refuses(400, "context_length_exceeded", "") }),
			false, 20 * time.Second, one, always,
		},
		{"S13", "content refused", first(0, func(r *http.Request) (canned, error) { return refuses(400, "content_policy_violation", "") }), true, 20 * time.Second, one, always},
		{"S14", "stream cut, and a backup that continues none", first(0, cut), false, 40 * time.Second, always, always},
		{
			"S16", "503 for good: model and usage are the backup's", first(0, func(r *http.Request) (canned, error) { return refuses(503, "overloaded", "") }), false, 40 * time.Second,
			func(got result, p, b *faulty) bool { return few(got, p, b) && (got.failed || got.model == "backup") }, func(got result, _, _ *faulty) bool { return got.usage },
		},
	}
}

// verdictOf judges a result as the benchmark does.
func (s scenario) verdictOf(got result, primary, backup *faulty) string {
	rescued := got.answered()
	if s.refused {
		rescued = got.failed
	}
	switch {
	case !rescued && !got.failed || got.took > s.longest || !s.required(got, primary, backup):
		return "fail"
	case !rescued:
		return "safe"
	case !s.noted(got, primary, backup):
		return "partial"
	}
	return "pass"
}

// inVirtualTime runs a function with a gateway of two upstreams as a user would write them.
func inVirtualTime(t *testing.T, whole bool, primary func(*faulty, int, *http.Request) (canned, error), run func(t *testing.T, g *gateway, primary, backup *faulty)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		p := &faulty{begun: time.Now(), answer: primary}
		b := &faulty{begun: time.Now(), answer: func(_ *faulty, _ int, r *http.Request) (canned, error) { return complete("backup") }}
		settings := `{"upstreams":{"primary":{"url":"http://primary/v1"},"backup":{"url":"http://backup/v1"}},
			"routes":[{"model":"m","groups":[{"upstreams":["primary"]},{"upstreams":["backup"]}],"whole_answers":` + strconv.FormatBool(whole) + `}]}`
		g := made(t, settings, hosts{"primary": p, "backup": b}, zap.NewNop())
		run(t, g, p, b)
		require.NoError(t, g.close(context.WithoutCancel(t.Context())))
	})
}

// hosts has servers by their names.
type hosts map[string]*faulty

func (h hosts) RoundTrip(r *http.Request) (*http.Response, error) { return h[r.URL.Host].RoundTrip(r) }

// row is a line of the table.
type row struct{ id, title, verdict, attempts string }

// play runs all scenarios.
func play(t *testing.T, whole bool) (rows []row) {
	t.Helper()
	for _, s := range scenarios() {
		inVirtualTime(t, whole, s.primary, func(t *testing.T, g *gateway, p, b *faulty) {
			got := request(t, g)
			attempts, verdict := fmt.Sprintf("%d + %d", len(p.at), len(b.at)), s.verdictOf(got, p, b)
			p.answer = func(_ *faulty, _ int, r *http.Request) (canned, error) { return complete("primary") }
			time.Sleep(time.Second)
			require.True(t, request(t, g).answered(), "%s: it goes on", s.id)
			rows = append(rows, row{s.id, s.title, verdict, attempts})
		})
		if s.id == "S14" {
			rows = append(rows, outage(t, whole))
		}
	}
	return rows
}

// outage is S15: the primary is down for a minute, and a client asks every four seconds.
func outage(t *testing.T, whole bool) (result row) {
	t.Helper()
	const down = time.Minute
	primary := func(f *faulty, _ int, r *http.Request) (canned, error) {
		if time.Since(f.begun) < down {
			return refuses(503, "overloaded", "")
		}
		return complete("primary")
	}
	inVirtualTime(t, whole, primary, func(t *testing.T, g *gateway, p, _ *faulty) {
		answered, back := true, time.Duration(-1)
		for i := range 20 {
			begun := time.Since(p.begun)
			got := request(t, g)
			answered = answered && got.answered() && got.took < 30*time.Second
			if got.by == "primary" && back < 0 {
				back = begun - down
			}
			time.Sleep(time.Duration(i+1)*4*time.Second - time.Since(p.begun))
		}
		verdict := "pass"
		if !answered || back < 0 || back > 30*time.Second {
			verdict = "fail"
		}
		probes := p.within(down)
		require.LessOrEqual(t, probes, 5, "requests that the primary has got while it was down")
		result = row{"S15", "down for a minute, then healthy", verdict, fmt.Sprintf("%d probes, back after %v", probes, back.Round(time.Second))}
	})
	return result
}

func TestFailover_ScenariosOfThePublicBenchmarkPass(t *testing.T) {
	whole, streamed := play(t, true), play(t, false)
	count := func(rows []row) map[string]int {
		n := make(map[string]int)
		for _, r := range rows {
			n[r.verdict]++
			t.Log(r)
		}
		return n
	}
	n := count(whole)
	require.Len(t, whole, 16)
	require.GreaterOrEqual(t, n["pass"], 15, n)
	require.Zero(t, n["fail"])
	m := count(streamed)
	require.Zero(t, m["fail"])
	const page = "../../docs/gateway.md"
	text := table(whole, streamed)
	if *writes {
		require.NoError(t, os.WriteFile(page, []byte(strings.Replace(text, "DATE", time.Now().UTC().Format(time.DateOnly), 1)), 0o600))
	}
	stored, err := os.ReadFile(page)
	require.NoError(t, err)
	before, after, _ := strings.Cut(text, "DATE")
	require.Contains(t, string(stored), before, "go test ./examples/gateway -run Failover -write")
	require.Contains(t, string(stored), after, "go test ./examples/gateway -run Failover -write")
}

// published has the results of the benchmark's own page: Bifrost, LiteLLM's proxy, Portkey, and its reference client.
var published = map[string][4]string{
	"S01": {"partial", "pass", "pass", "pass"}, "S06": {"fail", "partial", "pass", "pass"}, "S07": {"partial", "partial", "partial", "pass"},
	"S08": {"safe", "safe", "fail", "pass"}, "S09": {"safe", "safe", "fail", "pass"}, "S10": {"pass", "safe", "pass", "pass"},
	"S13": {"partial", "partial", "partial", "pass"}, "S14": {"safe", "safe", "fail", "pass"},
}

// table returns the page.
func table(whole, streamed []row) string {
	var text strings.Builder
	text.WriteString(`# The gateway in sixteen scenarios of failure

Written by ` + "`go test ./examples/gateway -run Failover -write`" + ` on DATE.

The scenarios are those of [failoverbench](https://github.com/failoverbench/failoverbench) 0.1, written again from their
descriptions: one request for a stream of 60 tokens, a primary with a fault, a healthy backup. The servers are part of the test and time is virtual,
so this is no run of the benchmark itself; the columns on the right are the results that it has published on 2026-09-12.

- **pass**: the client has the whole answer, or the clean error that is right, and nothing was done that should not be.
- **partial**: it has the answer, but a better way was possible. **safe**: it has a clean error in time. **fail**: anything else.

Settings: two groups, primary and backup, and nothing else but ` + "`\"whole_answers\": true`" + ` in the first column. It holds a stream back until it is
complete, so that one that is cut can be replaced; without it a client sees tokens at once, and an error where a stream is cut. S01 is
partial since the backup answers at once, where the benchmark wants the two seconds to be waited for.

| | scenario | whole answers | attempts | as it streams | attempts | Bifrost 2.1.1 | LiteLLM proxy | Portkey | reference client |
|---|---|---|---|---|---|---|---|---|---|
`)
	totals := make([]map[string]int, 6)
	for i := range totals {
		totals[i] = make(map[string]int)
	}
	for i, r := range whole {
		others, differs := published[r.id]
		if !differs {
			others = [4]string{"pass", "pass", "pass", "pass"}
		}
		for j, verdict := range []string{r.verdict, streamed[i].verdict, others[0], others[1], others[2], others[3]} {
			totals[j][verdict]++
		}
		fmt.Fprintf(&text, "| %s | %s | %s | %s | %s | %s | %s |\n", r.id, r.title, r.verdict, r.attempts, streamed[i].verdict, streamed[i].attempts, strings.Join(others[:], " | "))
	}
	sum := func(n map[string]int) string {
		return fmt.Sprintf("%d/%d/%d/%d", n["pass"], n["partial"], n["safe"], n["fail"])
	}
	fmt.Fprintf(&text, "| | pass/partial/safe/fail | **%s** | | **%s** | | %s | %s | %s | %s |\n\n", sum(totals[0]), sum(totals[1]), sum(totals[2]), sum(totals[3]), sum(totals[4]), sum(totals[5]))
	text.WriteString("Attempts are those at the primary and at the backup; of S15 those at the primary while it is down.\n")
	return text.String()
}
