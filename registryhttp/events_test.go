package registryhttp_test

import (
	"context"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/registryhttp"
)

func TestEventWriter_SendsCommentsWhileThereIsNothingElse(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := httptest.NewRecorder()
		events := registryhttp.NewEventWriter(w, registryhttp.EventOptions{CommentEvery: 10 * time.Second})
		time.Sleep(9 * time.Second)
		require.True(t, events.Header(func(header http.Header) { header.Set("X-Mine", "1") }))
		_, err := events.Write([]byte("data: a\n\n"))
		require.NoError(t, err)
		require.False(t, events.Header(func(http.Header) { t.Error("they were sent") }))
		time.Sleep(21 * time.Second)
		require.NoError(t, events.Close())
		require.NoError(t, events.Close())
		time.Sleep(time.Minute)
		_, err = events.Write([]byte("data: b\n\n"))
		require.ErrorIs(t, err, registryhttp.ErrEventsClosed)
		require.Equal(t, "data: a\n\n"+strings.Repeat(": more is to come\n\n", 2), w.Body.String())
		require.Equal(t, "text/event-stream", w.Header().Get("Content-Type"))
		require.Equal(t, "no", w.Header().Get("X-Accel-Buffering"))
		require.Equal(t, "1", w.Header().Get("X-Mine"))
		require.True(t, w.Flushed)
	})
}

// Variants: in time for another answer, after a comment, after the end.
func TestEventWriter_AnswersInAnotherWayUntilItHasBegun(t *testing.T) {
	t.Parallel()
	for wait, want := range map[time.Duration]bool{0: true, time.Minute: false} {
		synctest.Test(t, func(t *testing.T) {
			w := httptest.NewRecorder()
			events := registryhttp.NewEventWriter(w, registryhttp.EventOptions{})
			time.Sleep(wait)
			answer := func(w http.ResponseWriter) { w.WriteHeader(http.StatusTeapot) }
			require.Equal(t, want, events.Answer(answer))
			require.Equal(t, want, w.Code == http.StatusTeapot)
			require.NoError(t, events.Close())
			require.False(t, events.Answer(answer))
		})
	}
}

func TestEventWriter_WithoutCommentsIsSilent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := httptest.NewRecorder()
		events := registryhttp.NewEventWriter(w, registryhttp.EventOptions{CommentEvery: -1})
		time.Sleep(time.Hour)
		n, err := events.Write(nil)
		require.NoError(t, err)
		require.Zero(t, n)
		require.NoError(t, events.Close())
		require.Empty(t, w.Body.String())
	})
}

func TestAppendEvent_WritesAFieldForEachLine(t *testing.T) {
	t.Parallel()
	require.Equal(t, "event: e\ndata: a\ndata: b\n\ndata: \n\n",
		string(registryhttp.AppendEvent(registryhttp.AppendEvent(nil, "e", []byte("a\nb")), "", nil)))
}

func TestMiddleware_CorrelatesOnRequest(t *testing.T) {
	t.Parallel()
	for sent, kept := range map[string]bool{"": false, "mine": true, "not one": false} {
		var seen string
		handler := registryhttp.Middleware(registryhttp.MiddlewareOptions{Correlate: true})(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			seen = registryhttp.MetadataOf(r.Context()).Correlation
		}))
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", http.NoBody)
		r.Header.Set(registryhttp.HeaderCorrelation, sent)
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		require.NotEmpty(t, seen)
		require.Equal(t, kept, seen == sent)
		require.Equal(t, seen, w.Header().Get(registryhttp.HeaderCorrelation))
	}
}

// Variants: nothing in progress, requests that end in time, that end with their context, that do not end.
func TestServe_EndsTheRequestsInProgress(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"", "/quick", "/heeds", "/stuck"} {
		entered, release := make(chan struct{}), make(chan struct{})
		server := &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			close(entered)
			switch r.URL.Path {
			case "/quick":
				<-release
			case "/heeds":
				<-r.Context().Done()
			case "/stuck":
				<-r.Context().Done()
				<-release
			}
			_, _ = io.WriteString(w, "answered")
		})}
		var listen net.ListenConfig
		listener, err := listen.Listen(t.Context(), "tcp", "127.0.0.1:0")
		require.NoError(t, err)
		ctx, stop := context.WithCancel(t.Context())
		ended, answers := make(chan error, 1), make(chan string, 1)
		go func() { ended <- registryhttp.Serve(ctx, server, listener, 20*time.Millisecond) }()
		if path != "" {
			go func() { answers <- fetch(t, "http://"+listener.Addr().String()+path) }()
			<-entered
		}
		stop()
		if path == "/quick" {
			close(release)
		}
		require.NoError(t, <-ended)
		switch path {
		case "/stuck":
			require.Empty(t, <-answers)
			close(release)
		case "/quick", "/heeds":
			require.Equal(t, "answered", <-answers)
		}
	}
}

func fetch(t *testing.T, url string) string {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		return ""
	}
	response, err := client.Do(request)
	if err != nil {
		return ""
	}
	defer func() { _ = response.Body.Close() }()
	text, _ := io.ReadAll(response.Body)
	return string(text)
}

func TestServe_ReturnsTheErrorOfAServerThatCannotServe(t *testing.T) {
	t.Parallel()
	var listen net.ListenConfig
	listener, err := listen.Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, listener.Close())
	require.Error(t, registryhttp.Serve(t.Context(), &http.Server{ReadHeaderTimeout: time.Second}, listener, 0))
}

// deadlines is a writer that notes its deadline.
type deadlines struct {
	*httptest.ResponseRecorder

	last time.Time
}

func (d *deadlines) SetWriteDeadline(at time.Time) error { d.last = at; return nil }

func TestEventWriter_LongestTimesAreNoLimits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := &deadlines{ResponseRecorder: httptest.NewRecorder()}
		events := registryhttp.NewEventWriter(w, registryhttp.EventOptions{WriteTimeout: math.MaxInt64, CommentEvery: math.MaxInt64})
		for range 2 {
			time.Sleep(time.Minute)
			_, err := events.Write([]byte("data: a\n\n"))
			require.NoError(t, err)
			require.Greater(t, time.Until(w.last), time.Hour)
		}
		require.NoError(t, events.Close())
		require.Greater(t, time.Until(w.last), time.Hour)
	})
}
