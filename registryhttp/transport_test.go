package registryhttp_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/registryhttp"
	"github.com/capreg/registry/verdict"
)

func TestTransport_FailsOverAndCountsEachOutcomeOnce(t *testing.T) {
	t.Parallel()
	refused := &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
	for name, bad := range map[string]roundTrip{
		"500": refuses(500), "502": refuses(502), "refused": fails(refused), "reset": fails(syscall.ECONNRESET), "nothing": fails(nil),
		"cut before the first byte": func(*http.Request) (*http.Response, error) {
			return answer(200, iotest.ErrReader(io.ErrUnexpectedEOF)), nil
		},
		"a body without bytes or end": func(*http.Request) (*http.Response, error) { return answer(200, neverReads{}), nil },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, registryhttp.Options{Repeatable: all}, func(t *testing.T, s *setup) {
				response, err := s.post("question")
				require.Equal(t, "b", read(t, response, err))
				s.requireCounts(0, 0, 1, 0, 0)
				s.requireCounts(1, 1, 0, 0, 0)
				s.requireCounts(2, 0, 0, 0, 0)
			}, bad, says("b"), says("c"))
		})
	}
}

// neverReads returns neither bytes nor an error.
type neverReads struct{}

func (neverReads) Read([]byte) (int, error) { return 0, nil }

func TestTransport_SendsOnlyWhatIsSafeAgain(t *testing.T) {
	t.Parallel()
	dial := &net.OpError{Op: "dial", Err: errDown}
	for _, c := range []struct {
		name   string
		method string
		key    string
		first  roundTrip
		again  bool
	}{
		{"POST, 500", http.MethodPost, "", refuses(500), false},
		{"POST, cut", http.MethodPost, "", fails(io.ErrUnexpectedEOF), false},
		{"PATCH, cut", http.MethodPatch, "", fails(io.ErrUnexpectedEOF), false},
		{"POST, not sent", http.MethodPost, "", fails(dial), true},
		{"POST, 429", http.MethodPost, "", refuses(429), true},
		{"POST, 401", http.MethodPost, "", refuses(401), true},
		{"POST with a key, 500", http.MethodPost, "Idempotency-Key", refuses(500), true},
		{"POST with the other key, 500", http.MethodPost, "X-Idempotency-Key", refuses(500), true},
		{"PUT, 500", http.MethodPut, "", refuses(500), true},
		{"DELETE, cut", http.MethodDelete, "", fails(io.ErrUnexpectedEOF), true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			bubble(t, registryhttp.Options{}, func(t *testing.T, s *setup) {
				request, err := http.NewRequestWithContext(t.Context(), c.method, "http://client/", strings.NewReader("body"))
				require.NoError(t, err)
				if c.key != "" {
					request.Header.Set(c.key, "1")
				}
				response, err := s.transport().RoundTrip(request)
				if response != nil {
					require.NoError(t, response.Body.Close())
				}
				if c.again {
					require.NoError(t, err)
					require.Equal(t, 200, response.StatusCode)
					return
				}
				s.requireCounts(1, 0, 0, 0, 0)
				if err == nil {
					require.Equal(t, 500, response.StatusCode)
					return
				}
				var failed *registry.CallError
				require.ErrorAs(t, err, &failed)
				require.True(t, failed.OnceOnly)
			}, c.first, says("b"))
		})
	}
}

func TestTransport_GivesTheLastRefusalAsItWasSent(t *testing.T) {
	t.Parallel()
	bubble(t, registryhttp.Options{}, func(t *testing.T, s *setup) {
		response, err := s.get()
		require.NoError(t, err)
		require.Equal(t, http.StatusTooManyRequests, response.StatusCode)
		require.Equal(t, "7", response.Header.Get("Retry-After"))
		require.Equal(t, "refused with 429", read(t, response, nil))
		s.requireCounts(0, 0, 1, 0, 0)
		s.requireCounts(1, 0, 0, 0, 1)
	}, refuses(500), refuses(429, "Retry-After", "7"))
}

func TestTransport_AnswersAboutTheRequestEndIt(t *testing.T) {
	t.Parallel()
	for _, status := range []int{400, 404, 409, 413, 422} {
		bubble(t, registryhttp.Options{}, func(t *testing.T, s *setup) {
			response, err := s.get()
			require.NoError(t, err)
			require.Equal(t, status, response.StatusCode)
			require.Contains(t, read(t, response, nil), "refused with")
			s.requireCounts(0, 1, 0, 0, 0)
			s.requireCounts(1, 0, 0, 0, 0)
		}, refuses(status), says("b"))
	}
}

func TestTransport_SaysCredentialsWhenAllRefuseThem(t *testing.T) {
	t.Parallel()
	dead := roundTrip(func(*http.Request) (*http.Response, error) {
		return answer(401, strings.NewReader(`{"error":{"code":"invalid_api_key"}}`), "Content-Type", "application/json"), nil
	})
	bubble(t, registryhttp.Options{}, func(t *testing.T, s *setup) {
		response, err := s.get() //nolint:bodyclose // there is none
		require.Nil(t, response)
		require.ErrorIs(t, err, registry.ErrCredentials)
		s.requireCounts(0, 0, 0, 0, 1)
		s.requireCounts(1, 0, 0, 0, 1)
	}, dead, dead)
}

func TestTransport_ErrorsWithoutAnAnswerAreThoseOfCalls(t *testing.T) {
	t.Parallel()
	bubble(t, registryhttp.Options{}, func(t *testing.T, s *setup) {
		_, err := s.get() //nolint:bodyclose // there is none
		var failed *registry.CallError
		require.ErrorAs(t, err, &failed)
		require.Len(t, failed.Attempts, 2)
		require.ErrorIs(t, err, syscall.ECONNRESET)
		for _, p := range s.providers {
			require.NoError(t, p.ForceOpen(1e9, "test"))
		}
		_, err = s.get() //nolint:bodyclose // there is none
		require.ErrorIs(t, err, registry.ErrUnavailable)
	}, refuses(500), fails(syscall.ECONNRESET))
}

func TestTransport_BoundsItsAttempts(t *testing.T) {
	t.Parallel()
	bubble(t, registryhttp.Options{MaxAttempts: 2}, func(t *testing.T, s *setup) {
		_, err := s.get() //nolint:bodyclose // there is none
		require.ErrorIs(t, err, errDown)
		require.NotErrorIs(t, err, registryhttp.ErrBodySpent)
		s.requireCounts(1, 0, 1, 0, 0)
		s.requireCounts(2, 0, 0, 0, 0)
	}, fails(errDown), fails(errDown), says("c"))
}

func TestTransport_ShowsNoProviderInTheAnswer(t *testing.T) {
	t.Parallel()
	var sent *http.Request
	bubble(t, registryhttp.Options{}, func(t *testing.T, s *setup) {
		s.add(registry.Provider[*registryhttp.Upstream]{Name: "k"}, "https://secret-host/base?key=secret-query", registryhttp.UpstreamOptions{
			Header: http.Header{"Authorization": {"Bearer secret-key"}},
			Transport: roundTrip(func(request *http.Request) (*http.Response, error) {
				sent = request
				response := answer(200, strings.NewReader("k"))
				response.Request = request
				return response, nil
			}),
		})
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://client/path?q=1", nil)
		require.NoError(t, err)
		response, err := s.transport().RoundTrip(request)
		require.Equal(t, "k", read(t, response, err))
		require.Same(t, request, response.Request)
		require.Empty(t, request.Header)
		require.Equal(t, "https://secret-host/base/path?key=secret-query&q=1", sent.URL.String())
		require.Equal(t, "Bearer secret-key", sent.Header.Get("Authorization"))
	})
	failing := roundTrip(func(request *http.Request) (*http.Response, error) {
		return nil, &url.Error{Op: "Get", URL: request.URL.String(), Err: errDown}
	})
	bubble(t, registryhttp.Options{}, func(t *testing.T, s *setup) {
		s.add(registry.Provider[*registryhttp.Upstream]{Name: "k"}, "https://user:secret-password@host/?key=secret-query", registryhttp.UpstreamOptions{Transport: failing})
		_, err := s.get() //nolint:bodyclose // there is none
		require.ErrorIs(t, err, errDown)
		require.NotContains(t, err.Error(), "secret")
	})
}

func TestTransport_RefusesRequestsThatItCannotSend(t *testing.T) {
	t.Parallel()
	bubble(t, registryhttp.Options{Base: "/v1/"}, func(t *testing.T, s *setup) {
		for text, says := range map[string]string{
			"/v1/relative": "absolute", "//host/v1": "absolute", "ftp://host/v1": "absolute", "http:opaque": "absolute",
			"http://host/v2": "within Options.Base", "http://host/v10": "within Options.Base", "http://host/%76%31/x": "within Options.Base",
		} {
			asked, err := url.Parse(text)
			require.NoError(t, err)
			body := &closing{}
			_, err = s.transport().RoundTrip(&http.Request{Method: http.MethodGet, URL: asked, Body: body}) //nolint:bodyclose // there is none
			require.ErrorIs(t, err, registry.ErrInvalid, text)
			require.ErrorContains(t, err, says)
			require.EqualValues(t, 1, body.closed.Load(), "the body is closed")
		}
		_, err := s.transport().RoundTrip(&http.Request{}) //nolint:bodyclose // there is none
		require.ErrorIs(t, err, registry.ErrInvalid)
		_, err = s.transport().RoundTrip(nil) //nolint:bodyclose // there is none
		require.ErrorIs(t, err, registry.ErrInvalid)
		s.requireCounts(0, 0, 0, 0, 0)
	}, says("a"))
	var none *registryhttp.Transport
	_, err := none.RoundTrip(&http.Request{}) //nolint:bodyclose // there is none
	require.ErrorIs(t, err, registry.ErrInvalid)
}

// closing is a body that counts how often it is closed.
type closing struct {
	io.Reader

	closed atomic.Int32
}

func (c *closing) Close() error { c.closed.Add(1); return nil }

func TestNewTransport_RefusesBadOptions(t *testing.T) {
	t.Parallel()
	resolver := service.Bind(testkit.New(t, registry.Options{}), registry.Query{})
	for field, options := range map[string]registryhttp.Options{
		"Base": {Base: "v1"}, "MaxAttempts": {MaxAttempts: -1}, "FirstTimeout": {FirstTimeout: -1}, "StallTimeout": {StallTimeout: -1},
		"Timeout": {Timeout: -1}, "Call[1]": {Call: []registry.CallOption{registry.OnceOnly(), registry.ReportTo(&registry.CallReport{})}},
	} {
		_, err := registryhttp.NewTransport(resolver, options)
		var refused *registry.FieldError
		require.ErrorAs(t, err, &refused)
		require.Equal(t, "Options."+field, refused.Field)
	}
	_, err := registryhttp.NewTransport(nil, registryhttp.Options{})
	require.ErrorIs(t, err, registry.ErrInvalid)
}

func TestTransport_InspectMakesAnAnswerAFailure(t *testing.T) {
	t.Parallel()
	inspect := func(response *http.Response, first []byte) error {
		if response.Header.Get("Panic") != "" {
			panic(errDown)
		}
		if bytes.HasPrefix(first, []byte("<html>")) {
			return verdict.As(errors.New("a page"), verdict.Verdict{Class: verdict.ClassMalformed})
		}
		return nil
	}
	page := roundTrip(func(*http.Request) (*http.Response, error) { return answer(200, strings.NewReader("<html>")), nil })
	bubble(t, registryhttp.Options{Inspect: inspect}, func(t *testing.T, s *setup) {
		response, err := s.get()
		require.Equal(t, "b", read(t, response, err))
		s.requireCounts(0, 0, 1, 0, 0)
	}, page, says("b"))
	bubble(t, registryhttp.Options{Inspect: inspect}, func(t *testing.T, s *setup) {
		response, err := s.get()
		require.Equal(t, "<html>", read(t, response, err), "nothing else is left")
		s.requireCounts(0, 0, 1, 0, 0)
	}, page)
	bubble(t, registryhttp.Options{Inspect: inspect}, func(t *testing.T, s *setup) {
		response, err := s.get()
		require.Equal(t, "a", read(t, response, err), "its panic says nothing")
	}, roundTrip(func(*http.Request) (*http.Response, error) {
		return answer(200, strings.NewReader("a"), "Panic", "yes"), nil
	}))
}

func TestTransport_PanicsAreRecordedAndGoOn(t *testing.T) {
	t.Parallel()
	bubble(t, registryhttp.Options{}, func(t *testing.T, s *setup) {
		require.PanicsWithError(t, "down", func() { _, _ = s.get() }) //nolint:bodyclose // there is none
		s.requireCounts(0, 0, 1, 0, 0)
	}, roundTrip(func(*http.Request) (*http.Response, error) { panic(errDown) }))
	bubble(t, registryhttp.Options{CommitHeader: true}, func(t *testing.T, s *setup) {
		response, err := s.get() //nolint:bodyclose // it is, below
		require.NoError(t, err)
		require.PanicsWithError(t, "down", func() { _, _ = io.ReadAll(response.Body) })
		require.NoError(t, response.Body.Close())
		s.requireCounts(0, 0, 1, 0, 0)
	}, roundTrip(func(*http.Request) (*http.Response, error) { return answer(200, panics{}), nil }))
}

type panics struct{}

func (panics) Read([]byte) (int, error) { panic(errDown) }

// A read that does not heed its context returns what has come too late.
func TestTransport_StallOfAReadThatReturnsAllTheSameIsOne(t *testing.T) {
	t.Parallel()
	bubble(t, registryhttp.Options{StallTimeout: time.Second}, func(t *testing.T, s *setup) {
		response, err := s.get()
		require.NoError(t, err)
		_, err = io.CopyN(io.Discard, response.Body, 2)
		require.NoError(t, err)
		require.Equal(t, verdict.ClassStalled, class(t, s.providers[0]))
		s.requireCounts(0, 0, 1, 0, 0)
		require.NoError(t, response.Body.Close())
	}, roundTrip(func(request *http.Request) (*http.Response, error) {
		response := answer(200, nil)
		response.Body = &pieces{context.WithoutCancel(request.Context()), []time.Duration{0, time.Minute}, io.EOF, make(chan struct{})}
		return response, nil
	}))
}

// explodes is a body that panics when it is read or closed.
type explodes struct {
	io.Reader
}

func (e *explodes) Close() error {
	if e.Reader != (panics{}) {
		panic(errDown)
	}
	return nil
}

// Variants: of a refusal behind which another provider is asked, of an answer without a first byte, and of one that is closed.
func TestTransport_PanicOfABodyThatIsClosedKeepsNoLease(t *testing.T) {
	t.Parallel()
	for _, body := range []io.Reader{panics{}, strings.NewReader("refused")} {
		bubble(t, registryhttp.Options{}, func(t *testing.T, s *setup) {
			response, err := s.get()
			require.Equal(t, "b", read(t, response, err))
			s.requireCounts(0, 0, 1, 0, 0)
			s.requireCounts(1, 1, 0, 0, 0)
		}, explodingAnswer(503, body), says("b"))
		bubble(t, registryhttp.Options{CommitHeader: true}, func(t *testing.T, s *setup) {
			response, err := s.get() //nolint:bodyclose // it is, below
			require.NoError(t, err)
			require.PanicsWithError(t, "down", func() { _ = response.Body.Close() })
			require.NoError(t, response.Body.Close())
			require.Zero(t, s.providers[0].Info().InFlight)
		}, explodingAnswer(200, body))
	}
	bubble(t, registryhttp.Options{}, func(t *testing.T, s *setup) {
		response, err := s.get()
		require.Equal(t, "b", read(t, response, err))
		s.requireCounts(0, 0, 1, 0, 0)
	}, explodingAnswer(200, iotest.ErrReader(errDown)), says("b"))
}

// explodingAnswer answers with a body that panics.
func explodingAnswer(status int, body io.Reader) roundTrip {
	return func(*http.Request) (*http.Response, error) {
		response := answer(status, nil)
		response.Body = &explodes{body}
		return response, nil
	}
}

func TestTransport_HeedsOptionsOfTheCallAndTheCaller(t *testing.T) {
	t.Parallel()
	var callers []string
	reg := testkit.New(t, registry.Options{Hooks: registry.Hooks{AfterCall: func(_ context.Context, report registry.CallReport) {
		callers = append(callers, report.Caller)
	}}})
	s := with(t, reg, registryhttp.Options{Call: []registry.CallOption{registry.Caller("program")}}, says("a"))
	for _, caller := range []string{"", "alice"} {
		ctx := registryhttp.WithMetadata(t.Context(), registryhttp.Metadata{Caller: caller})
		response, err := s.send(ctx, http.MethodGet, nil)
		require.Equal(t, "a", read(t, response, err))
	}
	require.Equal(t, []string{"program", "alice"}, callers)
}

func TestTransport_LeavesUpgradedConnectionsToTheClient(t *testing.T) {
	t.Parallel()
	body := &upgraded{}
	bubble(t, registryhttp.Options{}, func(t *testing.T, s *setup) {
		response, err := s.get()
		require.NoError(t, err)
		require.Same(t, body, response.Body)
		s.requireCounts(0, 1, 0, 0, 0)
		testkit.Pass(1e12)
		require.NoError(t, response.Body.Close())
	}, roundTrip(func(*http.Request) (*http.Response, error) {
		response := answer(http.StatusSwitchingProtocols, nil)
		response.Body = body
		return response, nil
	}))
}

type upgraded struct{ bytes.Buffer }

func (*upgraded) Close() error { return nil }

func TestTransport_ClosesIdleConnections(t *testing.T) {
	t.Parallel()
	gone := make(chan struct{})
	handler := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") }))
	handler.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateClosed {
			close(gone)
		}
	}
	handler.Start()
	t.Cleanup(handler.Close)
	s := with(t, testkit.New(t, registry.Options{}), registryhttp.Options{})
	s.add(registry.Provider[*registryhttp.Upstream]{Name: "a"}, handler.URL, registryhttp.UpstreamOptions{})
	client := &http.Client{Transport: s.transport()}
	response, err := client.Get("http://client/") //nolint:noctx // it is short
	require.Equal(t, "hello", read(t, response, err))
	client.CloseIdleConnections()
	<-gone
	s.options.Transport = says("x")
	s.transport().CloseIdleConnections() // it has none
}
