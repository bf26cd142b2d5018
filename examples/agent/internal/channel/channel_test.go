package channel_test

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/capreg/registry/examples/agent/internal/channel"
	"github.com/capreg/registry/examples/internal/loopback"
	"github.com/capreg/registry/verdict"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestTerminal_WritesLines(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	terminal := channel.NewTerminal(&out)
	require.NoError(t, terminal.Send(t.Context(), "one"))
	require.NoError(t, terminal.Send(t.Context(), "two"))
	require.Equal(t, "one\ntwo\n", out.String())
}

func TestWebhook_PostsEachMessageOnce(t *testing.T) {
	t.Parallel()
	sink, err := loopback.StartSink(t.Context())
	require.NoError(t, err)
	defer sink.Close()
	webhook := channel.NewWebhook(sink.URL())
	defer func() { require.NoError(t, webhook.Close()) }()
	for range 3 {
		require.NoError(t, webhook.Send(t.Context(), "hello"))
	}
	require.Equal(t, int64(3), sink.Messages())
	require.Equal(t, channel.StatusError(http.StatusBadRequest), webhook.Send(t.Context(), ""))
}

func TestWebhook_ErrorHasTheStatus(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusInternalServerError)
	}))
	webhook := channel.NewWebhook(server.URL)
	defer func() { require.NoError(t, webhook.Close()) }()
	require.Equal(t, verdict.ClassServerError, verdict.Of(webhook.Send(t.Context(), "hello")).Class)
	server.Close()
	require.NoError(t, webhook.Close())
	require.Equal(t, verdict.ClassNotSent, verdict.Of(webhook.Send(t.Context(), "hello")).Class)
}
