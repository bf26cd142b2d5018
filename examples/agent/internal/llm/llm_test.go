package llm_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/anthropics/anthropic-sdk-go"
	"github.com/openai/openai-go/v3"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/capreg/registry/examples/agent/internal/llm"
	"github.com/capreg/registry/examples/internal/loopback"
	"github.com/capreg/registry/verdict"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// client is a model that holds connections.
type client interface {
	llm.ChatModel
	io.Closer
}

// eachSDK runs the test against a server of each dialect, through its SDK.
func eachSDK(t *testing.T, test func(t *testing.T, server *loopback.Server, model client)) {
	t.Helper()
	for name, made := range map[string]struct {
		dialect loopback.Dialect
		client  func(url string) client
	}{
		"openai":    {loopback.OpenAI, func(url string) client { return llm.NewOpenAI(url+"/v1/", "key", "gpt") }},
		"anthropic": {loopback.Anthropic, func(url string) client { return llm.NewAnthropic(url, "key", "claude") }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server, err := loopback.Start(name, made.dialect)
			require.NoError(t, err)
			defer server.Close()
			model := made.client(server.URL())
			defer func() { require.NoError(t, model.Close()) }()
			test(t, server, model)
		})
	}
}

func TestChat_ReplyNamesItsModel(t *testing.T) {
	t.Parallel()
	eachSDK(t, func(t *testing.T, _ *loopback.Server, model client) {
		reply, err := model.Chat(t.Context(), "two words")
		require.NoError(t, err)
		require.Contains(t, reply.Text, `"two words" has 2 words`)
		require.NotEmpty(t, reply.Model)
	})
}

func TestStream_LastPieceIsMarked(t *testing.T) {
	t.Parallel()
	eachSDK(t, func(t *testing.T, server *loopback.Server, model client) {
		for _, cut := range []bool{false, true} {
			server.Behave(loopback.Behaviour{CutStreams: cut})
			pieces, err := model.Stream(t.Context(), "two words")
			require.NoError(t, err)
			var text strings.Builder
			last, parts := false, 0
			for piece, err := range pieces {
				require.NoError(t, err, "the SDKs do not tell a cut stream from a complete one")
				text.WriteString(piece.Text)
				last = piece.Last
				parts++
			}
			require.Equal(t, !cut, last)
			require.Equal(t, !cut, strings.HasSuffix(text.String(), `"two words" has 2 words.`), text.String())
			require.Greater(t, parts, 2)
		}
	})
}

func TestStream_ErrorIsThatOfChat(t *testing.T) {
	t.Parallel()
	eachSDK(t, func(t *testing.T, server *loopback.Server, model client) {
		server.Behave(loopback.Behaviour{Status: http.StatusTooManyRequests, RetryAfter: 7 * time.Second})
		before := server.Hits()
		pieces, err := model.Stream(t.Context(), "?")
		require.NoError(t, err)
		for _, err := range pieces {
			requireLimited(t, err)
		}
		require.Equal(t, before+1, server.Hits())
	})
}

func TestError_EachStatusHasItsClassAndCostsOneRequest(t *testing.T) {
	t.Parallel()
	eachSDK(t, func(t *testing.T, server *loopback.Server, model client) {
		for status, class := range map[int]verdict.Class{
			500: verdict.ClassServerError, 502: verdict.ClassServerError, 529: verdict.ClassOverloaded,
			429: verdict.ClassRateLimited, 401: verdict.ClassUnauthenticated, 403: verdict.ClassNotAllowed,
			400: verdict.ClassBadRequest, 404: verdict.ClassResource,
		} {
			server.Behave(loopback.Behaviour{Status: status})
			before := server.Hits()
			_, err := model.Chat(t.Context(), "?")
			require.Equal(t, class, verdict.Of(err).Class, status)
			require.Equal(t, before+1, server.Hits(), "the SDK's own retries are off")
			var failure *llm.Error
			require.ErrorAs(t, err, &failure)
			require.Contains(t, err.Error(), strconv.Itoa(status))
		}
	})
}

// requireLimited checks a rate limit of 7 seconds, whether the SDK tells that it is one of a model or not.
func requireLimited(t *testing.T, err error) {
	t.Helper()
	v := verdict.Of(err)
	require.Equal(t, verdict.ClassRateLimited, v.Class)
	require.Equal(t, 7*time.Second, v.After)
}

func TestError_KeepsTheRetryDelay(t *testing.T) {
	t.Parallel()
	eachSDK(t, func(t *testing.T, server *loopback.Server, model client) {
		server.Behave(loopback.Behaviour{Status: http.StatusTooManyRequests, RetryAfter: 7 * time.Second})
		_, err := model.Chat(t.Context(), "?")
		requireLimited(t, err)
	})
}

func TestError_ContainsTheVendorsCodeButNoBody(t *testing.T) {
	t.Parallel()
	eachSDK(t, func(t *testing.T, server *loopback.Server, model client) {
		server.Behave(loopback.Behaviour{Status: http.StatusTooManyRequests, Code: "insufficient_quota"})
		_, err := model.Chat(t.Context(), "?")
		var failure *llm.Error
		require.ErrorAs(t, err, &failure)
		require.Equal(t, "llm: HTTP 429 Too Many Requests (insufficient_quota)", err.Error())
		var openaiError *openai.Error
		var anthropicError *anthropic.Error
		require.True(t, errors.As(err, &openaiError) || errors.As(err, &anthropicError))
	})
}

func TestChat_HangingServerEndsWithTheContext(t *testing.T) {
	t.Parallel()
	eachSDK(t, func(t *testing.T, server *loopback.Server, model client) {
		server.Behave(loopback.Behaviour{Hang: true})
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		_, err := model.Chat(ctx, "?")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.LessOrEqual(t, server.Hits(), int64(1))
	})
}

func TestServer_RefusedRequestWasNotSent(t *testing.T) {
	t.Parallel()
	eachSDK(t, func(t *testing.T, server *loopback.Server, model client) {
		_, err := model.Chat(t.Context(), "?")
		require.NoError(t, err)
		server.Refuse()
		require.NoError(t, model.Close(), "an idle connection that was cut might have sent something")
		_, err = model.Chat(t.Context(), "?")
		require.Equal(t, verdict.ClassNotSent, verdict.Of(err).Class)
		require.Equal(t, int64(1), server.Hits())
		require.NoError(t, server.Listen())
		require.NoError(t, server.Listen(), "it listens already")
		_, err = model.Chat(t.Context(), "?")
		require.NoError(t, err)
	})
}

func TestLastResort_AlwaysAnswers(t *testing.T) {
	t.Parallel()
	reply, err := llm.LastResort{}.Chat(t.Context(), "?")
	require.NoError(t, err)
	require.NotEmpty(t, reply.Text)
	pieces, err := llm.LastResort{}.Stream(t.Context(), "?")
	require.NoError(t, err)
	for piece, err := range pieces {
		require.NoError(t, err)
		require.Equal(t, llm.Piece{Text: reply.Text, Last: true}, piece)
	}
}
