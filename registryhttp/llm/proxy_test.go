package llm_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap/zapcore"

	"github.com/capreg/registry"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/registryhttp"
	"github.com/capreg/registry/registryhttp/llm"
	"github.com/capreg/registry/verdict"
)

// proxied returns what a proxy to the transport answers, and its report.
func proxied(t *testing.T, proxy llm.Proxy, way llm.Way, body io.Reader, header ...string) (*httptest.ResponseRecorder, llm.Report) {
	t.Helper()
	var report llm.Report
	proxy.Route = func(*http.Request, llm.Request) (llm.Way, error) { return way, nil }
	proxy.Done = func(_ *http.Request, r *llm.Report) { report = *r }
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/v1/chat/completions", body)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	proxy.ServeHTTP(w, r)
	return w, report
}

// failure returns the error in a body or in an event.
func failure(t *testing.T, text string) llm.Error {
	t.Helper()
	events := strings.Split(strings.TrimSpace(text), "\n\n")
	var body struct {
		Error *llm.Error `json:"error"`
	}
	require.NoError(t, json.Unmarshal([]byte(strings.TrimPrefix(events[len(events)-1], "data: ")), &body), text)
	require.NotNil(t, body.Error, text)
	require.NotEmpty(t, body.Error.Message)
	require.NotEmpty(t, body.Error.Type)
	return *body.Error
}

func TestProxy_ReportsWhatWasAnswered(t *testing.T) {
	t.Parallel()
	for body, answer := range map[string]roundTrip{
		plain:    says(200, plainJSON, whole),
		streamed: says(200, events, role+token+finishing+usage+marked),
	} {
		models := map[string]string{"m": "big"}
		w, report := proxied(t, llm.Proxy{}, llm.Way{Transport: over(t, llm.Transport{Models: models}, says(500, "", ""), answer)}, reader(body))
		require.Equal(t, http.StatusOK, w.Code)
		require.Equal(t, "b", w.Header().Get("X-Served-By"))
		require.Equal(t, "big", w.Header().Get("X-Served-Model"))
		require.Equal(t, "2", w.Header().Get("X-Attempts"))
		require.NoError(t, report.Err)
		require.Equal(t, "m", report.Asked.Model)
		require.Equal(t, 2, report.InputTokens)
		require.Equal(t, 3, report.OutputTokens)
		require.Equal(t, int64(w.Body.Len()), report.Bytes)
	}
}

func TestProxy_AsksForTheRouteAgainWhereNoProviderWasAvailable(t *testing.T) {
	t.Parallel()
	for body, answer := range map[string]roundTrip{plain: says(200, plainJSON, whole), streamed: says(200, events, token+finishing)} {
		for _, c := range []struct {
			way   http.RoundTripper
			again error
			want  int
		}{
			{over(t, llm.Transport{}), llm.NoModel("m"), http.StatusNotFound},
			{over(t, llm.Transport{}), nil, http.StatusServiceUnavailable},
			{over(t, llm.Transport{}, says(400, plainJSON, "{}")), llm.NoModel("m"), http.StatusBadRequest},
			{over(t, llm.Transport{}, answer), llm.NoModel("m"), http.StatusOK},
		} {
			asked := 0
			proxy := llm.Proxy{Route: func(*http.Request, llm.Request) (llm.Way, error) {
				if asked++; asked > 1 {
					return llm.Way{}, c.again
				}
				return llm.Way{Transport: c.way}, nil
			}}
			w := httptest.NewRecorder()
			proxy.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/v1/chat/completions", reader(body)))
			require.Equal(t, c.want, w.Code, w.Body)
		}
	}
}

func TestReport_IsAnObjectOfALogLine(t *testing.T) {
	t.Parallel()
	_, report := proxied(t, llm.Proxy{}, llm.Way{Transport: over(t, llm.Transport{}, says(200, plainJSON, whole))}, reader(plain))
	line := zapcore.NewMapObjectEncoder()
	require.NoError(t, report.MarshalLogObject(line))
	delete(line.Fields, "time")
	usual := map[string]any{
		"model": "m", "status": 200, "upstream": "a", "input_tokens": 2, "output_tokens": 3, "bytes": int64(len(whole)),
	}
	require.Equal(t, usual, line.Fields)
	refused := llm.Report{Asked: llm.Request{Model: "m"}, Status: 404}
	line = zapcore.NewMapObjectEncoder()
	require.NoError(t, refused.MarshalLogObject(line))
	require.NotContains(t, line.Fields, "served_model", "there is none")
	require.Equal(t, 0, line.Fields["attempts"])
	line = zapcore.NewMapObjectEncoder()
	report.Err, report.Model, report.Attempts, report.Asked.Stream = errors.New("cut"), "big", 2, true
	require.NoError(t, report.MarshalLogObject(line))
	delete(line.Fields, "time")
	maps.Copy(usual, map[string]any{"stream": true, "served_model": "big", "attempts": 2, "error": "cut"})
	require.Equal(t, usual, line.Fields)
}

func TestProxy_TellsTheLengthOfAPlainAnswer(t *testing.T) {
	t.Parallel()
	long := strings.Replace(whole, "hi", strings.Repeat("a \\\" long \\\\ one ", 1000), 1)
	w, report := proxied(t, llm.Proxy{}, llm.Way{Transport: over(t, llm.Transport{}, says(200, plainJSON, long))}, reader(plain))
	require.NoError(t, report.Err)
	require.Equal(t, long, w.Body.String())
	require.Equal(t, strconv.Itoa(len(long)), w.Header().Get("Content-Length"))
	require.Equal(t, 3, report.OutputTokens)
	w, _ = proxied(t, llm.Proxy{}, llm.Way{Transport: over(t, llm.Transport{}, says(200, events, token+finishing))}, reader(streamed))
	require.Empty(t, w.Header().Get("Content-Length"))
}

func TestProxy_PassesEventsOfEveryLength(t *testing.T) {
	t.Parallel()
	var sent strings.Builder
	for _, n := range []int{1, 900, 1000, 1024, 3000, 8192, 20_000, 1, 100_000, 10} {
		sent.WriteString(strings.Replace(token, "hi", strings.Repeat("x", n), 1))
	}
	sent.WriteString(finishing + marked)
	w, report := proxied(t, llm.Proxy{}, llm.Way{Transport: over(t, llm.Transport{}, says(200, events, sent.String()))}, reader(streamed))
	require.NoError(t, report.Err)
	require.Equal(t, sent.String(), w.Body.String())
	require.EqualValues(t, sent.Len(), report.Bytes)
}

func TestProxy_GivesEachRequestAKeyOfItsOwn(t *testing.T) {
	t.Parallel()
	keys := make(map[string]bool)
	server := roundTrip(func(r *http.Request) (*http.Response, error) {
		keys[r.Header.Get("Idempotency-Key")] = true
		return says(200, plainJSON, whole)(r)
	})
	for range 100 {
		_, report := proxied(t, llm.Proxy{}, llm.Way{Transport: over(t, llm.Transport{}, server)}, reader(plain))
		require.NoError(t, report.Err)
	}
	require.Len(t, keys, 100)
	for key := range keys {
		require.Regexp(t, `^[A-Z2-7]{26}$`, key)
	}
}

func TestProxy_PassesHeadersBothWays(t *testing.T) {
	t.Parallel()
	sent := http.Header{}
	server := roundTrip(func(r *http.Request) (*http.Response, error) {
		sent = r.Header.Clone()
		response, err := says(200, plainJSON, whole)(r)
		for name, value := range map[string]string{
			"X-Request-Id": "theirs", "X-Ratelimit-Remaining-Requests": "7", "Openai-Processing-Ms": "5", "Set-Cookie": "a=b", "Server": "x",
		} {
			response.Header.Set(name, value)
		}
		return response, err
	})
	w, _ := proxied(t, llm.Proxy{}, llm.Way{Transport: over(t, llm.Transport{}, server)}, reader(plain),
		"Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "Idempotency-Key", "once", "Openai-Organization", "org",
		"User-Agent", "sdk/1", "Authorization", "Bearer client", "Cookie", "a=b", "X-Forwarded-For", "10.0.0.1", "Content-Type", "application/json")
	require.Equal(t, "once", sent.Get("Idempotency-Key"))
	require.Equal(t, "org", sent.Get("Openai-Organization"))
	require.Equal(t, "sdk/1", sent.Get("User-Agent"))
	require.NotEmpty(t, sent.Get("Traceparent"))
	for _, name := range []string{"Authorization", "Cookie", "X-Forwarded-For"} {
		require.Empty(t, sent.Get(name), name)
	}
	require.Equal(t, "theirs", w.Header().Get("X-Upstream-Request-Id"))
	require.Equal(t, "7", w.Header().Get("X-Ratelimit-Remaining-Requests"))
	require.Equal(t, "5", w.Header().Get("Openai-Processing-Ms"))
	require.Empty(t, w.Header().Get("Set-Cookie"))
	require.Empty(t, w.Header().Get("Server"))

	_, _ = proxied(t, llm.Proxy{}, llm.Way{Transport: over(t, llm.Transport{}, server)}, reader(plain))
	require.Contains(t, sent, "User-Agent", "else net/http would send one")
	require.Empty(t, sent.Get("User-Agent"))
}

// An answer that a server has compressed unasked passes as it is.
func TestProxy_TellsHowAnAnswerIsEncoded(t *testing.T) {
	t.Parallel()
	server := roundTrip(func(r *http.Request) (*http.Response, error) {
		response, err := says(200, plainJSON, "\x1f\x8b")(r)
		response.Header.Set("Content-Encoding", "gzip")
		return response, err
	})
	w, _ := proxied(t, llm.Proxy{}, llm.Way{Transport: over(t, llm.Transport{}, server)}, reader(plain))
	require.Equal(t, "gzip", w.Header().Get("Content-Encoding"))
	require.Equal(t, "\x1f\x8b", w.Body.String())
}

// Variants: what servers refuse with; each in the words of the server, but for what is about the keys of the proxy.
func TestProxy_PassesRefusalsOn(t *testing.T) {
	t.Parallel()
	for text, c := range map[string]struct {
		status, want int
		code         any
	}{
		`{"error":{"message":"too hot","code":"x"}}`:                {400, 400, "x"},
		`{"error":{"message":"not for you","code":"model"}}`:        {403, 403, "model"},
		`{"error":{"message":"fewer max_tokens"}}`:                  {402, 402, nil},
		`{"error":{"message":"slow down"}}`:                         {429, 429, "rate_limit_exceeded"},
		`{"error":{"message":"broken"}}`:                            {500, 500, nil},
		`<html>`:                                                    {502, 502, "upstream_error"},
		`{"error":{"message":"secret"}}`:                            {401, 502, "upstream_credentials"},
		`{"error":{"message":"money","code":"insufficient_quota"}}`: {429, 502, "upstream_credentials"},
		`{"object":"error","message":"maximum context","code":400}`: {400, 400, 400.0},
	} {
		for _, body := range []string{plain, streamed} {
			w, report := proxied(t, llm.Proxy{}, llm.Way{Transport: over(t, llm.Transport{}, says(c.status, plainJSON, text))}, reader(body))
			require.Equal(t, c.want, w.Code, text)
			require.Equal(t, c.code, failure(t, w.Body.String()).Code, text)
			require.Error(t, report.Err)
			if c.want == 502 {
				require.NotContains(t, w.Body.String(), "secret")
				require.Empty(t, w.Header().Get("Retry-After"))
			}
		}
	}
}

func TestProxy_DelayOfARefusalIsBounded(t *testing.T) {
	t.Parallel()
	for sent, want := range map[string]string{"3": "3", "3600": "60", "": ""} {
		server := roundTrip(func(r *http.Request) (*http.Response, error) {
			response, err := says(429, plainJSON, `{}`)(r)
			response.Header.Set("Retry-After", sent)
			return response, err
		})
		w, _ := proxied(t, llm.Proxy{}, llm.Way{Transport: over(t, llm.Transport{}, server)}, reader(plain))
		require.Equal(t, want, w.Header().Get("Retry-After"))
	}
}

// A stream that has begun, if only with a comment, ends with an error as its last event.
func TestProxy_LateErrorIsTheLastEvent(t *testing.T) {
	t.Parallel()
	for text, code := range map[string]string{
		token + "!":     "stream_interrupted",
		token + "~":     "stream_interrupted",
		"||||" + "!":    "upstream_error",
		"~":             "timeout",
		"||||" + marked: "upstream_error",
	} {
		bubble(t, func(t *testing.T) {
			transport := over(t, llm.Transport{FirstTimeout: 10 * time.Second, StallTimeout: 10 * time.Second}, says(200, events, text))
			w, report := proxied(t, llm.Proxy{}, llm.Way{Transport: transport, CommentEvery: time.Second}, reader(streamed))
			require.Equal(t, http.StatusOK, w.Code)
			require.Equal(t, code, failure(t, w.Body.String()).Code, text)
			require.NotContains(t, w.Body.String(), "[DONE]")
			require.Error(t, report.Err)
			require.Equal(t, "no", w.Header().Get("X-Accel-Buffering"))
		})
	}
}

// Variants: a transport over providers, and one server without.
func TestProxy_TimeOfAWayEndsEverything(t *testing.T) {
	t.Parallel()
	for body, kind := range map[string]string{plain: plainJSON, streamed: events} {
		for _, text := range []string{"~", token + "~"} {
			for _, direct := range []bool{false, true} {
				bubble(t, func(t *testing.T) {
					begun, server := time.Now(), says(200, kind, text)
					var way http.RoundTripper = over(t, llm.Transport{FirstTimeout: time.Minute, AnswerTimeout: time.Minute}, server, server)
					if direct {
						way = &llm.Transport{Base: server}
					}
					w, report := proxied(t, llm.Proxy{}, llm.Way{Transport: way, Timeout: 7 * time.Second}, reader(body))
					require.Equal(t, 7*time.Second, time.Since(begun))
					require.ErrorIs(t, report.Err, context.DeadlineExceeded)
					require.Equal(t, 1, report.Attempts)
					failure(t, w.Body.String())
				})
			}
		}
	}
}

func TestProxy_RefusesWhatIsNoRequest(t *testing.T) {
	t.Parallel()
	memory := llm.NewMemory(100)
	for body, status := range map[string]int{
		``: 400, `[]`: 400, `null`: 400, `{"model":7}`: 400, `{}`: 400, `{"model":"m","stream":"yes"}`: 400, `{"model":"m","model":"n"}`: 400, `{"model":"m","Model":"n"}`: 400, `{"MODEL":"n","model":"m"}`: 400,
		`{"Model":"m"}`: 400, `{"model":"m","x":"` + strings.Repeat("x", 60) + `"}`: 413, `{"model":"m","x":"` + strings.Repeat("x", 20) + `"}`: 200,
	} {
		w, _ := proxied(t, llm.Proxy{MaxBody: 60, Memory: memory}, llm.Way{Transport: over(t, llm.Transport{}, says(200, plainJSON, whole))}, reader(body))
		require.Equal(t, status, w.Code, body)
		if status != 200 {
			failure(t, w.Body.String())
		}
	}
	require.NoError(t, memory.Take(90), "all of it was given back")
	w, _ := proxied(t, llm.Proxy{Memory: memory}, llm.Way{}, reader(plain))
	require.Equal(t, http.StatusServiceUnavailable, w.Code)
	require.Equal(t, "1", w.Header().Get("Retry-After"))
}

// Clients that do not send, or do not read, are cut, and the server with them.
func TestProxy_ClientsHaveTheirTime(t *testing.T) {
	t.Parallel()
	endless := roundTrip(func(r *http.Request) (*http.Response, error) {
		return says(200, events, strings.Repeat(token, 200_000)+finishing)(r)
	})
	done := make(chan error, 2)
	proxy := &llm.Proxy{
		ReadTimeout: 50 * time.Millisecond, WriteTimeout: 50 * time.Millisecond,
		Route: func(*http.Request, llm.Request) (llm.Way, error) {
			return llm.Way{Transport: &llm.Transport{Base: endless}}, nil
		},
		Done: func(_ *http.Request, report *llm.Report) { done <- report.Err },
	}
	server := httptest.NewServer(proxy)
	defer server.Close()
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	unread, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL+"/v1/chat/completions", strings.NewReader(streamed))
	require.NoError(t, err)
	response, err := client.Do(unread)
	require.NoError(t, err)
	require.Error(t, <-done)
	require.NoError(t, response.Body.Close())
	body, sender := io.Pipe()
	unsent, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL+"/v1/chat/completions", body)
	require.NoError(t, err)
	response, err = client.Do(unsent)
	if err == nil {
		require.Equal(t, http.StatusRequestTimeout, response.StatusCode)
		require.NoError(t, response.Body.Close())
	}
	require.Error(t, <-done)
	require.NoError(t, sender.Close())
}

func TestErrorOf_NamesNoProvider(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err    error
		status int
		code   string
	}{
		{context.DeadlineExceeded, 504, "timeout"},
		{errors.New("x"), 500, ""},
		{&registry.UnavailableError{}, 503, "no_upstream"},
		{&registry.CallError{Attempts: []registry.Attempt{{Provider: "secret", Class: verdict.ClassRateLimited}}}, 429, "rate_limit_exceeded"},
		{&registry.CallError{Attempts: []registry.Attempt{{Provider: "secret", Class: verdict.ClassServerError}}}, 502, "upstream_error"},
		{llm.ErrMemory, 503, "overloaded"},
		{llm.NoModel("m"), 404, "model_not_found"},
	} {
		e := llm.ErrorOf(c.err)
		require.Equal(t, c.status, e.Status, c.err)
		if c.code != "" {
			require.Equal(t, c.code, e.Code, c.err)
		}
		require.NotContains(t, e.Message, "secret")
	}
}

func TestParseError_ReadsEveryForm(t *testing.T) {
	t.Parallel()
	const words = "maximum length is 8192"
	for text, want := range map[string]string{
		`{"error":{"message":"` + words + `","code":"x"}}`: words, `{"object":"error","message":"` + words + `","code":400}`: words,
		`{"error":"` + words + `"}`: words, `{"message":"` + words + `"}`: words, `{"detail":"` + words + `"}`: words, words + "\n": words,
		`{"type":"error","error":{"message":"` + words + `"}}`: words,
		"<html>" + words: "the server gave no reason", "": "the server gave no reason", `{"error":7}`: "the server gave no reason",
		strings.Repeat("x", 501): "the server gave no reason", "\xff": "the server gave no reason",
	} {
		e := llm.ParseError(400, []byte(text))
		require.Equal(t, want, e.Message, text)
		require.Equal(t, 400, e.Status)
		require.NotContains(t, e.Error(), "8192", "an error in a log does not repeat the request")
	}
	require.Contains(t, llm.ParseError(400, []byte(`{"detail":[{"msg":"`+words+`"}]}`)).Message, words)
}

func TestRequest_KnowsWhatItContinues(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]string{
		`{"model":"m","previous_response_id":"r"}`: "r", `{"model":"m","conversation":{"id":"c"}}`: "c", `{"model":"m","conversation":"c"}`: "c",
		`{"model":"m","previous_response_id":null}`: "", `{"model":"m"}`: "",
	} {
		r, err := llm.ParseRequest([]byte(body))
		require.NoError(t, err)
		require.Equal(t, want, r.Continues, body)
	}
}

func TestOrigins_ForgetTheOldest(t *testing.T) {
	t.Parallel()
	var origins llm.Origins
	for _, report := range []*llm.Report{{ID: "a", Name: "x"}, {ID: "", Name: "x"}, {ID: "b", Name: "y", Err: io.EOF}} {
		origins.Note(report)
	}
	require.Equal(t, "x", origins.Of("a"))
	require.Empty(t, origins.Of("b"))
	require.Empty(t, origins.Of(""))
	for i := range 30_000 {
		origins.Note(&llm.Report{ID: strings.Repeat("i", i%7) + time.Duration(i).String(), Name: "z"})
	}
	require.Empty(t, origins.Of("a"))
}

func TestLists_AskEachServerOnceAMinute(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		asked := 0
		server := roundTrip(func(r *http.Request) (*http.Response, error) {
			asked++
			return says(200, plainJSON, `{"data":[{"id":"b"},{"id":"a"},{"id":"b"}]}`)(r)
		})
		var lists llm.Lists
		for range 3 {
			models := lists.Of(t.Context(), "x", "http://x/v1/models", &llm.Transport{Base: server})
			require.Len(t, models, 3)
			for path, want := range map[string]string{"/v1/models": `"data":[{"id":"a"`, "/v1/models/a": `{"id":"a"`, "/v1/models/c": `model_not_found`} {
				w := httptest.NewRecorder()
				llm.ServeModels(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, http.NoBody), models)
				require.Contains(t, w.Body.String(), want)
			}
		}
		require.Equal(t, 1, asked)
		time.Sleep(time.Minute + time.Second)
		lists.Of(t.Context(), "x", "http://x/v1/models", &llm.Transport{Base: server})
		require.Equal(t, 2, asked)
		require.Empty(t, lists.Of(t.Context(), "y", "http://y/v1/models", says(500, "", "")))
	})
}

func TestProxy_AnswersWithTheRoutesError(t *testing.T) {
	t.Parallel()
	proxy := &llm.Proxy{Route: func(_ *http.Request, asked llm.Request) (llm.Way, error) { return llm.Way{}, llm.NoModel(asked.Model) }}
	w := httptest.NewRecorder()
	proxy.ServeHTTP(w, httptest.NewRequestWithContext(registryhttp.WithMetadata(t.Context(), registryhttp.Metadata{}), http.MethodPost, "/v1/responses", reader(plain)))
	require.Equal(t, http.StatusNotFound, w.Code)
	require.Equal(t, "model_not_found", failure(t, w.Body.String()).Code)
}

// The deadline of a way is one for the providers below another transport as well, whose contexts end with it.
func TestProxy_DeadlineIsThatOfTransportsBelow(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		silent := roundTrip(func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		})
		reg := testkit.New(t, registry.Options{})
		register := func(name string, transport http.RoundTripper) (*registry.Registration, *registryhttp.Transport) {
			upstreams := registry.NewService[*registryhttp.Upstream](name)
			upstream, err := registryhttp.NewUpstream("http://"+name, registryhttp.UpstreamOptions{Transport: transport})
			require.NoError(t, err)
			registration, err := upstreams.Register(t.Context(), reg, registry.Provider[*registryhttp.Upstream]{Name: name, Instance: upstream})
			require.NoError(t, err)
			all, err := registryhttp.NewTransport(upstreams.Bind(reg, registry.Query{}), registryhttp.Options{FirstTimeout: time.Hour})
			require.NoError(t, err)
			return registration, all
		}
		below, inner := register("below", silent)
		above, outer := register("above", inner)
		w, report := proxied(t, llm.Proxy{}, llm.Way{Transport: outer, Timeout: 20 * time.Second}, reader(plain))
		require.Equal(t, http.StatusGatewayTimeout, w.Code)
		require.Equal(t, 20*time.Second, report.Duration)
		require.ErrorIs(t, report.Err, context.DeadlineExceeded)
		require.NotErrorIs(t, report.Err, context.Canceled)
		for _, provider := range []*registry.Registration{below, above} {
			require.NotNil(t, provider.Info().LastError, "it has used up the time")
			require.Equal(t, verdict.ClassCallerDeadline, provider.Info().LastError.Class)
		}
	})
}
