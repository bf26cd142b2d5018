package registrytest_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/registrytest"
	"github.com/capreg/registry/verdict"
)

// statusError is an error response as an error of the test's client.
type statusError struct {
	code  int
	after string
	word  string
}

func (e *statusError) Error() string { return http.StatusText(e.code) + " " + e.word }

// post sends a request with net/http alone.
func post(ctx context.Context, s *registrytest.ChatServer, body string) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, s.URL()+"chat/completions", strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	return s.Client().Do(request)
}

func complete(ctx context.Context, s *registrytest.ChatServer) (string, error) {
	response, err := post(ctx, s, `{"model":"m","messages":[{"role":"user","content":"hello there"}]}`)
	if err != nil {
		return "", err
	}
	defer func() { _ = response.Body.Close() }()
	var answer struct {
		Model   string
		Choices []struct{ Message struct{ Content string } }
		Error   struct{ Code string }
	}
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		return "", err
	}
	if response.StatusCode != http.StatusOK {
		return "", &statusError{response.StatusCode, response.Header.Get("Retry-After"), answer.Error.Code}
	}
	return answer.Choices[0].Message.Content, nil
}

// stream returns the data of the events.
func streamed(ctx context.Context, s *registrytest.ChatServer) (data []string, err error) {
	response, err := post(ctx, s, `{"model":"m","stream":true,"stream_options":{"include_usage":true},`+
		`"messages":[{"role":"system","content":"be brief"},{"role":"user","content":[{"type":"text","text":"hello "},{"type":"text","text":"there"}]}]}`)
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() {
		if text, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
			data = append(data, text)
		}
	}
	return data, lines.Err()
}

// onBoth runs a test against a server on loopback, and one on pipes in a bubble.
func onBoth(t *testing.T, test func(t *testing.T, start func(*registrytest.Script) *registrytest.ChatServer)) {
	t.Helper()
	t.Run("loopback", func(t *testing.T) {
		t.Parallel()
		test(t, func(s *registrytest.Script) *registrytest.ChatServer { return registrytest.NewChatServer(t, s) })
	})
	t.Run("pipes", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			test(t, func(s *registrytest.Script) *registrytest.ChatServer { return registrytest.NewPipeServer(t, s) })
		})
	})
}

func TestChatServer_AnswersWholeAndWordByWord(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, start func(*registrytest.Script) *registrytest.ChatServer) {
		server := start(nil)
		answer, err := complete(t.Context(), server)
		require.NoError(t, err)
		require.Equal(t, "You said: hello there", answer)
		server.Answer(func(r registrytest.ChatRequest) string { return r.Model + " is fine" })
		events, err := streamed(t.Context(), server)
		require.NoError(t, err)
		require.Len(t, events, 6)
		require.Contains(t, events[0], `"content":"m "`)
		require.Contains(t, events[3], `"finish_reason":"stop"`)
		require.Contains(t, events[4], `"total_tokens":5`)
		require.Equal(t, "[DONE]", events[5])

		require.Equal(t, 2, server.Hits())
		requests := server.Requests()
		require.False(t, requests[0].Stream)
		require.True(t, requests[1].Stream)
		require.Equal(t, "m", requests[1].Model)
		require.Equal(t, "hello there", requests[1].Prompt)
		require.Equal(t, []registrytest.ChatMessage{{"system", "be brief"}, {"user", "hello there"}}, requests[1].Messages)
		require.True(t, bytes.HasPrefix(requests[1].Body, []byte("{")))
		require.Zero(t, server.Script().InFlight())

		response, err := server.Client().Get(server.URL() + "models") //nolint:noctx // a test of loopback
		require.NoError(t, err)
		require.NoError(t, response.Body.Close())
		require.Equal(t, http.StatusOK, response.StatusCode)
		require.Equal(t, 2, server.Hits(), "probes play no step")
	})
}

func TestChatServer_FailsByItsScript(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, start func(*registrytest.Script) *registrytest.ChatServer) {
		server := start(nil)
		for _, test := range []struct {
			step registrytest.Step
			want statusError
		}{
			{registrytest.RateLimit(1500 * time.Millisecond), statusError{code: 429, after: "2"}},
			{registrytest.HTTPStatus(503, 0), statusError{code: 503}},
			{registrytest.Fail(verdict.ClassServerError), statusError{code: 500}},
			{registrytest.HTTPStatus(503, 0), statusError{code: 503}},
			{registrytest.Fail(verdict.ClassOverloaded), statusError{code: 529}},
			{registrytest.Error(verdict.As(errDown, verdict.Verdict{Class: verdict.ClassOverloaded, After: time.Second})), statusError{code: 503, after: "1"}},
			{registrytest.Fail(verdict.ClassFatal), statusError{code: 401, word: "invalid_api_key"}},
			{registrytest.Fail(verdict.ClassNotFound), statusError{code: 404, word: "model_not_found"}},
			{registrytest.Fail(verdict.ClassTooLong), statusError{code: 400, word: "context_length_exceeded"}},
			{registrytest.Error(errDown), statusError{code: 500}},
		} {
			server.Script().Then(test.step)
			_, err := complete(t.Context(), server)
			var status *statusError
			require.ErrorAs(t, err, &status, test.step)
			require.Equal(t, test.want, *status, test.step)
		}
		for _, step := range []registrytest.Step{
			registrytest.Fail(verdict.ClassTransport), registrytest.Panic(1), registrytest.Exit(), registrytest.Cut(0),
		} {
			server.Script().Then(step)
			_, err := complete(t.Context(), server)
			require.Equal(t, verdict.ClassTransport, verdict.Of(err).Class, "%v: %v", step, err)
		}
		server.Script().Then(registrytest.Fail(verdict.ClassMalformed))
		_, err := complete(t.Context(), server)
		var syntax *json.SyntaxError
		require.ErrorAs(t, err, &syntax)
		for _, step := range []registrytest.Step{registrytest.Hang(), registrytest.Stall(1), registrytest.OK().After(time.Hour)} {
			server.Script().Then(step)
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			_, err := complete(ctx, server)
			require.ErrorIs(t, err, context.DeadlineExceeded)
			cancel()
		}
		response, err := post(t.Context(), server, "{")
		require.NoError(t, err)
		require.NoError(t, response.Body.Close())
		require.Equal(t, http.StatusBadRequest, response.StatusCode)
		response, err = post(t.Context(), server, "{}")
		require.NoError(t, err)
		require.NoError(t, response.Body.Close())
		require.Equal(t, http.StatusBadRequest, response.StatusCode)
		response, err = server.Client().Get(server.URL()) //nolint:noctx // a test of loopback
		require.NoError(t, err)
		require.NoError(t, response.Body.Close())
		require.Equal(t, http.StatusNotFound, response.StatusCode)
		server.Close()
		_, err = complete(t.Context(), server)
		require.Equal(t, verdict.ClassNotSent, verdict.Of(err).Class)
	})
}

func TestChatServer_CutsAndStallsStreams(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, start func(*registrytest.Script) *registrytest.ChatServer) {
		server := start(registrytest.NewScript(registrytest.Cut(2), registrytest.CutWith(2, io.ErrUnexpectedEOF),
			registrytest.CutWith(1, verdict.RateLimited(errDown, 0)), registrytest.Stall(3)))
		events, err := streamed(t.Context(), server)
		require.NoError(t, err, "as if it were complete")
		require.Len(t, events, 2)
		events, err = streamed(t.Context(), server)
		require.ErrorIs(t, err, io.ErrUnexpectedEOF)
		require.Len(t, events, 2)
		events, err = streamed(t.Context(), server)
		require.NoError(t, err)
		require.Len(t, events, 2)
		require.Contains(t, events[1], `{"error":{"code":"rate_limit_exceeded"`)
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		events, err = streamed(ctx, server)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Len(t, events, 3)
	})
}

func TestAssertNoRetries_DetectsRetries(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, start func(*registrytest.Script) *registrytest.ChatServer) {
		server := start(registrytest.NewScript(registrytest.Error(errDown)))
		require.True(t, server.AssertNoRetries(func(ctx context.Context) error {
			_, err := complete(ctx, server)
			return err
		}))
		require.Equal(t, 9, server.Hits())
		require.Equal(t, 1, server.Script().Left(), "no step is spent")
	})
	for name, test := range map[string]struct {
		call func(*registrytest.ChatServer) func(context.Context) error
		want string
	}{
		"retries": {func(s *registrytest.ChatServer) func(context.Context) error {
			return func(ctx context.Context) (err error) {
				for range 3 {
					if _, err = complete(ctx, s); err == nil {
						return nil
					}
				}
				return err
			}
		}, "tried again by itself after error \"scripted: 429 Too Many Requests\""},
		"elsewhere": {func(*registrytest.ChatServer) func(context.Context) error {
			return func(context.Context) error { return errDown }
		}, "did not come to this server"},
		"hides errors": {func(s *registrytest.ChatServer) func(context.Context) error {
			return func(ctx context.Context) error { _, _ = complete(ctx, s); return nil }
		}, "returned no error"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := spyOn(t, "Test", func(tb testing.TB) {
				server := registrytest.NewChatServer(tb, nil)
				require.False(tb, server.AssertNoRetries(test.call(server)))
			})
			require.Contains(t, s.text(), test.want)
		})
	}
}

func TestChatServer_DeafRequestFailsTheTest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Bool
		s := spyOn(t, "Test", func(tb testing.TB) {
			server := registrytest.NewPipeServer(tb, registrytest.NewScript(registrytest.OK().After(time.Minute).Deaf()))
			go func() {
				_, err := complete(context.Background(), server)
				asked.Store(errors.Is(err, io.EOF))
			}()
			synctest.Wait()
		})
		require.Contains(t, s.text(), "does not heed its context")
		time.Sleep(time.Hour)
		require.True(t, asked.Load())
	})
}

func TestChatServer_OutlivesBrokenClients(t *testing.T) {
	t.Parallel()
	tooLong := fmt.Sprintf(`{"messages": [{"role": "user", "content": %q}]}`, strings.Repeat("x", 17<<20))
	for name, sent := range map[string]string{
		"no HTTP":     "how are you?\r\n\r\n",
		"half a line": "POST /v1/chat/compl",
		"half a body": "POST /v1/chat/completions HTTP/1.1\r\nHost: chat.test\r\nContent-Length: 100\r\n\r\n{\"messages",
		"too long": fmt.Sprintf("POST /v1/chat/completions HTTP/1.1\r\nHost: chat.test\r\nContent-Length: %d\r\n\r\n%s",
			len(tooLong), tooLong),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				server := registrytest.NewPipeServer(t, registrytest.NewScript(registrytest.OK()))
				transport, ok := server.Client().Transport.(*http.Transport)
				require.True(t, ok)
				conn, err := transport.DialContext(t.Context(), "tcp", "chat.test:80")
				require.NoError(t, err)
				go func() { _, _ = io.WriteString(conn, sent) }()
				require.NoError(t, conn.SetReadDeadline(time.Now().Add(time.Second)))
				_, _ = conn.Read(make([]byte, 1))
				require.Zero(t, server.Hits())
				require.Equal(t, 1, server.Script().Left())
				server.Close()
				require.NoError(t, conn.Close())
			})
		})
	}
}
