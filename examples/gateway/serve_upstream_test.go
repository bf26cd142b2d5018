package main

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/config"
)

const (
	whole     = `{"choices":[{"index":0,"message":{"content":"hi"},"finish_reason":"stop"}]}`
	token     = "data: {\"choices\":[{\"delta\":{\"content\":\"hi\"}}]}\n\n"
	finishing = "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n"
	marked    = "data: [DONE]\n\n"
	good      = token + finishing + marked
)

// upstream answers model a with the status and the text, and every other model well. A text that ends in "!" is cut there, one
// that ends in "~" goes on with silence.
func upstream(t *testing.T, status int, text string) (url string) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked, _ := io.ReadAll(r.Body)
		status, text := status, text
		if !strings.Contains(string(asked), `"model":"a"`) {
			status, text = http.StatusOK, whole
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, strings.TrimRight(text, "!~"))
		_ = http.NewResponseController(w).Flush()
		switch {
		case strings.HasSuffix(text, "!"):
			panic(http.ErrAbortHandler)
		case strings.HasSuffix(text, "~"):
			<-r.Context().Done()
		}
	}))
	t.Cleanup(server.Close)
	return server.URL
}

// over serves the models a and b from all of the upstreams, in order.
func over(urls ...string) Config {
	c := Config{Upstreams: make(map[string]Upstream), Timeouts: Timeouts{Total: config.Duration(30 * time.Second)}}
	var groups []Group
	for i, url := range urls {
		name := string(rune('x' + i))
		c.Upstreams[name] = Upstream{URL: url}
		groups = append(groups, Group{Upstreams: []string{name}})
	}
	c.Routes = []Route{{Model: "a", Groups: groups}, {Model: "b", Groups: groups}}
	return c
}

const (
	askA    = `{"model":"a"}`
	askB    = `{"model":"b"}`
	streamA = `{"model":"a","stream":true}`
)

// Variants: every answer that is about one model or one request, by its status and its code.
func TestGateway_RefusalOfOneModelLeavesTheOthers(t *testing.T) {
	t.Parallel()
	for text, status := range map[string]int{
		`{"error":{"message":"no access to this model","code":"model_not_found"}}`:   403,
		`{"error":{"message":"not for this project"}}`:                               403,
		`{"error":{"message":"more credits, or fewer max_tokens"}}`:                  402,
		`{"error":{"message":"limit of the model","code":"tokens","type":"tokens"}}`: 413,
		`{"error":{"message":"no such model","code":"model_not_found"}}`:             404,
		`{"object":"error","message":"no such model","code":404}`:                    404,
		`{"error":{"message":"busy","type":"overloaded_error"}}`:                     529,
		`{"error":{"message":"slow"}}`:                                               429,
		`{"error":{"message":"broken"}}`:                                             500,
		`{"error":{"message":"busy "}}`:                                              503,
		`{"detail":"nonsense"}`:                                                      422,
	} {
		url := start(t, over(upstream(t, status, text)))
		for _, body := range []string{askA, streamA} {
			r, _ := post(t, url, body)
			require.GreaterOrEqual(t, r.StatusCode, 400)
		}
		r, answer := post(t, url, askB)
		require.Equal(t, http.StatusOK, r.StatusCode, "%s: %s", text, answer)
	}
}

// Variants: the error in a field, as the answer itself, as a plain string, as FastAPI has it, as text, as a page, none.
func TestGateway_PassesOnTheUpstreamsWordsInAnyForm(t *testing.T) {
	t.Parallel()
	const words = "maximum length is 8192"
	for text, want := range map[string]string{
		`{"error":{"message":"` + words + `","code":"x"}}`:        words,
		`{"object":"error","message":"` + words + `","code":400}`: words,
		`{"error":"` + words + `"}`:                               words,
		`{"message":"` + words + `"}`:                             words,
		`{"detail":"` + words + `"}`:                              words,
		`{"detail":[{"loc":["body"],"msg":"` + words + `"}]}`:     words,
		words + "\n":     words,
		"<html>" + words: "the server gave no reason",
		"":               "the server gave no reason",
	} {
		url := start(t, over(upstream(t, http.StatusBadRequest, text)))
		for _, body := range []string{askA, streamA} {
			r, answer := post(t, url, body)
			require.Equal(t, http.StatusBadRequest, r.StatusCode)
			require.Contains(t, refusal(t, answer).Message, want, text)
		}
	}
}

// Variants: every form of an error in a stream, an end mark without an answer, and cuts, before the first token.
func TestGateway_StreamThatFailsBeforeItsFirstTokenIsAnsweredByAnother(t *testing.T) {
	t.Parallel()
	const role = "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\"}}]}\n\n"
	for _, text := range []string{
		"data: {\"object\":\"error\",\"message\":\"EngineDeadError\",\"code\":500}\n\n" + marked,
		"data: {\"error\":{\"message\":\"boom\",\"code\":\"rate_limit_exceeded\",\"type\":\"requests\"}}\n\n",
		"event: error\ndata: {\"message\":\"boom\",\"code\":500}\n\n" + marked,
		"event: error\ndata: boom\n\n" + marked,
		marked, role + marked, role, role + "!", role + "data: {\"choi", "!", "",
	} {
		url := start(t, over(upstream(t, http.StatusOK, text), upstream(t, http.StatusOK, good)))
		r, answer := post(t, url, streamA)
		require.Equal(t, http.StatusOK, r.StatusCode)
		require.Equal(t, "y", r.Header.Get("X-Served-By"), text)
		require.Equal(t, good, answer)
	}
}

// Variants: line ends of every kind, a byte-order mark, comments, no end mark, no last line end; what follows the answer: usage behind
// the end mark, a cut, a second end mark.
func TestGateway_CompleteStreamIsPassedOnWhole(t *testing.T) {
	t.Parallel()
	const usage = "data: {\"choices\":[],\"usage\":{\"total_tokens\":3}}\n\n"
	for text, want := range map[string]string{
		good:                                   good,
		strings.ReplaceAll(good, "\n", "\r\n"): good,
		strings.ReplaceAll(good, "\n", "\r"):   good,
		"\ufeff" + good:                        good,
		strings.ReplaceAll(good, "data: ", "data:"):            good,
		strings.ReplaceAll(good, "data: ", ": ping\n\ndata: "): good,
		strings.TrimSpace(good):                                good,
		token + finishing:                                      good,
		strings.TrimSpace(token + finishing):                   good,
		token + finishing + "!":                                good,
		token + marked:                                         token + marked,
		token + finishing + usage + marked:                     token + finishing + usage + marked,
		good + usage:                                           token + finishing + usage + marked,
		good + marked:                                          good,
		good + "!":                                             good,
		good + "data: nonsense\n\n":                            good,
	} {
		url := start(t, over(upstream(t, http.StatusOK, text), upstream(t, http.StatusOK, token)))
		r, answer := post(t, url, streamA)
		require.Equal(t, http.StatusOK, r.StatusCode)
		require.Equal(t, "x", r.Header.Get("X-Served-By"), "%q", text)
		require.Equal(t, want, answer, "%q", text)
	}
}

func TestGateway_StreamThatFailsLaterEndsWithAnError(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		token + "!", token, token + "data: {\"choi", token + "event: error\ndata: {\"message\":\"boom\"}\n\n" + marked,
		token + "data: {\"object\":\"error\",\"message\":\"boom\"}\n\n" + marked, token + "data: nonsense\n\n" + marked,
	} {
		r, answer := post(t, start(t, over(upstream(t, http.StatusOK, text))), streamA)
		require.Equal(t, http.StatusOK, r.StatusCode)
		require.NotContains(t, answer, endOfStream, text)
		last, found := strings.CutPrefix(answer, token+"data: ")
		require.True(t, found, answer)
		require.Equal(t, "stream_interrupted", refusal(t, last).Code)
	}
}

func TestGateway_AsksProxiesNotToHoldEventsBack(t *testing.T) {
	t.Parallel()
	r, _ := post(t, start(t, over(upstream(t, http.StatusOK, good))), streamA)
	require.Equal(t, "no", r.Header.Get("X-Accel-Buffering"))
	require.Equal(t, "text/event-stream", r.Header.Get("Content-Type"))
	require.Equal(t, "no-cache", r.Header.Get("Cache-Control"))
	require.Equal(t, "x", r.Header.Get("X-Served-By"))
}

// Variants: silence before the first token, within the answer, for a whole answer; another upstream answers, none does.
func TestGateway_SendsCommentsWhileThereIsNothingElse(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		text, spare string
		whole       bool
		code        string
	}{
		{"~", good, false, ""},
		{token + "~", good, true, ""},
		{token + "~", good, false, "stream_interrupted"},
		{"~", "~", false, "timeout"},
	} {
		settings := over(upstream(t, http.StatusOK, c.text), upstream(t, http.StatusOK, c.spare))
		settings.WholeAnswers = c.whole
		short := config.Duration(200 * time.Millisecond)
		settings.Timeouts = Timeouts{Comment: config.Duration(10 * time.Millisecond)}
		for name, upstream := range settings.Upstreams {
			if name == "x" || c.spare != good { // a good one has the time it needs
				upstream.Timeouts = Timeouts{FirstToken: short, Stall: short}
				if c.code == "stream_interrupted" { // its first token is in time
					upstream.Timeouts.FirstToken = config.Duration(30 * time.Second)
				}
			}
			settings.Upstreams[name] = upstream
		}
		r, answer := post(t, start(t, settings), streamA)
		require.Equal(t, http.StatusOK, r.StatusCode)
		require.Equal(t, "no", r.Header.Get("X-Accel-Buffering"))
		require.Contains(t, answer, ": more is to come\n\n")
		events := strings.Split(strings.TrimSpace(answer), "\n\n")
		last := strings.TrimPrefix(events[len(events)-1], "data: ")
		if c.code == "" {
			require.True(t, strings.HasSuffix(answer, good), answer)
		} else {
			require.Equal(t, c.code, refusal(t, last).Code)
		}
	}
}

// Long streams, and clients that do not read, leave the upstream to others.
func TestGateway_LongStreamsAndSlowClientsBlameNoUpstream(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked, _ := io.ReadAll(r.Body)
		if strings.Contains(string(asked), "false") {
			_, _ = io.WriteString(w, whole)
			return
		}
		many := strings.Repeat(token, 1000)
		for r.Context().Err() == nil {
			_, _ = io.WriteString(w, many)
		}
	}))
	t.Cleanup(server.Close)
	settings := over(server.URL)
	settings.Routes[0].Timeouts.Total = config.Duration(300 * time.Millisecond)
	url := start(t, settings)
	for _, reads := range []bool{true, false} {
		for range 5 {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			r, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/v1/chat/completions", strings.NewReader(streamA))
			require.NoError(t, err)
			response, err := http.DefaultClient.Do(r)
			require.NoError(t, err)
			if reads {
				_, _ = io.Copy(io.Discard, response.Body)
			} else {
				time.Sleep(400 * time.Millisecond) // the client's pace; the gateway's time is over
			}
			require.NoError(t, response.Body.Close())
			cancel()
		}
		r, answer := post(t, url, `{"model":"b","stream":false}`)
		require.Equal(t, http.StatusOK, r.StatusCode, answer)
	}
	http.DefaultClient.CloseIdleConnections()
}
