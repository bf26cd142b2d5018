package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/capreg/registry"
	"github.com/capreg/registry/config"
)

// network has servers by their hosts, without a network: each answers a request and its body with a status and a text.
type network map[string]func(r *http.Request, body string) (status int, text string)

func (n network) RoundTrip(r *http.Request) (*http.Response, error) {
	body := []byte(nil)
	if r.Body != nil {
		body, _ = io.ReadAll(r.Body)
	}
	answer := n[r.URL.Host]
	if answer == nil {
		return nil, fmt.Errorf("no server %q", r.URL.Host)
	}
	status, text := answer(r, string(body))
	header := http.Header{"Content-Type": {"application/json"}}
	if strings.HasPrefix(text, "data:") || strings.HasPrefix(text, "event:") {
		header.Set("Content-Type", "text/event-stream")
	}
	return &http.Response{StatusCode: status, Header: header, Body: io.NopCloser(strings.NewReader(text)), Request: r, ContentLength: -1}, r.Context().Err()
}

// answers answers each request with the same.
func answers(status int, text string) func(*http.Request, string) (int, string) {
	return func(*http.Request, string) (int, string) { return status, text }
}

// virtual runs a test in virtual time, with a gateway of the configuration.
func virtual(t *testing.T, settings string, servers network, test func(t *testing.T, g *gateway)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		g := made(t, settings, servers, zap.NewNop())
		test(t, g)
		require.NoError(t, g.close(context.WithoutCancel(t.Context())))
	})
}

func made(t *testing.T, text string, servers http.RoundTripper, log *zap.Logger) *gateway {
	t.Helper()
	settings, err := config.ParseAs[Config]("text", []byte(text))
	require.NoError(t, err)
	g, err := newGateway(t.Context(), settings, log, servers)
	require.NoError(t, err)
	return g
}

// asked sends a request to the gateway; without a body it is a GET.
func asked(t *testing.T, g *gateway, path, body string, header ...string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, http.NoBody)
	if body != "" {
		r = httptest.NewRequestWithContext(t.Context(), http.MethodPost, path, strings.NewReader(body))
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	g.ServeHTTP(w, r)
	return w
}

const chat = "/v1/chat/completions"

func TestRoutes_KeysAreRotatedWhereOneIsLimited(t *testing.T) {
	t.Setenv("GATEWAY_TEST_KEY", "first")
	file := filepath.Join(t.TempDir(), "key")
	require.NoError(t, os.WriteFile(file, []byte("second\n"), 0o600))
	var seen []string
	limited := map[string]bool{"first": true}
	servers := network{"a": func(r *http.Request, _ string) (int, string) {
		key := r.Header.Get("Api-Key")
		seen = append(seen, key)
		require.Equal(t, "version=1", r.URL.RawQuery)
		require.Equal(t, "/v1/chat/completions", r.URL.Path)
		require.Empty(t, r.Header.Get("Authorization"))
		if limited[key] {
			return 429, `{"error":{"message":"slow"}}`
		}
		return 200, whole
	}}
	virtual(t, `{"upstreams":{"a":{"url":"http://a/v1?version=1","keys":["${env:GATEWAY_TEST_KEY}","${file:`+file+`}"],"headers":{"api-key":"{key}"}}},
		"routes":[{"model":"m","groups":[{"upstreams":["a"]}]}]}`, servers, func(t *testing.T, g *gateway) {
		for range 3 {
			w := asked(t, g, chat, `{"model":"m"}`)
			require.Equal(t, 200, w.Code, w.Body)
		}
		require.Equal(t, []string{"first", "second", "second", "second"}, seen)
		limited["second"] = true
		w := asked(t, g, chat, `{"model":"m"}`)
		require.Equal(t, 429, w.Code)
		require.Equal(t, "rate_limit_exceeded", refusal(t, w.Body.String()).Code)
		limited = nil
		time.Sleep(5 * time.Second)
		require.Equal(t, 200, asked(t, g, chat, `{"model":"m"}`).Code)
		require.Equal(t, "first", seen[len(seen)-1])
	})
}

func TestRoutes_SoleUpstreamIsAskedWhateverItsBreaker(t *testing.T) {
	t.Parallel()
	status := 500
	servers := network{"a": func(*http.Request, string) (int, string) { return status, whole }}
	virtual(t, `{"upstreams":{"a":{"url":"http://a/v1"}},"routes":[{"model":"m","groups":[{"upstreams":["a"]}]}]}`, servers, func(t *testing.T, g *gateway) {
		for range 10 {
			require.Equal(t, 500, asked(t, g, chat, `{"model":"m"}`).Code)
		}
		status = 200
		require.Equal(t, 200, asked(t, g, chat, `{"model":"m"}`).Code)
	})
}

// What goes wrong with models that clients make up leaves those alone that are there.
func TestRoutes_ModelsOfAStarStandByThemselves(t *testing.T) {
	t.Parallel()
	servers := network{"a": func(_ *http.Request, body string) (int, string) {
		if strings.Contains(body, "real") {
			return 200, whole
		}
		return 500, `{}`
	}, "b": answers(500, `{}`)}
	virtual(t, `{"upstreams":{"a":{"url":"http://a/v1"},"b":{"url":"http://b/v1"}},
		"routes":[{"model":"*","groups":[{"upstreams":["a"]},{"upstreams":["b"]}]}]}`, servers, func(t *testing.T, g *gateway) {
		require.Equal(t, 200, asked(t, g, chat, `{"model":"real"}`).Code)
		for i := range 20 {
			asked(t, g, chat, fmt.Sprintf(`{"model":"made up %d"}`, i))
		}
		require.Equal(t, 200, asked(t, g, chat, `{"model":"real"}`).Code)
		for i := range mostLearned + 10 {
			asked(t, g, chat, fmt.Sprintf(`{"model":"real %d"}`, i))
		}
		require.Len(t, g.now.Load().routes, 1+mostLearned)
	})
}

// Variants: for the route, for the upstream, for all.
func TestRoutes_TimeoutsAreThoseOfTheNearestScope(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]time.Duration{
		`"upstreams":{"a":{"url":"http://a/v1"}},"routes":[{"model":"m","groups":[{"upstreams":["a"]}]}]`:                                                                                  300 * time.Second,
		`"timeouts":{"answer":"3s"},"upstreams":{"a":{"url":"http://a/v1"}},"routes":[{"model":"m","groups":[{"upstreams":["a"]}]}]`:                                                       3 * time.Second,
		`"timeouts":{"answer":"3s"},"upstreams":{"a":{"url":"http://a/v1"}},"routes":[{"model":"m","groups":[{"upstreams":["a"]}],"timeouts":{"answer":"2s"}}]`:                            2 * time.Second,
		`"timeouts":{"answer":"3s"},"upstreams":{"a":{"url":"http://a/v1","timeouts":{"answer":"1s"}}},"routes":[{"model":"m","groups":[{"upstreams":["a"]}],"timeouts":{"answer":"2s"}}]`: time.Second,
		`"timeouts":{"total":"4s"},"upstreams":{"a":{"url":"http://a/v1"}},"routes":[{"model":"m","groups":[{"upstreams":["a"]}]}]`:                                                        4 * time.Second,
	} {
		servers := network{"a": func(r *http.Request, _ string) (int, string) {
			<-r.Context().Done()
			return 500, ""
		}}
		virtual(t, "{"+text+"}", servers, func(t *testing.T, g *gateway) {
			begun := time.Now()
			w := asked(t, g, chat, `{"model":"m"}`)
			require.Equal(t, 504, w.Code, w.Body)
			require.Equal(t, want, time.Since(begun))
		})
	}
}

func TestRoutes_EmbeddingsStayWithTheirModel(t *testing.T) {
	t.Parallel()
	vector := answers(200, `{"data":[{"embedding":[1]}]}`)
	down := answers(500, `{}`)
	settings := `{"upstreams":{"a":{"url":"http://a/v1","retry":{}},"b":{"url":"http://b/v1","models":{"m":"other"}},"c":{"url":"http://c/v1"}},
		"routes":[{"model":"m","groups":[{"upstreams":["a","b","c"]}]}]}`
	virtual(t, settings, network{"a": down, "b": vector, "c": vector}, func(t *testing.T, g *gateway) {
		w := asked(t, g, "/v1/embeddings", `{"model":"m"}`)
		require.Equal(t, "c", w.Header().Get("X-Served-By"), "another server with the same model")
	})
	virtual(t, settings, network{"a": down, "b": vector, "c": down}, func(t *testing.T, g *gateway) {
		require.Equal(t, 500, asked(t, g, "/v1/embeddings", `{"model":"m"}`).Code)
	})
}

func TestRoutes_ConversationStaysWithItsUpstream(t *testing.T) {
	t.Parallel()
	fails := false
	server := func(name string) func(*http.Request, string) (int, string) {
		return func(_ *http.Request, body string) (int, string) {
			switch {
			case name == "a" && fails:
				return 500, `{}`
			case strings.Contains(body, `"stream":true`):
				return 200, "event: response.created\ndata: {\"type\":\"response.created\",\"response\":{\"id\":\"stream-" + name + "\"}}\n\n" +
					"event: response.output_text.delta\ndata: {\"delta\":\"x\"}\n\nevent: response.completed\ndata: {\"type\":\"response.completed\"}\n\n"
			}
			return 200, `{"id":"plain-` + name + `","output":[]}`
		}
	}
	virtual(t, `{"upstreams":{"a":{"url":"http://a/v1"},"b":{"url":"http://b/v1"}},"routes":[{"model":"m","groups":[{"upstreams":["a"]},{"upstreams":["b"]}]}]}`,
		network{"a": server("a"), "b": server("b")}, func(t *testing.T, g *gateway) {
			by := func(body string) string { return asked(t, g, "/v1/responses", body).Header().Get("X-Served-By") }
			require.Equal(t, "a", by(`{"model":"m"}`))
			fails = true
			require.Equal(t, "b", by(`{"model":"m"}`))
			require.Equal(t, "b", by(`{"model":"m","stream":true}`))
			fails = false
			for id, want := range map[string]string{"plain-a": "a", "plain-b": "b", "stream-b": "b", "unheard of": "a"} {
				require.Equal(t, want, by(`{"model":"m","previous_response_id":"`+id+`"}`), id)
			}
			fails = true
			w := asked(t, g, "/v1/responses", `{"model":"m","previous_response_id":"plain-a"}`)
			require.Equal(t, 500, w.Code, "the other one does not know it")
		})
}

func TestRoutes_ReloadChangesWhatIsNew(t *testing.T) {
	t.Parallel()
	counts := map[string]int{}
	server := func(name string, status int) func(*http.Request, string) (int, string) {
		return func(*http.Request, string) (int, string) {
			counts[name]++
			return status, whole
		}
	}
	settings := func(upstreams, order string) string {
		return `{"upstreams":{"a":{"url":"http://a/v1"},"b":{"url":"http://b/v1"}` + upstreams + `},"routes":[{"model":"m","groups":[{"upstreams":[` + order + `]}]}]}`
	}
	virtual(t, settings("", `"a","b"`), network{"a": server("a", 429), "b": server("b", 200), "c": server("c", 200)}, func(t *testing.T, g *gateway) {
		apply := func(text string) {
			next, err := config.ParseAs[Config]("text", []byte(text))
			require.NoError(t, err)
			require.NoError(t, g.apply(t.Context(), next))
		}
		by := func() string { return asked(t, g, chat, `{"model":"m"}`).Header().Get("X-Served-By") }
		require.Equal(t, "b", by())
		apply(settings(`,"c":{"url":"http://c/v1"}`, `"a","b","c"`))
		require.Equal(t, "b", by())
		require.Equal(t, 1, counts["a"], "its cooldown goes on")
		apply(settings(`,"c":{"url":"http://c/v1"}`, `"c","a","b"`))
		require.Equal(t, "c", by(), "a new order")
		bad, err := config.ParseAs[Config]("text", []byte(settings(`,"c":{"url":"http://c/v1","breaker":{"failure_threshold":-1}}`, `"b","c"`)))
		require.NoError(t, err)
		require.ErrorContains(t, g.apply(t.Context(), bad), "FailureThreshold")
		require.Equal(t, "c", by(), "nothing has changed")
		apply(settings("", `"b"`))
		require.Equal(t, "b", by())
		_, known := g.registry.Provider("models", "m at a")
		require.False(t, known)
	})
}

func TestRoutes_UpstreamSettingsReachTheRegistry(t *testing.T) {
	t.Parallel()
	virtual(t, `{"upstreams":{"a":{"url":"http://a/v1","window":8,"weight":3,"last_resort":true,"retry":{"retries":4,"first_delay":"1s"},
		"breaker":{"failure_threshold":7},"limits":{"max_concurrent":2,"max_queue":1,"max_wait":"1s"}},"b":{"url":"http://b/v1"}},
		"routes":[{"model":"m","groups":[{"upstreams":["a","b"],"strategy":"LEAST_LOADED"}]}]}`, network{}, func(t *testing.T, g *gateway) {
		p, known := g.registry.Provider("models", "m at a")
		require.True(t, known)
		info := p.Info()
		require.Equal(t, 8, info.Window)
		require.InDelta(t, 3, info.Weight, 0)
		require.True(t, info.LastResort)
		require.Equal(t, 4, info.Retry.Retries)
		require.Equal(t, time.Second, info.Retry.FirstDelay)
		require.Equal(t, 7, info.Breaker.Policy.FailureThreshold)
		require.Equal(t, registry.LimitPolicy{Bulkhead: info.Limits.Bulkhead, MaxConcurrent: 2, MaxQueue: 1, MaxWait: time.Second}, info.Limits)
		require.Equal(t, "LEAST_LOADED", fmt.Sprint(info.Strategy))
	})
}

func TestMain_ReadsTheConfigurationAgain(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, whole) }))
	t.Cleanup(server.Close)
	file := filepath.Join(t.TempDir(), "gateway.json")
	settings := func(model string) {
		require.NoError(t, os.WriteFile(file, []byte(`{"upstreams":{"a":{"url":"`+server.URL+`"}},"routes":[{"model":"`+model+`","groups":[{"upstreams":["a"]}]}]}`), 0o600))
	}
	settings("a")
	ctx, cancel := context.WithCancel(t.Context())
	reload := make(chan os.Signal)
	var out lines
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, []string{"-listen", "127.0.0.1:0", "-config", file}, &out, reload) }()
	url := ""
	require.Eventually(t, func() bool {
		_, after, found := strings.Cut(out.String(), `"listening","url":"`)
		url, _, _ = strings.Cut(after, `"`)
		return found
	}, 10*time.Second, time.Millisecond)
	for _, model := range []string{"b", "no \" JSON"} {
		settings(model)
		if model != "b" { // else the file is seen to change
			reload <- syscall.SIGHUP
		}
		require.Eventually(t, func() bool {
			r, _ := post(t, url, `{"model":"b"}`)
			return r.StatusCode == http.StatusOK
		}, 10*time.Second, time.Millisecond)
	}
	cancel()
	require.NoError(t, <-ended)
	require.Regexp(t, `"level":"info",[^\n]*"msg":"the configuration was read again"`, out.String())
	require.Regexp(t, `"level":"error",[^\n]*"msg":"the configuration could not be read again, and stays as it was","error":"`, out.String())
}

func TestServe_HealthAndReadinessNeedNoKey(t *testing.T) {
	t.Setenv("GATEWAY_TEST_KEY", "secret")
	virtual(t, `{"clients":{"x":{"key":"${env:GATEWAY_TEST_KEY}"}},"upstreams":{"a":{"url":"http://a/v1"}},"routes":[{"model":"m","groups":[{"upstreams":["a"]}]}]}`,
		network{}, func(t *testing.T, g *gateway) {
			require.Equal(t, 200, asked(t, g, "/healthz", "").Code)
			require.Equal(t, 200, asked(t, g, "/readyz", "").Code)
			require.Equal(t, 401, asked(t, g, "/status", "").Code)
			g.stopping.Store(true)
			require.Equal(t, 200, asked(t, g, "/healthz", "").Code)
			require.Equal(t, 503, asked(t, g, "/readyz", "").Code)
		})
}

func TestServe_ListsTheModelsOfStarsForTheClient(t *testing.T) {
	t.Setenv("GATEWAY_TEST_KEY", "secret")
	servers := network{"a": answers(200, `{"data":[{"id":"gpt-2","object":"model","owned_by":"a"},{"id":"gpt-1"},{"id":"tts"}]}`), "b": answers(500, "")}
	virtual(t, `{"clients":{"x":{"key":"${env:GATEWAY_TEST_KEY}","models":["gpt-*","small"]}},"upstreams":{"a":{"url":"http://a/v1"},"b":{"url":"http://b/v1"}},
		"routes":[{"model":"gpt-*","groups":[{"upstreams":["a","b"]}]},{"model":"small","groups":[{"upstreams":["b"]}]},{"model":"secret","groups":[{"upstreams":["b"]}]}]}`,
		servers, func(t *testing.T, g *gateway) {
			key := []string{"Authorization", "Bearer secret"}
			var list struct {
				Data []struct{ ID string }
			}
			w := asked(t, g, "/v1/models", "", key...)
			require.NoError(t, json.Unmarshal(w.Body.Bytes(), &list))
			require.Equal(t, []struct{ ID string }{{"gpt-1"}, {"gpt-2"}, {"small"}}, list.Data)
			require.Contains(t, asked(t, g, "/v1/models/gpt-2", "", key...).Body.String(), `"owned_by":"a"`)
			for _, id := range []string{"tts", "secret", "none"} {
				require.Equal(t, 404, asked(t, g, "/v1/models/"+id, "", key...).Code, id)
			}
			require.Equal(t, 404, asked(t, g, chat, `{"model":"secret"}`, key...).Code)
		})
}

func TestServe_LimitsEachClientByItself(t *testing.T) {
	t.Setenv("GATEWAY_TEST_KEY", "secret")
	t.Setenv("GATEWAY_TEST_KEY_2", "other")
	var wait chan struct{} // made within the bubble
	servers := network{"a": func(_ *http.Request, body string) (int, string) {
		if strings.Contains(body, "slow") {
			<-wait
		}
		return 200, whole
	}}
	virtual(t, `{"clients":{"x":{"key":"${env:GATEWAY_TEST_KEY}","requests_per_minute":3,"concurrency":1},"y":{"key":"${env:GATEWAY_TEST_KEY_2}"}},
		"upstreams":{"a":{"url":"http://a/v1"}},"routes":[{"model":"*","groups":[{"upstreams":["a"]}]}]}`, servers, func(t *testing.T, g *gateway) {
		after := ""
		status := func(key, model string) int {
			w := asked(t, g, chat, `{"model":"`+model+`"}`, "Authorization", "Bearer "+key)
			after = w.Header().Get("Retry-After")
			return w.Code
		}
		wait = make(chan struct{})
		var slow sync.WaitGroup
		slow.Go(func() { status("secret", "slow") })
		synctest.Wait()
		require.Equal(t, 429, status("secret", "m"), "one at a time")
		require.Equal(t, "1", after)
		require.Equal(t, 200, status("other", "m"))
		wait <- struct{}{}
		slow.Wait()
		require.Equal(t, 200, status("secret", "m"))
		require.Equal(t, 200, status("secret", "m"))
		require.Equal(t, 429, status("secret", "m"), "three a minute")
		require.Equal(t, "21", after, "it says when the next one is admitted")
		require.Equal(t, 200, status("other", "m"))
		time.Sleep(20 * time.Second)
		require.Equal(t, 200, status("secret", "m"))
	})
}

func TestServe_RefusalByALimitOfAClientIsLogged(t *testing.T) {
	t.Setenv("GATEWAY_TEST_KEY", "secret")
	core, logged := observer.New(zap.InfoLevel)
	g := made(t, `{"clients":{"x":{"key":"${env:GATEWAY_TEST_KEY}","requests_per_minute":1}},"upstreams":{"a":{"url":"http://a/v1"}},
		"routes":[{"model":"m","groups":[{"upstreams":["a"]}]}]}`, network{"a": func(*http.Request, string) (int, string) { return 200, whole }}, zap.New(core))
	t.Cleanup(func() { require.NoError(t, g.close(context.WithoutCancel(t.Context()))) })
	require.Equal(t, 200, asked(t, g, chat, `{"model":"m"}`, "Authorization", "Bearer secret").Code)
	refused := asked(t, g, chat, `{"model":"m"}`, "Authorization", "Bearer secret")
	require.Equal(t, 429, refused.Code)
	found := logged.FilterMessage("a limit of a client is reached").All()
	require.Len(t, found, 1)
	require.Equal(t, map[string]any{"id": refused.Header().Get("X-Request-Id"), "client": "x"}, found[0].ContextMap())
}

func TestServe_FullQueueIsA429(t *testing.T) {
	t.Parallel()
	var release chan struct{} // made within the bubble
	servers := network{"a": func(*http.Request, string) (int, string) { <-release; return 200, whole }}
	virtual(t, `{"upstreams":{"a":{"url":"http://a/v1","limits":{"max_concurrent":1,"no_queue":true}}},"routes":[{"model":"m","groups":[{"upstreams":["a"]}]}]}`,
		servers, func(t *testing.T, g *gateway) {
			release = make(chan struct{})
			var first sync.WaitGroup
			first.Go(func() { asked(t, g, chat, `{"model":"m"}`) })
			synctest.Wait()
			w := asked(t, g, chat, `{"model":"m"}`)
			require.Equal(t, 429, w.Code)
			require.Equal(t, "1", w.Header().Get("Retry-After"))
			release <- struct{}{}
			first.Wait()
		})
}

func TestRoutes_RequestInFlightWhoseRouteIsRemovedIsToldSo(t *testing.T) {
	t.Parallel()
	var release chan struct{} // made within the bubble
	servers := network{"a": func(*http.Request, string) (int, string) { <-release; return 200, whole }}
	settings := func(model string) string {
		return `{"upstreams":{"a":{"url":"http://a/v1","limits":{"max_concurrent":1}}},"routes":[{"model":"` + model + `","groups":[{"upstreams":["a"]}]}]}`
	}
	virtual(t, settings("m"), servers, func(t *testing.T, g *gateway) {
		release = make(chan struct{})
		var sent sync.WaitGroup
		var first, queued *httptest.ResponseRecorder
		sent.Go(func() { first = asked(t, g, chat, `{"model":"m"}`) })
		synctest.Wait()
		sent.Go(func() { queued = asked(t, g, chat, `{"model":"m"}`) })
		synctest.Wait()
		next, err := config.ParseAs[Config]("text", []byte(settings("other")))
		require.NoError(t, err)
		require.NoError(t, g.apply(t.Context(), next))
		synctest.Wait()
		close(release)
		sent.Wait()
		require.Equal(t, 200, first.Code, first.Body)
		require.Equal(t, 404, queued.Code, queued.Body)
		require.Contains(t, queued.Body.String(), `"model_not_found"`)
	})
}

func TestServe_LetsPagesOfAllowedOriginsAsk(t *testing.T) {
	t.Parallel()
	virtual(t, `{"origins":["https://chat.example"],"upstreams":{"a":{"url":"http://a/v1"}},"routes":[{"model":"m","groups":[{"upstreams":["a"]}]}]}`,
		network{"a": answers(200, whole)}, func(t *testing.T, g *gateway) {
			for origin, want := range map[string]string{"https://chat.example": "https://chat.example", "https://other.example": ""} {
				r := httptest.NewRequestWithContext(t.Context(), http.MethodOptions, chat, http.NoBody)
				for name, value := range map[string]string{
					"Origin": origin, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type",
				} {
					r.Header.Set(name, value)
				}
				w := httptest.NewRecorder()
				g.ServeHTTP(w, r)
				require.Equal(t, want, w.Header().Get("Access-Control-Allow-Origin"))
				w = asked(t, g, chat, `{"model":"m"}`, "Origin", origin)
				require.Equal(t, 200, w.Code)
				require.Equal(t, want, w.Header().Get("Access-Control-Allow-Origin"))
			}
		})
}

// A name with a line break does not make a line.
func TestServe_LogsEachRequestAsOneLineOfJSON(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		log := zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), zapcore.Lock(zapcore.AddSync(&out)), zap.InfoLevel))
		g := made(t, `{"upstreams":{"a":{"url":"http://a/v1"}},"routes":[{"model":"*","groups":[{"upstreams":["a"]}]}]}`,
			network{"a": answers(200, `{"choices":[{}],"usage":{"prompt_tokens":5,"completion_tokens":6}}`)}, log)
		w := asked(t, g, "//v1/chat/completions", `{"model":"x\n2026/01/01 FORGED\u001b[0m"}`, "X-Request-Id", "mine")
		require.Equal(t, 200, w.Code, w.Body)
		require.Equal(t, "mine", w.Header().Get("X-Request-Id"))
		require.Equal(t, 404, asked(t, g, "/v1/none%0A", "").Code)
		require.NotEmpty(t, asked(t, g, "/v1/models", "").Header().Get("X-Request-Id"))
		require.NoError(t, g.close(context.WithoutCancel(t.Context())))
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		found := false
		for _, line := range lines {
			var entry map[string]any
			require.NoError(t, json.Unmarshal([]byte(line), &entry), line)
			if entry["msg"] == "request" {
				found = true
				require.Equal(t, "mine", entry["id"])
				require.Equal(t, "anonymous", entry["client"])
				require.Equal(t, "a", entry["upstream"])
				require.EqualValues(t, 5, entry["input_tokens"])
			}
		}
		require.True(t, found)
	})
}

// silent starts an upstream whose streams have a token, and then nothing until their client is gone.
func silent(t *testing.T) *httptest.Server {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, token)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}))
	t.Cleanup(server.Close)
	return server
}

// A stream that goes on for longer than the end of the program may take ends with an error that its client sees.
func TestMain_EndsStreamsInProgressWithAnError(t *testing.T) {
	t.Parallel()
	server := silent(t)
	file := filepath.Join(t.TempDir(), "gateway.json")
	require.NoError(t, os.WriteFile(file, []byte(`{"upstreams":{"a":{"url":"`+server.URL+`"}},"routes":[{"model":"a","groups":[{"upstreams":["a"]}]}]}`), 0o600))
	ctx, cancel := context.WithCancel(t.Context())
	var out lines
	ended := make(chan error, 1)
	go func() {
		ended <- run(ctx, []string{"-listen", "127.0.0.1:0", "-config", file, "-drain", "10ms"}, &out, nil)
	}()
	url := ""
	require.Eventually(t, func() bool {
		_, after, found := strings.Cut(out.String(), `"listening","url":"`)
		url, _, _ = strings.Cut(after, `"`)
		return found
	}, 10*time.Second, time.Millisecond)
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+chat, strings.NewReader(streamA))
	require.NoError(t, err)
	client := &http.Client{Transport: &http.Transport{}}
	response, err := client.Do(request)
	require.NoError(t, err)
	defer func() { _ = response.Body.Close() }()
	cancel()
	text, err := io.ReadAll(response.Body)
	require.NoError(t, err, "it is not cut")
	last, found := strings.CutPrefix(string(text), token+"data: ")
	require.True(t, found, string(text))
	require.Equal(t, "stream_interrupted", refusal(t, last).Code)
	require.NoError(t, <-ended)
	client.CloseIdleConnections()
}

func TestGateway_WhatItHasLearnedOutlivesAReload(t *testing.T) {
	t.Parallel()
	settings := over(upstream(t, http.StatusOK, whole))
	settings.Routes[0].Model = "a*"
	g, err := newGateway(t.Context(), settings, zap.NewNop(), http.DefaultTransport)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, g.close(context.WithoutCancel(t.Context()))) })
	server := httptest.NewServer(g)
	t.Cleanup(server.Close)
	r, _ := post(t, server.URL, `{"model":"a-1"}`)
	require.Equal(t, http.StatusOK, r.StatusCode)
	before, there := g.registry.Provider(Models.Name(), "a-1 at x")
	require.True(t, there)
	require.NoError(t, g.apply(t.Context(), settings))
	after, there := g.registry.Provider(Models.Name(), "a-1 at x")
	require.True(t, there)
	require.Equal(t, before, after, "and so does its provider: no request to it is lost")
	settings.Routes = settings.Routes[1:]
	require.NoError(t, g.apply(t.Context(), settings))
	_, there = g.registry.Provider(Models.Name(), "a-1 at x")
	require.False(t, there, "but not its route with a star")
	require.Empty(t, g.learned)
}
