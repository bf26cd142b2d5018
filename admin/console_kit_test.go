package admin_test

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/admin"
	"github.com/capreg/registry/admin/configured"
	"github.com/capreg/registry/config"
	"github.com/capreg/registry/startup"
	"github.com/capreg/registry/verdict"
)

// Names that attack a page, a line or a header.
const (
	hostileService  = `<img src=x onerror=alert(1)>"'&`
	hostileProvider = "a/b ..\u202e%0d%0aSet-Cookie: x=1 <script>alert(2)</script>"
	hostileText     = "</script><svg onload=alert(3)>\r\nX: \u2066y\u202e"
)

// newScene fills a registry on a bad day: payments has no provider left, chat has failed over, one of many is drained,
// and a name is hostile.
func newScene(tb testing.TB) *registry.Registry {
	tb.Helper()
	reg, err := registry.New(registry.Options{Required: []string{"payments"}, Decisions: 100})
	require.NoError(tb, err)
	slow := registry.BreakerPolicy{FailureThreshold: 2, RecoveryTimeout: time.Hour}
	dead := func(text string) call { return func() error { return verdict.NotSent(errors.New(text)) } }
	payments, embeddings := registry.NewService[call]("payments"), registry.NewService[call]("embeddings")
	hostile := registry.NewService[call](hostileService)
	add(tb, reg, payments, registry.Provider[call]{Name: "stripe", Instance: dead("dial tcp 10.0.0.7:443: i/o timeout"), Breaker: slow, Limits: registry.LimitPolicy{MaxConcurrent: 4}})
	add(tb, reg, payments, registry.Provider[call]{Name: "adyen", Instance: dead("connection refused"), Breaker: slow, Group: 1})
	add(tb, reg, chat, registry.Provider[call]{Name: "openai-eu", Instance: dead("429 of upstream"), Breaker: slow})
	add(tb, reg, chat, registry.Provider[call]{Name: "anthropic", Group: 1, Capabilities: []string{"text"}})
	add(tb, reg, chat, registry.Provider[call]{Name: "local", Group: 1, Priority: registry.PriorityLow})
	drained := add(tb, reg, search, registry.Provider[call]{Name: "index-a"})
	add(tb, reg, search, registry.Provider[call]{Name: "index-b"})
	add(tb, reg, embeddings, registry.Provider[call]{Name: "bert"})
	add(tb, reg, hostile, registry.Provider[call]{Name: hostileProvider, Description: hostileText})
	_, err = drained.SetWeight(0)
	require.NoError(tb, err)
	for _, service := range []registry.Service[call]{payments, chat, search, embeddings} {
		for range 6 {
			_ = service.Bind(reg, registry.Query{}).Do(tb.Context(), func(_ context.Context, c call) error { return c() })
		}
	}
	return reg
}

// consoleOf serves the console of a registry that has its providers, below a prefix.
func consoleOf(tb testing.TB, reg *registry.Registry, options admin.Options) *site {
	tb.Helper()
	handler, err := admin.New(reg, options)
	require.NoError(tb, err)
	return siteOf(tb, reg, handler)
}

// page returns the text of a page with the status that is expected.
func (s *site) page(status int, path string, headers ...string) string {
	s.t.Helper()
	answer := do(s.t, s.request(http.MethodGet, path, "", headers...))
	require.Equal(s.t, status, answer.Status, string(answer.Body))
	require.Equal(s.t, "text/html; charset=utf-8", answer.Header.Get("Content-Type"), path)
	return string(answer.Body)
}

// submit sends a form as a browser does, given as names and values.
func (s *site) submit(pairs ...string) reply {
	s.t.Helper()
	return s.submitTo("/act", pairs...)
}

// submitTo is submit for another page.
func (s *site) submitTo(path string, pairs ...string) reply {
	s.t.Helper()
	form := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		form.Set(pairs[i], pairs[i+1])
	}
	return do(s.t, s.request(http.MethodPost, path, form.Encode(),
		"Content-Type", "application/x-www-form-urlencoded", "Sec-Fetch-Site", "same-origin", "Origin", s.server.URL))
}

// follow returns the page that an action leads to.
func (s *site) follow(r reply) string {
	s.t.Helper()
	require.Equal(s.t, http.StatusSeeOther, r.Status, string(r.Body))
	return s.page(http.StatusOK, "/"+strings.TrimPrefix(r.Header.Get("Location"), "./"))
}

// tag returns the tag of a provider's settings.
func (s *site) tag(service, provider string) string {
	s.t.Helper()
	return s.get(http.StatusOK, "/v1/runtime/providers/x?"+url.Values{"service": {service}, "provider": {provider}}.Encode()).Header.Get("ETag")
}

func (s *site) of(service, provider string) *registry.Registration {
	s.t.Helper()
	handle, ok := s.reg.Provider(service, provider)
	require.True(s.t, ok)
	return handle
}

// newConfiguration manages the documents of a registry, whose providers are of the service translate.
func newConfiguration(tb testing.TB, reg *registry.Registry) admin.Configuration {
	tb.Helper()
	type settings struct {
		Language string        `json:"language"`
		Key      config.Secret `json:"api_key"`
	}
	options := config.Options{Kinds: []config.Kind{
		config.Bind(registry.NewService[call]("translate"), "model", func(context.Context, settings) (call, error) { return func() error { return nil }, nil }),
	}}
	manager, err := config.New(reg, options)
	require.NoError(tb, err)
	return configured.By(manager, options)
}

// orchestrator returns one that has started three components.
func orchestrator(tb testing.TB, reg *registry.Registry) *registry.Orchestrator {
	tb.Helper()
	start := func(context.Context, *startup.Run) error { return nil }
	o, err := registry.NewOrchestrator(reg, startup.Options{},
		registry.Component{Name: "database", Provides: []string{"rows"}, Start: start},
		registry.Component{Name: "cache", Start: start},
		registry.Component{Name: "<b>api</b>", Needs: startup.Capabilities("rows"), Start: start})
	require.NoError(tb, err)
	_, err = o.Start(tb.Context())
	require.NoError(tb, err)
	tb.Cleanup(func() { require.NoError(tb, o.Stop(context.WithoutCancel(tb.Context()))) })
	return o
}
