package llm_test

import (
	"encoding/json"
	"io"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/registryhttp/llm"
)

// A request that is read is JSON with another name, and nothing else of it has changed.
func FuzzParseRequest(f *testing.F) {
	for _, text := range []string{
		plain, streamed, `{}`, `{"a":[{"b":"}"}],"model":"x"}`, `{"model":"x" , "n" : 3}`, `{"m\u006fdel":"x"}`, ` { "model" : "\"" } `, `{"model":"a","model":"b"}`,
		`{"":{},"model":"x"}`, `[{"model":"x"}]`,
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r, err := llm.ParseRequest([]byte(text))
		if err != nil {
			return
		}
		body, length := r.Body("new \"name\"")
		changed, err := io.ReadAll(body)
		require.NoError(t, err)
		require.EqualValues(t, len(changed), length)
		var before, after map[string]json.RawMessage
		require.NoError(t, json.Unmarshal([]byte(text), &before))
		require.NoError(t, json.Unmarshal(changed, &after))
		require.JSONEq(t, `"new \"name\""`, string(after["model"]))
		delete(before, "model")
		delete(after, "model")
		require.Equal(t, before, after)
	})
}
