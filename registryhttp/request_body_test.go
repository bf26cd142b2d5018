package registryhttp_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/registryhttp"
	"github.com/capreg/registry/verdict"
)

// reads reads n bytes of the request, notes them and fails; below zero it reads all.
func reads(n int, got *[]string) roundTrip {
	return func(request *http.Request) (*http.Response, error) {
		var text []byte
		if n < 0 {
			text, _ = io.ReadAll(request.Body)
		} else {
			text = make([]byte, n)
			read, _ := io.ReadFull(request.Body, text)
			text = text[:read]
		}
		*got = append(*got, string(text))
		_ = request.Body.Close()
		return nil, io.ErrUnexpectedEOF
	}
}

// plainReader hides the type of a reader from net/http, which would make GetBody of it.
type plainReader struct{ io.Reader }

func TestTransport_SendsTheSameBodyEachTime(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("long ", 1<<19) // its upload is not the provider's time
	for name, body := range map[string]func() io.Reader{
		"by GetBody":         func() io.Reader { return strings.NewReader("question") },
		"long, by GetBody":   func() io.Reader { return strings.NewReader(long) },
		"kept while sent":    func() io.Reader { return plainReader{strings.NewReader("question")} },
		"kept, in two parts": func() io.Reader { return io.MultiReader(strings.NewReader("ques"), strings.NewReader("tion")) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var got []string
			bubble(t, registryhttp.Options{Repeatable: all}, func(t *testing.T, s *setup) {
				response, err := s.send(t.Context(), http.MethodPost, body())
				require.Equal(t, "e", read(t, response, err))
				want, err := io.ReadAll(body())
				require.NoError(t, err)
				require.Equal(t, []string{"", string(want[:4]), string(want), string(want)}, got)
			}, reads(0, &got), reads(4, &got), reads(-1, &got), reads(-1, &got), says("e"))
		})
	}
}

func TestTransport_SaysThatABodyCannotBeSentAgain(t *testing.T) {
	t.Parallel()
	for name, length := range map[string]int64{"of unknown length": -1, "of known length": 9} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var got []string
			bubble(t, registryhttp.Options{Repeatable: all, MaxBody: 8}, func(t *testing.T, s *setup) {
				source := &closing{Reader: strings.NewReader("too long.")}
				request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://client/", source)
				require.NoError(t, err)
				request.ContentLength = length
				_, err = s.transport().RoundTrip(request) //nolint:bodyclose // there is none
				require.ErrorIs(t, err, registryhttp.ErrBodySpent)
				require.ErrorIs(t, err, io.ErrUnexpectedEOF)
				require.Equal(t, []string{"", "too long."}, got, "none of it was read before")
				require.EqualValues(t, 1, source.closed.Load())
				s.requireCounts(3, 0, 0, 0, 0)
			}, fails(&dialError{}), reads(0, &got), reads(-1, &got), says("d"))
		})
	}
	bubble(t, registryhttp.Options{Repeatable: all, MaxBody: -1}, func(t *testing.T, s *setup) {
		response, err := s.send(t.Context(), http.MethodPost, plainReader{strings.NewReader("x")})
		require.NoError(t, err)
		require.Equal(t, 500, response.StatusCode, "a refusal is the answer")
		require.Equal(t, "refused with 500", read(t, response, nil))
	}, roundTrip(func(request *http.Request) (*http.Response, error) {
		_, _ = io.ReadAll(request.Body)
		return refuses(500)(request)
	}), says("b"))
}

// dialError is an error of a request that was not sent.
type dialError struct{}

func (*dialError) Error() string            { return "not sent" }
func (*dialError) Verdict() verdict.Verdict { return verdict.Verdict{Class: verdict.ClassNotSent} }

func TestTransport_ClosesABodyThatNoProviderGets(t *testing.T) {
	t.Parallel()
	for _, again := range []bool{true, false} {
		bubble(t, registryhttp.Options{}, func(t *testing.T, s *setup) {
			body := &closing{Reader: strings.NewReader("question")}
			request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://client/", body)
			require.NoError(t, err)
			if again {
				request.GetBody = func() (io.ReadCloser, error) { return body, nil }
			}
			_, err = s.transport().RoundTrip(request) //nolint:bodyclose // there is none
			require.Error(t, err)
			require.EqualValues(t, 1, body.closed.Load())
		})
	}
}

func TestTransport_ErrorOfGetBodyBlamesNoProvider(t *testing.T) {
	t.Parallel()
	errNoBody := errors.New("no body")
	for name, getBody := range map[string]func() (io.ReadCloser, error){
		"error": func() (io.ReadCloser, error) { return nil, errNoBody },
		"panic": func() (io.ReadCloser, error) { panic(errNoBody) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, registryhttp.Options{Repeatable: all}, func(t *testing.T, s *setup) {
				request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://client/", strings.NewReader("x"))
				require.NoError(t, err)
				request.GetBody = getBody
				_, err = s.transport().RoundTrip(request) //nolint:bodyclose // there is none
				require.ErrorContains(t, err, "no body")
				s.requireCounts(1, 0, 0, 1, 0)
				s.requireCounts(2, 0, 0, 0, 0)
			}, fails(errDown), says("b"), says("c"))
		})
	}
}

func TestTransport_TheTimeOfAnUploadIsNotTheProviders(t *testing.T) {
	t.Parallel()
	bubble(t, registryhttp.Options{Repeatable: all, FirstTimeout: time.Second}, func(t *testing.T, s *setup) {
		source, sink := io.Pipe()
		go func() {
			for range 3 {
				time.Sleep(10 * time.Second)
				_, _ = io.WriteString(sink, "slow")
			}
			_ = sink.Close()
		}()
		response, err := s.send(t.Context(), http.MethodPost, source)
		require.Equal(t, "a", read(t, response, err))
		s.requireCounts(0, 1, 0, 0, 0)
	}, says("a"))
}

func TestTransport_AnswerMayBeginBeforeTheRequestHasEnded(t *testing.T) {
	t.Parallel()
	bubble(t, registryhttp.Options{}, func(t *testing.T, s *setup) {
		source, sink := io.Pipe()
		response, err := s.send(t.Context(), http.MethodPost, source)
		require.NoError(t, err)
		_, err = io.WriteString(sink, "late")
		require.NoError(t, err)
		require.NoError(t, sink.Close())
		require.Equal(t, "late", read(t, response, nil))
		s.requireCounts(0, 1, 0, 0, 0)
	}, roundTrip(func(request *http.Request) (*http.Response, error) { // it echoes
		source, sink := io.Pipe()
		go func() {
			_, err := io.Copy(sink, request.Body)
			_ = request.Body.Close()
			_ = sink.CloseWithError(err)
		}()
		return answer(200, source), nil
	}))
}

func TestTransport_RefusalMayComeBeforeTheRequestHasEnded(t *testing.T) {
	t.Parallel()
	rest := make(chan string, 1)
	bubble(t, registryhttp.Options{}, func(t *testing.T, s *setup) {
		source, sink := io.Pipe()
		response, err := s.send(t.Context(), http.MethodPost, source)
		require.Equal(t, "refused with 500", read(t, response, err))
		_, err = io.WriteString(sink, "late")
		require.NoError(t, err, "it is still being sent")
		require.NoError(t, sink.Close())
		require.Equal(t, "late", <-rest)
	}, roundTrip(func(request *http.Request) (*http.Response, error) {
		go func() {
			text, _ := io.ReadAll(request.Body)
			_ = request.Body.Close()
			rest <- string(text)
		}()
		return refuses(500)(request)
	}))
}

func TestTransport_ShortBodyIsSentAsItIs(t *testing.T) {
	t.Parallel()
	var got io.ReadCloser
	bubble(t, registryhttp.Options{}, func(t *testing.T, s *setup) {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://client/", strings.NewReader("short"))
		require.NoError(t, err)
		body := request.Body
		response, err := s.transport().RoundTrip(request)
		require.Equal(t, "a", read(t, response, err))
		require.Equal(t, body, got, "nothing is around it")
	}, roundTrip(func(request *http.Request) (*http.Response, error) {
		got = request.Body
		return says("a")(request)
	}))
}

func TestTransport_AttemptThatIsOverReadsNoMoreOfTheBody(t *testing.T) {
	t.Parallel()
	var first io.ReadCloser
	bubble(t, registryhttp.Options{Repeatable: all}, func(t *testing.T, s *setup) {
		response, err := s.send(t.Context(), http.MethodPost, plainReader{strings.NewReader("question")})
		require.Equal(t, "question", read(t, response, err))
		_, err = first.Read(make([]byte, 1))
		require.Error(t, err)
		synctest.Wait()
	}, roundTrip(func(request *http.Request) (*http.Response, error) {
		first = request.Body
		_, _ = first.Read(make([]byte, 3))
		return nil, errDown
	}), roundTrip(func(request *http.Request) (*http.Response, error) {
		again, err := request.GetBody() // as net/http does on a connection that was closed
		if err != nil {
			return nil, err
		}
		text, _ := io.ReadAll(again)
		_ = again.Close()
		return answer(200, bytes.NewReader(text)), nil
	}))
	bubble(t, registryhttp.Options{MaxBody: 2}, func(t *testing.T, s *setup) {
		_, err := s.send(t.Context(), http.MethodPost, plainReader{strings.NewReader("question")}) //nolint:bodyclose // there is none
		require.ErrorIs(t, err, registryhttp.ErrBodySpent)
	}, roundTrip(func(request *http.Request) (*http.Response, error) {
		_, _ = io.ReadAll(request.Body)
		_, err := request.GetBody()
		return nil, err
	}), says("b"))
}

func TestTransport_ReleasesABodyWhoseSourceBlocks(t *testing.T) {
	t.Parallel()
	bubble(t, registryhttp.Options{Repeatable: all, FirstTimeout: time.Second}, func(t *testing.T, s *setup) {
		source, sink := io.Pipe()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err := s.send(ctx, http.MethodPost, source) //nolint:bodyclose // there is none
		require.ErrorIs(t, err, context.DeadlineExceeded)
		_, err = io.WriteString(sink, "x")
		require.ErrorIs(t, err, io.ErrClosedPipe, "it is closed")
		s.requireCounts(0, 0, 0, 1, 0)
	}, roundTrip(func(request *http.Request) (*http.Response, error) {
		go func() { _, _ = io.ReadAll(request.Body) }()
		return hangs(request)
	}), says("b"))
}
