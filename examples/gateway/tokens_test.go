package main

import (
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/config"
)

// used is an answer that says to have used forty tokens.
const used = `{"choices":[{"index":0,"message":{"content":"hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":10,"completion_tokens":30}}`

func TestTokens_OfAClientAreLimitedByTheMinute(t *testing.T) {
	t.Setenv("GATEWAY_TEST_KEY", "secret")
	t.Setenv("GATEWAY_TEST_KEY_2", "other")
	const text = `{"clients":{"x":{"key":"${env:GATEWAY_TEST_KEY}","tokens_per_minute":60},"y":{"key":"${env:GATEWAY_TEST_KEY_2}"}},
		"upstreams":{"a":{"url":"http://a/v1"}},"routes":[{"model":"*","groups":[{"upstreams":["a"]}]}]}`
	virtual(t, text, network{"a": answers(200, used)}, func(t *testing.T, g *gateway) {
		header := func(key string, want int) http.Header {
			w := asked(t, g, chat, `{"model":"m"}`, "Authorization", "Bearer "+key)
			require.Equal(t, want, w.Code, w.Body)
			return w.Header()
		}
		require.Equal(t, "60", header("secret", 200).Get("X-Ratelimit-Limit-Tokens"))
		header("secret", 200) // it has 20 left, and may use more than that
		settings, err := config.ParseAs[Config]("text", []byte(text))
		require.NoError(t, err)
		require.NoError(t, g.apply(t.Context(), settings), "a reload gives nothing back")
		refused := header("secret", 429)
		require.Equal(t, "21", refused.Get("Retry-After"))
		require.Equal(t, "0", refused.Get("X-Ratelimit-Remaining-Tokens"))
		require.Equal(t, "1m20s", refused.Get("X-Ratelimit-Reset-Tokens"))
		require.Empty(t, header("other", 200).Get("X-Ratelimit-Limit-Tokens"), "it has no limit")
		time.Sleep(21 * time.Second)
		header("secret", 200)
	})
}

func TestTokens_OfAnUpstreamAreLimitedByTheMinute(t *testing.T) {
	t.Parallel()
	const limited = `"a":{"url":"http://a/v1","tokens_per_minute":60}`
	virtual(t, `{"upstreams":{`+limited+`,"b":{"url":"http://b/v1"}},"routes":[{"model":"m","groups":[{"upstreams":["a"]},{"upstreams":["b"]}]}]}`,
		network{"a": answers(200, used), "b": answers(200, used)}, func(t *testing.T, g *gateway) {
			for _, want := range []string{"a", "a", "b", "b"} {
				require.Equal(t, want, asked(t, g, chat, `{"model":"m"}`).Header().Get("X-Served-By"))
			}
			time.Sleep(time.Minute)
			require.Equal(t, "a", asked(t, g, chat, `{"model":"m"}`).Header().Get("X-Served-By"))
		})
	virtual(t, `{"upstreams":{`+limited+`},"routes":[{"model":"*","groups":[{"upstreams":["a"]}]}]}`, network{"a": answers(200, used)},
		func(t *testing.T, g *gateway) {
			asked(t, g, chat, `{"model":"m"}`)
			asked(t, g, chat, `{"model":"n"}`)
			for range 2 {
				w := asked(t, g, chat, `{"model":"m"}`)
				require.Equal(t, 429, w.Code, w.Body)
				after, err := strconv.Atoi(w.Header().Get("Retry-After"))
				require.NoError(t, err)
				require.InDelta(t, 22, after, 2)
				require.Contains(t, w.Body.String(), "rate_limit_exceeded")
			}
			time.Sleep(30 * time.Second)
			require.Equal(t, 200, asked(t, g, chat, `{"model":"m"}`).Code)
		})
}
