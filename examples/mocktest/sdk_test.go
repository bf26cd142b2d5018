package mocktest_test

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/registrytest"
	"github.com/capreg/registry/verdict"
)

// What the tests of the agent rely on: the official SDK understands the servers of
// registrytest, whole and in pieces, on loopback and in a bubble.

var question = openai.ChatCompletionNewParams{
	Model: "m", Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage("how are you?")},
}

func newClient(server *registrytest.ChatServer, options ...option.RequestOption) openai.Client {
	return openai.NewClient(append([]option.RequestOption{
		option.WithBaseURL(server.URL()), option.WithAPIKey("key"), option.WithHTTPClient(server.Client()),
	}, options...)...)
}

// spy is a test that records its failures.
type spy struct {
	testing.TB

	lines []string
}

func (s *spy) Errorf(format string, args ...any) {
	s.lines = append(s.lines, fmt.Sprintf(format, args...))
}

func TestAssertNoRetries_DetectsRetriesOfTheSDK(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &spy{TB: t}
		server := registrytest.NewPipeServer(s, registrytest.NewScript().Always(registrytest.Fail(verdict.ClassServerError)))
		client := newClient(server)
		require.False(t, server.AssertNoRetries(func(ctx context.Context) error {
			_, err := client.Chat.Completions.New(ctx, question)
			return err
		}))
		require.Len(t, s.lines, 9, "each way of failing")
		require.Contains(t, s.lines[0], "switch its retries off")
		before := server.Hits()
		_, err := client.Chat.Completions.New(t.Context(), question)
		require.Error(t, err)
		require.Equal(t, before+3, server.Hits(), "so does it, left to itself")

		client = newClient(server, option.WithMaxRetries(0))
		require.True(t, server.AssertNoRetries(func(ctx context.Context) error {
			_, err := client.Chat.Completions.New(ctx, question)
			return err
		}))
	})
}

func TestModel_ReadsStreamsOfAServer(t *testing.T) {
	t.Parallel()
	read := func(t *testing.T, server *registrytest.ChatServer) (text, finish string, tokens int64, err error) {
		t.Helper()
		client := newClient(server, option.WithMaxRetries(0))
		wanted := question
		wanted.StreamOptions.IncludeUsage = openai.Bool(true)
		chunks := client.Chat.Completions.NewStreaming(t.Context(), wanted)
		defer func() { require.NoError(t, chunks.Close()) }()
		var all strings.Builder
		for chunks.Next() {
			chunk := chunks.Current()
			for _, choice := range chunk.Choices {
				all.WriteString(choice.Delta.Content)
				finish = cmp.Or(choice.FinishReason, finish)
			}
			tokens += chunk.Usage.TotalTokens
		}
		return all.String(), finish, tokens, chunks.Err()
	}
	check := func(t *testing.T, server *registrytest.ChatServer) {
		t.Helper()
		text, finish, tokens, err := read(t, server)
		require.NoError(t, err)
		require.Equal(t, "You said: how are you?", text)
		require.Equal(t, "stop", finish)
		require.Equal(t, int64(8), tokens)
		server.Script().Then(registrytest.Cut(2), registrytest.CutWith(1, io.ErrUnexpectedEOF), registrytest.CutWith(1, verdict.RateLimited(io.EOF, 0)))
		text, finish, _, err = read(t, server)
		require.NoError(t, err, "the SDK does not tell a cut from an end")
		require.Equal(t, "You said: ", text)
		require.Empty(t, finish)
		_, _, _, err = read(t, server)
		require.ErrorIs(t, err, io.ErrUnexpectedEOF)
		_, _, _, err = read(t, server)
		require.ErrorContains(t, err, "rate_limit_exceeded")
	}
	t.Run("loopback", func(t *testing.T) {
		t.Parallel()
		check(t, registrytest.NewChatServer(t, nil))
	})
	t.Run("pipes", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) { check(t, registrytest.NewPipeServer(t, nil)) })
	})
}
