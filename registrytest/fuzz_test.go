package registrytest_test

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/registrytest"
)

// Any body gets an answer, or an error in JSON; one that is no JSON never gets an answer.
func FuzzChatServer_AnyRequestGetsAnAnswer(f *testing.F) {
	for _, body := range []string{
		``, `{}`, `null`, `[]`, `{"model":"m","messages":[{"role":"user","content":"hello"}]}`, `{"messages":[{"content":[{"type":"text","text":"a"},{}]}]}`,
		`{"stream":true,"stream_options":{"include_usage":true},"messages":[{"role":"user","content":null}]}`, `{"stream":1}`, "\x00", `{"model":"\ud800"}`,
	} {
		f.Add(body)
	}
	f.Fuzz(func(t *testing.T, body string) {
		s := registrytest.NewPipeServer(t, nil)
		response, err := post(t.Context(), s, body)
		require.NoError(t, err)
		text, err := io.ReadAll(response.Body)
		require.NoError(t, err)
		require.NoError(t, response.Body.Close())
		if !json.Valid([]byte(body)) {
			require.NotEqual(t, http.StatusOK, response.StatusCode)
		}
		if response.StatusCode == http.StatusOK && strings.HasPrefix(response.Header.Get("Content-Type"), "text/event-stream") {
			require.True(t, strings.HasSuffix(string(text), "data: [DONE]\n\n"), "%s", text)
			return
		}
		require.True(t, json.Valid(text), "%s", text)
	})
}
