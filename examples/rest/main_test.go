package main

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/capreg/registry"
	"github.com/capreg/registry/registrytest"
	"github.com/capreg/registry/verdict"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestSession_AnswersEverythingAndPlacesNothingTwice(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	require.NoError(t, run(t.Context(), &out, 20))
	text := out.String()
	require.True(t, strings.HasSuffix(text, "requests 40 answered 40 lost 0\n"), text)
	require.Contains(t, text, "20 orders were placed, 0 of them twice; 5 reads were answered that there is none")
	for _, want := range []string{"upstream-1: server error (first)", "upstream-2: rate limited", "upstream-3: attempt timeout", "refused by the resource"} {
		require.Contains(t, text, want)
	}
}

func TestSession_EndsWhenItIsInterrupted(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, run(ctx, &strings.Builder{}, 3), context.Canceled)
}

// answer is an upstream of a status, and of what it says about later.
type answer struct {
	status int
	header string
}

// newTestClient returns a client of upstreams that answer so, a function that counts
// their requests, and the report of the last call.
func newTestClient(t *testing.T, answers ...answer) (c *Client, hits func() []int64, last *registry.CallReport) {
	t.Helper()
	counts, urls := make([]atomic.Int64, len(answers)), make([]string, len(answers))
	for i, a := range answers {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			counts[i].Add(1)
			_, _ = io.Copy(io.Discard, r.Body) // only then the server notices that the client leaves
			if a.status == 0 {
				<-r.Context().Done()
				return
			}
			w.Header().Set("Retry-After", a.header)
			w.WriteHeader(a.status)
			_, _ = w.Write([]byte(`{"id": 1, "item": "tea"}`))
		}))
		t.Cleanup(server.Close)
		urls[i] = server.URL
	}
	last = new(registry.CallReport)
	c, err := NewClient(t.Context(), registrytest.New(t, registry.Options{}), func(_ string, r registry.CallReport, _ error) { *last = r }, urls...)
	require.NoError(t, err)
	return c, func() (all []int64) {
		for i := range counts {
			all = append(all, counts[i].Load())
		}
		return all
	}, last
}

func TestClient_GetMovesOnAfterAnyFailure(t *testing.T) {
	t.Parallel()
	for _, failing := range []answer{{status: 500}, {status: 502}, {status: 429, header: "7"}, {status: 503, header: "7"}, {}} {
		client, hits, _ := newTestClient(t, failing, answer{status: 200})
		o, err := client.Get(t.Context(), 1)
		require.NoError(t, err)
		require.Equal(t, Order{1, "tea"}, o)
		require.Equal(t, []int64{1, 1}, hits())
	}
}

func TestClient_AbsentIsAnAnswerAndNoFailure(t *testing.T) {
	t.Parallel()
	client, hits, _ := newTestClient(t, answer{status: 404}, answer{status: 200})
	for range 10 {
		_, err := client.Get(t.Context(), 1)
		require.True(t, isAbsent(err))
	}
	require.Equal(t, []int64{10, 0}, hits(), "no other upstream is asked, and no breaker opens")
}

func TestClient_AbsentAfterAFailoverIsTheAnswer(t *testing.T) {
	t.Parallel()
	client, _, _ := newTestClient(t, answer{status: 500}, answer{status: 404})
	_, err := client.Get(t.Context(), 1)
	require.True(t, isAbsent(err))
}

func TestClient_PostMovesOnOnlyWhereNothingWasDone(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		first answer
		want  []int64
	}{
		{answer{status: 429, header: "7"}, []int64{1, 1}},
		{answer{status: 500}, []int64{1, 0}},
		{answer{}, []int64{1, 0}}, // it hangs
	} {
		client, hits, last := newTestClient(t, row.first, answer{status: 200})
		_, err := client.call(t.Context(), http.MethodPost, "/orders", []byte("{}"), registry.OnceOnly())
		require.Equal(t, row.want[1] == 0, err != nil)
		require.Equal(t, row.want, hits())
		require.Len(t, last.Attempts, int(row.want[0]+row.want[1]))
	}
}

func TestClient_RetryAfterKeepsAnUpstreamAway(t *testing.T) {
	t.Parallel()
	client, hits, _ := newTestClient(t, answer{status: 429, header: "3600"}, answer{status: 200})
	for range 5 {
		_, err := client.Get(t.Context(), 1)
		require.NoError(t, err)
	}
	require.Equal(t, []int64{1, 5}, hits())
}

func TestClient_ErrorOfAHangingUpstreamIsItsTimeLimit(t *testing.T) {
	t.Parallel()
	client, _, last := newTestClient(t, answer{})
	ctx, cancel := context.WithTimeout(t.Context(), 10*attemptTimeout)
	defer cancel()
	_, err := client.Get(ctx, 1)
	require.ErrorIs(t, err, registry.ErrAttemptTimeout)
	require.Equal(t, verdict.ClassAttemptTimeout, last.Attempts[0].Class)
	require.GreaterOrEqual(t, last.Attempts[0].Duration, attemptTimeout-time.Millisecond)
	var failure *registry.CallError
	require.ErrorAs(t, err, &failure)
}
