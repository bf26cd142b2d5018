package registryhttp_test

import (
	"context"
	"errors"
	"io"
	"math"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/internal/request"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/registryhttp"
	"github.com/capreg/registry/verdict"
)

// hangs answers nothing until the context of the request ends.
func hangs(request *http.Request) (*http.Response, error) {
	<-request.Context().Done()
	return nil, context.Cause(request.Context())
}

// pieces is a body whose pieces arrive with a pause before each, as long as its request goes on.
type pieces struct {
	ctx    context.Context //nolint:containedctx // of the request
	pause  []time.Duration
	end    error
	closed chan struct{}
}

func (p *pieces) Read(buffer []byte) (int, error) {
	if len(p.pause) == 0 {
		return 0, p.end
	}
	select {
	case <-p.ctx.Done():
		return 0, p.ctx.Err()
	case <-time.After(p.pause[0]):
		p.pause = p.pause[1:]
		return copy(buffer, "."), nil
	}
}

func (p *pieces) Close() error {
	close(p.closed)
	return nil
}

// streams answers with pieces that come after the pauses, and then end.
func streams(end error, pause ...time.Duration) roundTrip {
	return func(request *http.Request) (*http.Response, error) {
		response := answer(200, nil)
		response.Body = &pieces{request.Context(), pause, end, make(chan struct{})}
		return response, nil
	}
}

// class returns the class of the last error of a provider.
func class(t *testing.T, registration *registry.Registration) verdict.Class {
	t.Helper()
	last := registration.Info().LastError
	require.NotNil(t, last)
	return last.Class
}

func TestTransport_MovesOnWhenTheFirstByteIsLate(t *testing.T) {
	t.Parallel()
	for name, slow := range map[string]roundTrip{"no header": hangs, "no body": streams(io.EOF, time.Hour)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, registryhttp.Options{FirstTimeout: 5 * time.Second}, func(t *testing.T, s *setup) {
				began := time.Now()
				response, err := s.get()
				require.Equal(t, "b", read(t, response, err))
				require.Equal(t, 5*time.Second, time.Since(began))
				s.requireCounts(0, 0, 1, 0, 0)
				require.Equal(t, verdict.ClassStalled, class(t, s.providers[0]))
			}, slow, says("b"))
		})
	}
	bubble(t, registryhttp.Options{}, func(t *testing.T, s *setup) {
		s.add(registry.Provider[*registryhttp.Upstream]{Name: "own"}, "http://own", registryhttp.UpstreamOptions{
			Transport: roundTrip(hangs), FirstTimeout: time.Second,
		})
		began := time.Now()
		_, err := s.get() //nolint:bodyclose // there is none
		require.ErrorIs(t, err, registryhttp.ErrFirstByte)
		require.Equal(t, time.Second, time.Since(began))
	})
}

// Variants: a context of package context, and one whose deadline the transport keeps, which sets no timer.
func TestTransport_DeadlineOfTheClientEndsTheRequestAndTheBody(t *testing.T) {
	t.Parallel()
	contexts := map[string]func(context.Context) (context.Context, func()){
		"context": func(ctx context.Context) (context.Context, func()) { return context.WithTimeout(ctx, 7*time.Second) },
		"limited": func(ctx context.Context) (context.Context, func()) {
			var l request.Limited
			l.Init(ctx, time.Now().Add(7*time.Second))
			return &l, l.End
		},
	}
	for name, with := range contexts {
		for begins, server := range map[string]roundTrip{"never": hangs, "stalls": streams(io.EOF, time.Second, time.Hour)} {
			t.Run(name+" "+begins, func(t *testing.T) {
				t.Parallel()
				bubble(t, registryhttp.Options{FirstTimeout: time.Minute}, func(t *testing.T, s *setup) {
					ctx, end := with(t.Context())
					defer end()
					began := time.Now()
					response, err := s.send(ctx, http.MethodGet, nil)
					if err == nil {
						_, err = io.ReadAll(response.Body)
						require.NoError(t, response.Body.Close())
					}
					require.ErrorIs(t, err, context.DeadlineExceeded)
					require.Equal(t, 7*time.Second, time.Since(began))
					require.Equal(t, begins == "stalls", response != nil)
					require.Equal(t, uint64(1), s.providers[0].Info().Attempts)
					require.Zero(t, s.providers[0].Info().Failures, "it had its minute")
					require.Zero(t, s.providers[1].Info().Attempts)
				}, server, says("b"))
			})
		}
	}
}

// limited limits the time until the first byte, by the context that it is given, and goes on to next.
func limited(limit time.Duration, next roundTrip) roundTrip {
	return func(request *http.Request) (*http.Response, error) {
		type other struct{}
		ctx := context.WithValue(request.Context(), other{}, 1)
		if !registryhttp.LimitFirst(ctx, time.Hour) || !registryhttp.LimitFirst(ctx, limit) {
			return nil, errors.New("no attempt")
		}
		return next(request)
	}
}

func TestLimitFirst_EndsAnAttemptWhoseFirstByteIsLate(t *testing.T) {
	t.Parallel()
	for name, slow := range map[string]roundTrip{"no header": hangs, "no body": streams(io.EOF, time.Hour)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, registryhttp.Options{FirstTimeout: time.Minute}, func(t *testing.T, s *setup) {
				began := time.Now()
				response, err := s.get()
				require.Equal(t, "b", read(t, response, err))
				require.Equal(t, 5*time.Second, time.Since(began))
				s.requireCounts(0, 0, 1, 0, 0)
				require.Equal(t, verdict.ClassStalled, class(t, s.providers[0]))
			}, limited(5*time.Second, slow), says("b"))
		})
	}
	bubble(t, registryhttp.Options{FirstTimeout: 3 * time.Second}, func(t *testing.T, s *setup) {
		began := time.Now()
		response, err := s.get()
		require.Equal(t, "b", read(t, response, err))
		require.Equal(t, 3*time.Second, time.Since(began), "the sooner bound counts")
	}, limited(5*time.Second, hangs), says("b"))
}

// Without it the attempt would be cut for another provider, which blames the first one less.
func TestLimitFirst_IsNoCutForAnotherProvider(t *testing.T) {
	t.Parallel()
	for limit, want := range map[time.Duration]verdict.Class{time.Second: verdict.ClassStalled, time.Hour: verdict.ClassCut} {
		bubble(t, registryhttp.Options{}, func(t *testing.T, s *setup) {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			response, err := s.send(ctx, http.MethodGet, nil)
			require.Equal(t, "b", read(t, response, err))
			require.Equal(t, want, class(t, s.providers[0]))
		}, limited(limit, hangs), says("b"))
	}
}

// Both ends are there: the share of the time, and the limit that would come later.
func TestLimitFirst_LeavesACutWhatItIs(t *testing.T) {
	t.Parallel()
	bubble(t, registryhttp.Options{}, func(t *testing.T, s *setup) {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		response, err := s.send(ctx, http.MethodGet, nil)
		require.Equal(t, "b", read(t, response, err))
		require.Equal(t, verdict.ClassCut, class(t, s.providers[0]))
	}, roundTrip(func(r *http.Request) (*http.Response, error) {
		time.Sleep(10 * time.Second)
		return limited(14*time.Second, hangs)(r)
	}), says("b"))
}

func TestTransport_LongestTimesAreNoLimits(t *testing.T) {
	t.Parallel()
	for name, options := range map[string]registryhttp.Options{
		"first": {FirstTimeout: math.MaxInt64}, "stall": {StallTimeout: math.MaxInt64}, "all": {Timeout: math.MaxInt64},
		"by the provider": {},
	} {
		bubble(t, options, func(t *testing.T, s *setup) {
			transport := s.transport()
			time.Sleep(time.Second) // the clock does not begin at zero
			request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://client/path", http.NoBody)
			require.NoError(t, err)
			response, err := transport.RoundTrip(request)
			require.NoError(t, err, name)
			_, err = io.ReadAll(response.Body)
			require.Error(t, err, "the other limits stay: %s", name)
			require.NoError(t, response.Body.Close())
		}, limited(math.MaxInt64, streams(io.EOF, time.Second, 48*time.Hour)))
	}
}

func TestLimitFirst_LimitsNothingBehindTheFirstByteAndElsewhere(t *testing.T) {
	t.Parallel()
	require.False(t, registryhttp.LimitFirst(t.Context(), time.Second))
	var none context.Context
	require.False(t, registryhttp.LimitFirst(none, time.Second))
	sent := make(chan *http.Request, 1)
	bubble(t, registryhttp.Options{}, func(t *testing.T, s *setup) {
		response, err := s.get()
		require.NoError(t, err)
		ctx := (<-sent).Context()
		require.False(t, registryhttp.LimitFirst(ctx, time.Second))
		require.Equal(t, "..", read(t, response, err))
		require.False(t, registryhttp.LimitFirst(ctx, time.Second))
	}, roundTrip(func(r *http.Request) (*http.Response, error) {
		sent <- r
		return streams(io.EOF, time.Second, 20*time.Second)(r)
	}))
}

func TestTransport_CutsTheDefaultForAnotherProvider(t *testing.T) {
	t.Parallel()
	bubble(t, registryhttp.Options{}, func(t *testing.T, s *setup) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		response, err := s.send(ctx, http.MethodGet, nil)
		require.Equal(t, "b", read(t, response, err))
		s.requireCounts(0, 0, 0, 1, 0)
		require.Equal(t, verdict.ClassCut, class(t, s.providers[0]))
	}, roundTrip(hangs), says("b"))
}

func TestTransport_StalledBodyIsAnErrorAndAFailure(t *testing.T) {
	t.Parallel()
	bubble(t, registryhttp.Options{StallTimeout: 3 * time.Second}, func(t *testing.T, s *setup) {
		response, err := s.get()
		require.NoError(t, err)
		began := time.Now()
		text, err := io.ReadAll(response.Body)
		require.Equal(t, "..", string(text))
		require.ErrorIs(t, err, registryhttp.ErrStalled)
		require.ErrorContains(t, err, `provider "a"`)
		require.Equal(t, 5*time.Second, time.Since(began), "2 s for a piece, and the limit")
		_, again := response.Body.Read(make([]byte, 1))
		require.Equal(t, err, again)
		s.requireCounts(0, 0, 1, 0, 0)
		require.Equal(t, verdict.ClassStalled, class(t, s.providers[0]))
		require.NoError(t, response.Body.Close())
	}, streams(io.EOF, time.Minute, 2*time.Second, time.Hour), says("b"))
}

func TestTransport_CutBodyIsAFailure(t *testing.T) {
	t.Parallel()
	bubble(t, registryhttp.Options{}, func(t *testing.T, s *setup) {
		response, err := s.get()
		require.NoError(t, err)
		_, err = io.ReadAll(response.Body)
		require.ErrorIs(t, err, io.ErrUnexpectedEOF)
		s.requireCounts(0, 0, 1, 0, 0)
		require.NoError(t, response.Body.Close())
		require.NoError(t, response.Body.Close())
		_, err = response.Body.Read(make([]byte, 1))
		require.ErrorIs(t, err, http.ErrBodyReadAfterClose)
		s.requireCounts(0, 0, 1, 0, 0)
	}, streams(io.ErrUnexpectedEOF, 1, 1), says("b"))
}

func TestTransport_BodyWithoutBytesOrEndIsAFailure(t *testing.T) {
	t.Parallel()
	bubble(t, registryhttp.Options{}, func(t *testing.T, s *setup) {
		response, err := s.get()
		require.NoError(t, err)
		reads := 0
		for buffer := make([]byte, 8); err == nil; reads++ {
			_, err = response.Body.Read(buffer)
			_, _ = response.Body.Read(nil) // which asks for nothing
		}
		require.ErrorIs(t, err, io.ErrNoProgress)
		require.Greater(t, reads, 90)
		s.requireCounts(0, 0, 1, 0, 0)
		require.NoError(t, response.Body.Close())
	}, roundTrip(func(*http.Request) (*http.Response, error) {
		return answer(200, io.MultiReader(strings.NewReader("begun"), neverReads{})), nil
	}), says("b"))
}

func TestTransport_LatencyIsTheTimeToTheFirstByte(t *testing.T) {
	t.Parallel()
	bubble(t, registryhttp.Options{}, func(t *testing.T, s *setup) {
		response, err := s.get()
		require.Equal(t, "..", read(t, response, err))
		require.Equal(t, time.Second, s.providers[0].Info().MeanLatency)
	}, streams(io.EOF, time.Second, 20*time.Second))
}

func TestTransport_SlowReaderBlamesNoProvider(t *testing.T) {
	t.Parallel()
	bubble(t, registryhttp.Options{Timeout: time.Minute}, func(t *testing.T, s *setup) {
		response, err := s.get()
		require.NoError(t, err)
		testkit.Pass(time.Minute)
		s.requireCounts(0, 0, 0, 1, 0)
		_, err = io.ReadAll(response.Body)
		require.ErrorIs(t, err, registry.ErrAttemptTimeout)
		require.NoError(t, response.Body.Close())
	}, streams(io.EOF, 1, 1, 1))
}

func TestTransport_TotalTimeOfAnAnswerBlamesNoProvider(t *testing.T) {
	t.Parallel()
	bubble(t, registryhttp.Options{Timeout: time.Minute}, func(t *testing.T, s *setup) {
		response, err := s.get()
		require.NoError(t, err)
		_, err = io.ReadAll(response.Body)
		require.ErrorIs(t, err, registry.ErrAttemptTimeout)
		s.requireCounts(0, 0, 0, 1, 0)
		require.NoError(t, response.Body.Close())
	}, streams(io.EOF, 1, 20*time.Second, 20*time.Second, 20*time.Second, 20*time.Second))
}

func TestTransport_TotalTimeWithoutAnAnswerIsAFailure(t *testing.T) {
	t.Parallel()
	bubble(t, registryhttp.Options{Timeout: time.Minute, FirstTimeout: time.Hour}, func(t *testing.T, s *setup) {
		response, err := s.get()
		require.Equal(t, "b", read(t, response, err))
		s.requireCounts(0, 0, 1, 0, 0)
		require.Equal(t, verdict.ClassAttemptTimeout, class(t, s.providers[0]))
	}, roundTrip(hangs), says("b"))
}

func TestTransport_ClientThatLeavesBlamesNoProvider(t *testing.T) {
	t.Parallel()
	errGone := errors.New("gone")
	for name, leave := range map[string]func(t *testing.T, response *http.Response, cancel context.CancelCauseFunc){
		"cancels in a read": func(t *testing.T, response *http.Response, cancel context.CancelCauseFunc) {
			time.AfterFunc(time.Second, func() { cancel(errGone) })
			_, err := io.ReadAll(response.Body)
			require.ErrorIs(t, err, errGone)
		},
		"cancels between two reads": func(t *testing.T, response *http.Response, cancel context.CancelCauseFunc) {
			cancel(errGone)
			synctest.Wait()
			_, err := response.Body.Read(make([]byte, 10))
			if err == nil { // the first byte
				_, err = response.Body.Read(make([]byte, 10))
			}
			require.ErrorIs(t, err, errGone)
		},
		"closes": func(t *testing.T, response *http.Response, _ context.CancelCauseFunc) {
			require.NoError(t, response.Body.Close())
		},
		"closes during a read": func(t *testing.T, response *http.Response, _ context.CancelCauseFunc) {
			time.AfterFunc(time.Second, func() { _ = response.Body.Close() })
			_, err := io.ReadAll(response.Body)
			require.Error(t, err)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, registryhttp.Options{}, func(t *testing.T, s *setup) {
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				response, err := s.send(ctx, http.MethodGet, nil)
				require.NoError(t, err)
				leave(t, response, cancel)
				synctest.Wait()
				s.requireCounts(0, 0, 0, 1, 0)
				require.NoError(t, response.Body.Close())
			}, streams(io.EOF, 1, 30*time.Second), says("b"))
		})
	}
}

func TestTransport_ClientThatLeavesBeforeTheAnswerEndsTheCall(t *testing.T) {
	t.Parallel()
	bubble(t, registryhttp.Options{}, func(t *testing.T, s *setup) {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		_, err := s.send(ctx, http.MethodGet, nil) //nolint:bodyclose // there is none
		require.ErrorIs(t, err, context.Canceled)
		s.requireCounts(0, 0, 0, 1, 0)
		s.requireCounts(1, 0, 0, 0, 0)
	}, roundTrip(hangs), says("b"))
}

func TestTransport_CloseTakesAnEndThatIsThere(t *testing.T) {
	t.Parallel()
	bubble(t, registryhttp.Options{}, func(t *testing.T, s *setup) {
		response, err := s.get()
		require.NoError(t, err)
		_, err = io.ReadFull(response.Body, make([]byte, 2))
		require.NoError(t, err)
		began := time.Now()
		require.NoError(t, response.Body.Close())
		require.Less(t, time.Since(began), 20*time.Millisecond)
		s.requireCounts(0, 1, 0, 0, 0)
	}, streams(io.EOF, 1, 1, time.Millisecond))
	bubble(t, registryhttp.Options{}, func(t *testing.T, s *setup) {
		response, err := s.get()
		require.NoError(t, err)
		require.NoError(t, response.Body.Close(), "there is too much of it")
		s.requireCounts(0, 0, 0, 1, 0)
	}, roundTrip(func(*http.Request) (*http.Response, error) { return answer(200, endless{}), nil }))
}

// endless is a body without an end.
type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

func TestTransport_RemovalEndsAnAnswerAfterItsDrain(t *testing.T) {
	t.Parallel()
	bubble(t, registryhttp.Options{}, func(t *testing.T, s *setup) {
		response, err := s.get()
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		removed := make(chan error, 1)
		go func() { removed <- s.providers[0].Unregister(ctx) }()
		began := time.Now()
		text, err := io.ReadAll(response.Body)
		require.Equal(t, "...", string(text), "it goes on while it may")
		require.ErrorIs(t, err, registry.ErrClosed)
		require.Equal(t, 10*time.Second, time.Since(began))
		require.NoError(t, <-removed)
		s.requireCounts(0, 0, 0, 1, 0)
		require.NoError(t, response.Body.Close())
	}, streams(io.EOF, 1, 4*time.Second, 4*time.Second, 4*time.Second))
}

func TestTransport_RemovalWaitsForAnAnswer(t *testing.T) {
	t.Parallel()
	bubble(t, registryhttp.Options{}, func(t *testing.T, s *setup) {
		response, err := s.get() //nolint:bodyclose // it is, below
		require.NoError(t, err)
		began := time.Now()
		go func() { _, _ = io.Copy(io.Discard, response.Body) }()
		require.NoError(t, s.providers[0].Unregister(t.Context()))
		require.Equal(t, 4*time.Second, time.Since(began))
		s.requireCounts(0, 1, 0, 0, 0)
		require.NoError(t, response.Body.Close())
	}, streams(io.EOF, 1, 4*time.Second))
}

func TestTransport_RemovalBetweenTwoReadsReleasesTheProvider(t *testing.T) {
	t.Parallel()
	var body *pieces
	bubble(t, registryhttp.Options{}, func(t *testing.T, s *setup) {
		_, err := s.get() //nolint:bodyclose // its reader has forgotten it
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.NoError(t, s.providers[0].Unregister(ctx))
		synctest.Wait()
		s.requireCounts(0, 0, 0, 1, 0)
		require.Error(t, body.ctx.Err())
	}, roundTrip(func(request *http.Request) (*http.Response, error) {
		response := answer(200, nil)
		body = &pieces{request.Context(), []time.Duration{1, 1, 1}, io.EOF, make(chan struct{})}
		response.Body = body
		return response, nil
	}))
}

func TestTransport_HeedsRetryAfter(t *testing.T) {
	t.Parallel()
	limited := true
	bubble(t, registryhttp.Options{Call: []registry.CallOption{registry.WaitForCooldown()}}, func(t *testing.T, s *setup) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		began := time.Now()
		response, err := s.send(ctx, http.MethodPost, strings.NewReader("once"))
		require.Equal(t, "a", read(t, response, err))
		require.GreaterOrEqual(t, time.Since(began), 20*time.Second)
		require.Less(t, time.Since(began), 25*time.Second)
	}, roundTrip(func(request *http.Request) (*http.Response, error) {
		if limited {
			limited = false
			return refuses(429, "Retry-After", "20")(request)
		}
		return says("a")(request)
	}))
}

func TestTransport_RefusalCanBeReadAfterTheCall(t *testing.T) {
	t.Parallel()
	bubble(t, registryhttp.Options{FirstTimeout: time.Second}, func(t *testing.T, s *setup) {
		ctx, cancel := context.WithCancelCause(t.Context())
		response, err := s.send(ctx, http.MethodGet, nil)
		require.NoError(t, err)
		s.requireCounts(0, 0, 1, 0, 0)
		testkit.Pass(time.Minute) // the time for the first byte does not bound it
		_, err = io.ReadFull(response.Body, make([]byte, 2))
		require.NoError(t, err)
		cancel(errDown)
		_, err = io.ReadAll(response.Body)
		require.ErrorIs(t, err, errDown)
		require.NoError(t, response.Body.Close())
		s.requireCounts(0, 0, 1, 0, 0)
	}, roundTrip(func(request *http.Request) (*http.Response, error) {
		response, err := streams(io.EOF, 1, 1, time.Minute)(request)
		response.StatusCode = 503
		return response, err
	}))
}

func TestTransport_CommitsWithItsHeaderOnRequest(t *testing.T) {
	t.Parallel()
	bubble(t, registryhttp.Options{CommitHeader: true}, func(t *testing.T, s *setup) {
		began := time.Now()
		response, err := s.get()
		require.NoError(t, err)
		require.Zero(t, time.Since(began))
		require.Equal(t, ".", read(t, response, nil))
		s.requireCounts(0, 1, 0, 0, 0)
	}, streams(io.EOF, 50*time.Second))
	bubble(t, registryhttp.Options{CommitHeader: true}, func(t *testing.T, s *setup) {
		response, err := s.get()
		require.NoError(t, err)
		s.requireCounts(0, 1, 0, 0, 0)
		require.Empty(t, read(t, response, nil))
	}, roundTrip(func(*http.Request) (*http.Response, error) {
		response := answer(204, nil)
		response.Body = nil
		return response, nil
	}))
}

func TestTransport_TrialEndsForAdmissionWhenTheAnswerBegins(t *testing.T) {
	t.Parallel()
	bubble(t, registryhttp.Options{}, func(t *testing.T, s *setup) {
		require.NoError(t, s.providers[0].ForceOpen(time.Second, "test"))
		testkit.Pass(time.Second + 1)
		first, err := s.get()
		require.NoError(t, err)
		second, err := s.get()
		require.NoError(t, err)
		require.Equal(t, "..", read(t, second, nil))
		require.Equal(t, "..", read(t, first, nil))
		s.requireCounts(0, 2, 0, 0, 0)
	}, streams(io.EOF, 1, 30*time.Second))
}

type valueKey struct{}

func TestTransport_HeedsTheContextOfAHook(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		errHook := errors.New("hook")
		var seen any
		var end context.CancelCauseFunc
		reg := testkit.New(t, registry.Options{Hooks: registry.Hooks{BeforeAttempt: func(ctx context.Context, _ registry.CallReport, _ registry.Attempt) context.Context {
			ctx, end = context.WithCancelCause(context.WithValue(ctx, valueKey{}, "of the hook"))
			return ctx
		}}})
		s := with(t, reg, registryhttp.Options{}, roundTrip(func(request *http.Request) (*http.Response, error) {
			seen = request.Context().Value(valueKey{})
			return streams(io.EOF, 1, time.Minute)(request)
		}), refuses(500))
		response, err := s.get()
		require.NoError(t, err)
		require.Equal(t, "of the hook", seen)
		time.AfterFunc(time.Second, func() { end(errHook) })
		_, err = io.ReadAll(response.Body)
		require.ErrorIs(t, err, errHook)
		require.NoError(t, response.Body.Close())

		require.NoError(t, s.providers[0].Unregister(t.Context()))
		response, err = s.get()
		require.Equal(t, "refused with 500", read(t, response, err), "it does not end with the lease")
		require.NoError(t, reg.Close(context.Background()))
	})
}
