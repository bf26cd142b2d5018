package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/capreg/registry"
	"github.com/capreg/registry/config"
	"github.com/capreg/registry/examples/internal/loopback"
	"github.com/capreg/registry/registryhttp/llm"
)

func TestMain(m *testing.M) {
	if os.Getenv("GATEWAY_TEST_MAIN") != "" { // a process of its own, for signals
		main()
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// start serves the configuration and returns its URL.
func start(t *testing.T, settings Config) string {
	t.Helper()
	require.NoError(t, settings.Validate())
	g, err := newGateway(t.Context(), settings, zap.NewNop(), http.DefaultTransport)
	require.NoError(t, err)
	server := httptest.NewServer(g)
	t.Cleanup(func() {
		server.Close()
		require.NoError(t, g.close(context.WithoutCancel(t.Context())))
		http.DefaultClient.CloseIdleConnections()
	})
	return server.URL
}

// two starts two upstreams and a gateway that tries them one after the other.
func two(t *testing.T, change func(*Config)) (url string, first, second *loopback.Server) {
	t.Helper()
	settings := Config{
		Upstreams: make(map[string]Upstream),
		Routes:    []Route{{Model: "demo", Groups: []Group{{Upstreams: []string{"first"}}, {Upstreams: []string{"second"}}}}},
	}
	var servers [2]*loopback.Server
	for i, name := range []string{"first", "second"} {
		server, err := loopback.Start(name, loopback.OpenAI)
		require.NoError(t, err)
		t.Cleanup(server.Close)
		settings.Upstreams[name] = Upstream{URL: server.URL() + "/v1", Models: map[string]string{"demo": "model-of-" + name}}
		servers[i] = server
	}
	if change != nil {
		change(&settings)
	}
	return start(t, settings), servers[0], servers[1]
}

// post requests a plain or a streamed answer.
func post(t *testing.T, url, body string) (got reply, text string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+"/v1/chat/completions", strings.NewReader(body))
	require.NoError(t, err)
	r.Header.Set("Authorization", "Bearer secret-a")
	response, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	defer func() { _ = response.Body.Close() }()
	all, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	http.DefaultClient.CloseIdleConnections()
	return reply{response.StatusCode, response.Header}, string(all)
}

// reply is the head of a response.
type reply struct {
	StatusCode int
	Header     http.Header
}

const (
	plain    = `{"model":"demo","messages":[{"role":"user","content":"two words"}]}`
	streamed = `{"model":"demo","stream":true,"messages":[{"role":"user","content":"two words"}]}`
)

func refusal(t *testing.T, text string) llm.Error {
	t.Helper()
	var body struct {
		Error llm.Error `json:"error"`
	}
	require.NoError(t, json.Unmarshal([]byte(text), &body), text)
	require.NotEmpty(t, body.Error.Message)
	require.NotEmpty(t, body.Error.Type)
	return body.Error
}

// isRefusal reports whether a text is an error in the format of OpenAI.
func isRefusal(text string) bool {
	var body struct {
		Error *llm.Error `json:"error"`
	}
	return json.Unmarshal([]byte(text), &body) == nil && body.Error != nil
}

const endOfStream = "[DONE]"

func TestGateway_ServesTheOfficialSDK(t *testing.T) {
	t.Parallel()
	url, _, _ := two(t, nil)
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	client := openai.NewClient(option.WithBaseURL(url+"/v1/"), option.WithAPIKey("any"), option.WithMaxRetries(0),
		option.WithHTTPClient(&http.Client{Transport: transport}))
	question := openai.ChatCompletionNewParams{Model: "demo", Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage("two words")}}
	answer, err := client.Chat.Completions.New(t.Context(), question)
	require.NoError(t, err)
	require.Equal(t, `first: "two words" has 2 words.`, answer.Choices[0].Message.Content)
	require.Equal(t, "model-of-first", answer.Model, "the model that served")
	require.EqualValues(t, 8, answer.Usage.PromptTokens)
	stream := client.Chat.Completions.NewStreaming(t.Context(), question)
	var text strings.Builder
	for stream.Next() {
		text.WriteString(stream.Current().Choices[0].Delta.Content)
	}
	require.NoError(t, stream.Err())
	require.NoError(t, stream.Close())
	require.Equal(t, `first: "two words" has 2 words.`, text.String())
	models, err := client.Models.List(t.Context())
	require.NoError(t, err)
	require.Len(t, models.Data, 1)
	require.Equal(t, "demo", models.Data[0].ID)
}

func TestGateway_FailsOverToTheNextUpstream(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]func(*loopback.Server){
		"server error":  func(s *loopback.Server) { s.Behave(loopback.Behaviour{Status: 500}) },
		"rate limited":  func(s *loopback.Server) { s.Behave(loopback.Behaviour{Status: 429, RetryAfter: 30 * time.Second}) },
		"no key":        func(s *loopback.Server) { s.Behave(loopback.Behaviour{Status: 401}) },
		"no such model": func(s *loopback.Server) { s.Behave(loopback.Behaviour{Status: 404}) },
		"refused":       func(s *loopback.Server) { s.Refuse() },
		"hangs":         func(s *loopback.Server) { s.Behave(loopback.Behaviour{Hang: true}) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url, first, _ := two(t, func(c *Config) {
				c.Timeouts = Timeouts{Answer: config.Duration(time.Second), FirstToken: config.Duration(time.Second)}
			})
			fault(first)
			for _, body := range []string{plain, streamed} {
				response, text := post(t, url, body)
				require.Equal(t, http.StatusOK, response.StatusCode, text)
				require.Equal(t, "second", response.Header.Get("X-Served-By"))
				require.Equal(t, "model-of-second", response.Header.Get("X-Served-Model"))
			}
			require.LessOrEqual(t, first.Hits(), int64(4), "with one retry")
		})
	}
}

func TestGateway_CutStreamFailsOverOnlyWithWholeAnswers(t *testing.T) {
	t.Parallel()
	for _, whole := range []bool{false, true} {
		url, first, _ := two(t, func(c *Config) { c.Routes[0].WholeAnswers = whole })
		first.Behave(loopback.Behaviour{CutStreams: true})
		response, text := post(t, url, streamed)
		require.Equal(t, http.StatusOK, response.StatusCode)
		if whole {
			require.Equal(t, "second", response.Header.Get("X-Served-By"))
			require.Equal(t, "2", response.Header.Get("X-Attempts"))
			require.True(t, strings.HasSuffix(text, "data: [DONE]\n\n"), text)
			continue
		}
		require.Equal(t, "first", response.Header.Get("X-Served-By"))
		require.NotContains(t, text, endOfStream, "a cut answer does not look complete")
		events := strings.Split(strings.TrimSpace(text), "\n\n")
		require.Equal(t, "stream_interrupted", refusal(t, strings.TrimPrefix(events[len(events)-1], "data: ")).Code)
	}
}

func TestGateway_RefusesWithRetryAfterWhenAllAreParked(t *testing.T) {
	t.Parallel()
	url, first, second := two(t, nil)
	for _, server := range []*loopback.Server{first, second} {
		server.Behave(loopback.Behaviour{Status: 429, RetryAfter: 30 * time.Second})
	}
	for _, body := range []string{plain, plain, streamed} {
		response, text := post(t, url, body)
		require.Equal(t, http.StatusTooManyRequests, response.StatusCode, text)
		seconds, err := strconv.Atoi(response.Header.Get("Retry-After"))
		require.NoError(t, err)
		require.InDelta(t, 31, seconds, 4)
		require.Equal(t, "rate_limit_exceeded", refusal(t, text).Code)
	}
	require.Equal(t, int64(1), first.Hits())
	require.Equal(t, int64(1), second.Hits())
}

func TestGateway_RefusedKeyIsNotTheClientsFault(t *testing.T) {
	t.Parallel()
	url, first, second := two(t, nil)
	first.Behave(loopback.Behaviour{Status: 401})
	second.Behave(loopback.Behaviour{Status: 429, Code: "insufficient_quota"})
	for _, body := range []string{plain, streamed} {
		response, text := post(t, url, body)
		require.Equal(t, http.StatusBadGateway, response.StatusCode, text)
		require.Equal(t, "upstream_credentials", refusal(t, text).Code)
	}
}

func TestGateway_PassesOnTheUpstreamsErrorForAClientsMistake(t *testing.T) {
	t.Parallel()
	for _, code := range []string{"invalid_value", "string_too_short"} {
		url, first, second := two(t, nil)
		first.Behave(loopback.Behaviour{Status: 400, Code: code})
		for _, body := range []string{plain, streamed} {
			response, text := post(t, url, body)
			require.Equal(t, http.StatusBadRequest, response.StatusCode)
			require.Equal(t, code, refusal(t, text).Code)
		}
		require.Zero(t, second.Hits())
	}
}

func TestGateway_EndsAfterItsTotalTime(t *testing.T) {
	t.Parallel()
	url, first, second := two(t, func(c *Config) { c.Timeouts.Total = config.Duration(100 * time.Millisecond) })
	first.Behave(loopback.Behaviour{Hang: true})
	second.Behave(loopback.Behaviour{Hang: true})
	for _, body := range []string{plain, streamed} {
		response, text := post(t, url, body)
		require.Equal(t, http.StatusGatewayTimeout, response.StatusCode, text)
		require.Equal(t, "timeout", refusal(t, text).Code)
	}
}

func TestGateway_EndsAfterItsTotalTimeInTheQueue(t *testing.T) {
	t.Parallel()
	url, first, second := two(t, func(c *Config) {
		c.Timeouts.Total = config.Duration(300 * time.Millisecond)
		for name, upstream := range c.Upstreams {
			upstream.Limits.MaxConcurrent = 1
			c.Upstreams[name] = upstream
		}
	})
	first.Behave(loopback.Behaviour{Hang: true})
	second.Behave(loopback.Behaviour{Hang: true})
	var asking sync.WaitGroup
	for i := range 6 {
		asking.Go(func() {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+"/v1/chat/completions", strings.NewReader([]string{plain, streamed}[i%2]))
			if err != nil {
				t.Error(err)
				return
			}
			response, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Error(err)
				return
			}
			defer func() { _ = response.Body.Close() }()
			text, err := io.ReadAll(response.Body)
			if err != nil || !isRefusal(string(text)) || response.StatusCode != http.StatusGatewayTimeout {
				t.Errorf("%d %s %v", response.StatusCode, text, err)
			}
		})
	}
	asking.Wait()
	http.DefaultClient.CloseIdleConnections()
}

func TestGateway_DistinguishesWrongMethodAndPath(t *testing.T) {
	t.Parallel()
	url, _, _ := two(t, nil)
	for path, status := range map[string]int{"/v1/models": http.StatusMethodNotAllowed, "/v2": http.StatusNotFound} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodDelete, url+path, http.NoBody)
		require.NoError(t, err)
		response, err := http.DefaultClient.Do(r)
		require.NoError(t, err)
		text, err := io.ReadAll(response.Body)
		require.NoError(t, err)
		require.NoError(t, response.Body.Close())
		require.Equal(t, status, response.StatusCode)
		require.Equal(t, status == http.StatusMethodNotAllowed, response.Header.Get("Allow") == http.MethodGet)
		refusal(t, string(text))
	}
	http.DefaultClient.CloseIdleConnections()
}

func TestGateway_MissingModelCoolsDownNoUpstream(t *testing.T) {
	t.Parallel()
	url, first, second := two(t, func(c *Config) {
		c.Routes[0].Model = "*"
		for name, upstream := range c.Upstreams {
			upstream.Models = nil
			c.Upstreams[name] = upstream
		}
	})
	first.Behave(loopback.Behaviour{Status: 404, Code: "model_not_found"})
	response, _ := post(t, url, plain)
	require.Equal(t, "second", response.Header.Get("X-Served-By"))
	require.Empty(t, response.Header.Get("X-Served-Model"), "the name is passed on")
	first.Behave(loopback.Behaviour{})
	response, _ = post(t, url, plain)
	require.Equal(t, "first", response.Header.Get("X-Served-By"))
	first.Behave(loopback.Behaviour{Status: 404, Code: "model_not_found"})
	second.Behave(loopback.Behaviour{Status: 404, Code: "model_not_found"})
	response, text := post(t, url, streamed)
	require.Equal(t, http.StatusNotFound, response.StatusCode)
	require.Equal(t, "model_not_found", refusal(t, text).Code)
}

func TestGateway_CallsUpstreamsOnlyForTheirModels(t *testing.T) {
	t.Parallel()
	url, first, second := two(t, func(c *Config) {
		c.Routes[0].Model = "de*"
		c.Upstreams["first"] = Upstream{URL: c.Upstreams["first"].URL, Models: map[string]string{"demo-2": "big"}}
		c.Upstreams["second"] = Upstream{URL: c.Upstreams["second"].URL}
	})
	response, _ := post(t, url, plain)
	require.Equal(t, "second", response.Header.Get("X-Served-By"))
	response, _ = post(t, url, strings.Replace(plain, "demo", "demo-2", 1))
	require.Equal(t, "big", response.Header.Get("X-Served-Model"))
	response, text := post(t, url, strings.Replace(plain, "demo", "gpt", 1))
	require.Equal(t, http.StatusNotFound, response.StatusCode)
	require.Equal(t, "model_not_found", refusal(t, text).Code)
	require.Equal(t, int64(1), first.Hits())
	require.Equal(t, int64(1), second.Hits())
}

func TestGateway_AdmitsOnlyKnownKeys(t *testing.T) {
	t.Parallel()
	url, first, _ := two(t, func(c *Config) { c.Clients = map[string]Client{"a": {Key: "secret-a"}} })
	response, _ := post(t, url, plain)
	require.Equal(t, http.StatusOK, response.StatusCode)
	for _, header := range []string{"", "Bearer", "Bearer secret-b", "Basic secret-a", "secret-a"} {
		for _, path := range []string{"/v1/models", "/status"} {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+path, http.NoBody)
			require.NoError(t, err)
			r.Header.Set("Authorization", header)
			response, err := http.DefaultClient.Do(r)
			require.NoError(t, err)
			text, err := io.ReadAll(response.Body)
			require.NoError(t, err)
			require.NoError(t, response.Body.Close())
			require.Equal(t, http.StatusUnauthorized, response.StatusCode, header)
			require.Equal(t, "invalid_api_key", refusal(t, string(text)).Code)
		}
	}
	http.DefaultClient.CloseIdleConnections()
	require.Equal(t, int64(1), first.Hits())
}

func TestGateway_AnswersBadRequestsInTheFormatOfOpenAI(t *testing.T) {
	t.Parallel()
	url, first, _ := two(t, nil)
	for body, code := range map[string]string{
		``: "invalid_request", `[]`: "invalid_request", `null`: "invalid_request", `{"model":7}`: "invalid_request",
		`{}`: "invalid_request", `{"model":"demo","stream":"yes"}`: "invalid_request", `{"model":"no"}`: "model_not_found",
		`{"model":"*"}`: "model_not_found",
		`{"model":"demo","pad":"` + strings.Repeat("x", 33<<20) + `"}`: "request_too_large",
	} {
		response, text := post(t, url, body)
		require.GreaterOrEqual(t, response.StatusCode, 400)
		require.Equal(t, code, refusal(t, text).Code)
	}
	require.Zero(t, first.Hits())
}

func TestGateway_ClientThatLeavesBlamesNoUpstream(t *testing.T) {
	t.Parallel()
	url, first, _ := two(t, nil)
	first.Behave(loopback.Behaviour{Hang: true})
	for range 10 {
		ctx, cancel := context.WithCancel(t.Context())
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/v1/chat/completions", strings.NewReader(plain))
		require.NoError(t, err)
		hits := first.Hits()
		go func() {
			for first.Hits() == hits && t.Context().Err() == nil {
				time.Sleep(time.Millisecond)
			}
			cancel()
		}()
		_, err = http.DefaultClient.Do(r) //nolint:bodyclose // there is none
		require.ErrorIs(t, err, context.Canceled)
	}
	http.DefaultClient.CloseIdleConnections()
	first.Behave(loopback.Behaviour{})
	response, _ := post(t, url, plain)
	require.Equal(t, "first", response.Header.Get("X-Served-By"))
}

// raw is an upstream that answers each request with the given bytes, whatever
// they are.
func raw(tb testing.TB) (url string, say func([]byte)) {
	tb.Helper()
	var settings net.ListenConfig
	listener, err := settings.Listen(tb.Context(), "tcp", "127.0.0.1:0")
	require.NoError(tb, err)
	answers := make(chan []byte, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			if r, err := http.ReadRequest(bufio.NewReader(connection)); err == nil {
				_, _ = io.Copy(io.Discard, r.Body)
				_, _ = connection.Write(<-answers)
			}
			_ = connection.Close()
		}
	}()
	tb.Cleanup(func() {
		require.NoError(tb, listener.Close())
		<-done
	})
	return "http://" + listener.Addr().String(), func(answer []byte) {
		select {
		case <-answers: // it was not asked for
		default:
		}
		answers <- answer
	}
}

func FuzzGateway_AnyUpstreamBytesGetAnAnswer(f *testing.F) {
	const head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
	for _, answer := range []string{
		"", "\x00\xff", "HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", "HTTP/1.1 999 ?\r\n\r\n",
		"HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n", "HTTP/1.1 204 No Content\r\n\r\n", "HTTP/1.1 429 Too Many\r\nRetry-After: -1\r\n\r\n",
		head + "<html>", head + "{}", head + "null", head + "[]", head + `{"choices":[{}]}`, head + `{"choices":{}}`, head + `{"error":"no"}`,
		head + `{"error":{"code":529}}`, head + "data: [DONE]\n\n", head + "data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\n",
		head + "data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\ndata: {\"choi", head + "data: {\"choices\":[]}\n\ndata: null\n\n",
		head + "data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\ndata: {\"error\":{\"message\":\"m\",\"type\":\"overloaded_error\"}}\n\n",
		head + "data: {\"choices\":[{\"delta\":{\"role\":\"a\"}}]}\n\ndata: {\"choices\":[{\"finish_reason\":\"stop\"}]}\n\n",
		head + ": ping\n\n: ping\n\n", head + "data\n\ndata:\n\n", head + "data: {\ndata: \"choices\":[]}\n\ndata: [DONE]\n\n",
	} {
		f.Add([]byte(answer))
	}
	url, say := raw(f)
	gate, err := newGateway(f.Context(), Config{
		Upstreams: map[string]Upstream{"raw": {URL: url, Retry: &registry.RetryPolicy{}}},
		Routes:    []Route{{Model: "*", Groups: []Group{{Upstreams: []string{"raw"}}}}},
	}, zap.NewNop(), http.DefaultTransport)
	require.NoError(f, err)
	f.Cleanup(func() { require.NoError(f, gate.registry.Close(context.WithoutCancel(f.Context()))) })
	f.Fuzz(func(t *testing.T, answer []byte) {
		for _, body := range []string{plain, streamed} {
			gate.registry.Reset()
			say(answer)
			recorder := httptest.NewRecorder()
			gate.ServeHTTP(recorder, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/v1/chat/completions", strings.NewReader(body)))
			text := recorder.Body.String()
			switch {
			case recorder.Code != http.StatusOK:
				require.GreaterOrEqual(t, recorder.Code, 400)
				require.True(t, isRefusal(text), text)
			case body == plain:
				require.True(t, json.Valid([]byte(text)), text)
				require.Equal(t, "raw", recorder.Header().Get("X-Served-By"))
			default:
				events := strings.Split(strings.TrimSuffix(text, "\n\n"), "\n\n")
				last := strings.TrimPrefix(events[len(events)-1], "data: ")
				require.True(t, isRefusal(last) || last == endOfStream, text)
			}
		}
	})
}

func TestConfig_ErrorNamesTheField(t *testing.T) {
	t.Parallel()
	const upstreams = `"upstreams":{"a":{"url":"http://127.0.0.1:1/v1","models":{"m":"n"}}}`
	for text, want := range map[string]string{
		`{`:                            "did not find expected node content",
		`{"routs":[]}`:                 "routs",
		`{} {}`:                        "did not find expected <document start>",
		`{}`:                           `routes is "[]"`,
		`{"timeouts":{"total":"-1s"}}`: "timeouts is \"-1s\": want durations of 0",
		`{"timeouts":{"total":"1"}}`:   `timeouts.total: is "1": want a duration`,
		`{"clients":{"a":{"key":"${env:UNSET_KEY}"}},` + upstreams + `,"routes":[{"model":"m","groups":[{"upstreams":["a"]}]}]}`:        "clients.a.key: ${env:UNSET_KEY}: the variable is not set",
		`{"upstreams":{"a":{"url":""}},"routes":[{"model":"m","groups":[{"upstreams":["a"]}]}]}`:                                        "upstreams.a: registry: invalid input: base is",
		`{"upstreams":{"a":{"url":"http://h","keys":["${env:UNSET_KEY}"]}},"routes":[{"model":"m","groups":[{"upstreams":["a"]}]}]}`:    "upstreams.a.keys[0]: ${env:UNSET_KEY}: the variable is not set",
		`{"upstreams":{"a":{"url":"http://h","tokens_per_minute":-1}}}`:                                                                 `upstreams.a.tokens_per_minute is "-1": want 0`,
		`{"clients":{"a":{"key":"k","tokens_per_minute":-1}}}`:                                                                          `clients.a is "[0 -1 0]"`,
		`{"upstreams":{"a":{"url":"http://h","models":{"m*":"n"}}}}`:                                                                    "upstreams.a.models",
		`{` + upstreams + `,"routes":[{"model":"m"}]}`:                                                                                  "routes[0].groups",
		`{` + upstreams + `,"routes":[{"model":"m","groups":[{}]}]}`:                                                                    "routes[0].groups[0].upstreams",
		`{` + upstreams + `,"routes":[{"model":"m","groups":[{"upstreams":["b"]}]}]}`:                                                   `"b": want one of the upstreams`,
		`{` + upstreams + `,"routes":[{"model":"m","groups":[{"upstreams":["a","a"]}]}]}`:                                               `"a": want one of the upstreams, once`,
		`{` + upstreams + `,"routes":[{"model":"x","groups":[{"upstreams":["a"]}]}]}`:                                                   "routes[0].model",
		`{` + upstreams + `,"routes":[{"model":"*m","groups":[{"upstreams":["a"]}]}]}`:                                                  "routes[0].model",
		`{` + upstreams + `,"routes":[{"model":"m","groups":[{"upstreams":["a"],"strategy":"LUCKY"}]}]}`:                                "LUCKY",
		`{` + upstreams + `,"routes":[{"model":"m","groups":[{"upstreams":["a"]}]},{"model":"m"}]}`:                                     "one route for each",
		`{"upstreams":{"a":{"url":"http://h","limits":{"max_concurrent":-1}}},"routes":[{"model":"m","groups":[{"upstreams":["a"]}]}]}`: "Limits.MaxConcurrent",
		`{` + upstreams + `,"routes":[{"model":"x*","groups":[{"upstreams":["a"]}]}]}`:                                                  "routes[0].model",
	} {
		settings, err := config.ParseAs[Config]("text", []byte(text))
		if err == nil {
			_, err = newGateway(t.Context(), settings, zap.NewNop(), http.DefaultTransport)
		}
		require.ErrorContains(t, err, want, text)
	}
}

func TestConfig_ExampleFileIsValid(t *testing.T) {
	t.Setenv("GATEWAY_KEY_TEAM_A", "a")
	t.Setenv("GATEWAY_KEY_BATCH", "c")
	t.Setenv("OPENAI_API_KEY", "b")
	settings, err := config.LoadAs[Config]("gateway.yaml")
	require.NoError(t, err)
	g, err := newGateway(t.Context(), settings, zap.NewNop(), http.DefaultTransport)
	require.NoError(t, err)
	defer func() { require.NoError(t, g.registry.Close(t.Context())) }()
	var names []string
	for _, candidate := range g.resolver(g.now.Load().routes["gpt-4o-mini"]).Explain().Candidates {
		names = append(names, candidate.Provider)
	}
	require.Equal(t, []string{"gpt-4o-mini at openai", "gpt-4o-mini at ollama-a", "gpt-4o-mini at ollama-b"}, names)
	require.Contains(t, g.now.Load().routes, "gpt-*")
	require.Equal(t, registry.StrategyRoundRobin, settings.Routes[2].Groups[0].Strategy)
}

func TestMain_ServesWithoutAConfigurationUntilInterrupted(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	var out lines
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, []string{"-listen", "127.0.0.1:0"}, &out, nil) }()
	url := ""
	require.Eventually(t, func() bool {
		_, after, found := strings.Cut(out.String(), `"listening","url":"`)
		url, _, _ = strings.Cut(after, `"`)
		return found
	}, 10*time.Second, time.Millisecond)
	for _, body := range []string{plain, streamed} {
		response, text := post(t, url, body)
		require.Equal(t, http.StatusOK, response.StatusCode)
		require.Contains(t, text, "loopback-a")
	}
	cancel()
	require.NoError(t, <-ended)
}

func TestMain_RefusesBadArguments(t *testing.T) {
	t.Parallel()
	bad := filepath.Join(t.TempDir(), "bad.json")
	require.NoError(t, os.WriteFile(bad, []byte("{}"), 0o600))
	for _, arguments := range [][]string{
		{"-listen", "nowhere:what"}, {"config.json", "-listen", "x"}, {"-config", bad}, {"-config", bad + ".none"}, {"-unheard-of"},
	} {
		require.Error(t, run(t.Context(), arguments, io.Discard, nil), arguments)
	}
	require.ErrorIs(t, run(t.Context(), []string{"-h"}, io.Discard, nil), flag.ErrHelp)
}

// lines is a buffer for two goroutines.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}
