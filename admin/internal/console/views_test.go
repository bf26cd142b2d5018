package console_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/admin/internal/control"
	"github.com/capreg/registry/health"
	"github.com/capreg/registry/verdict"
)

// badDay makes chat fail over, takes all of payments away, and gives a service and a provider hostile names.
func badDay(t *testing.T) *site {
	t.Helper()
	reg, err := registry.New(registry.Options{Required: []string{"payments"}})
	require.NoError(t, err)
	s := serve(t, reg, control.Options{})
	policy := registry.BreakerPolicy{FailureThreshold: 2, RecoveryTimeout: time.Hour}
	fails := func(text string) call { return func() error { return verdict.NotSent(errors.New(text)) } }
	payments, embeddings := registry.NewService[call]("payments"), registry.NewService[call]("embeddings")
	s.add(payments, registry.Provider[call]{Name: "stripe", Instance: fails("i/o timeout"), Breaker: policy})
	s.add(chat, registry.Provider[call]{Name: "openai", Instance: fails("429 of upstream"), Breaker: policy})
	s.add(chat, registry.Provider[call]{Name: "anthropic", Group: 1, Capabilities: []string{"text"}})
	s.add(search, registry.Provider[call]{Name: "index-a", Limits: registry.LimitPolicy{MaxConcurrent: 4, MaxQueue: 2, Rate: 5}})
	s.add(search, registry.Provider[call]{Name: "index-b"})
	s.add(embeddings, registry.Provider[call]{
		Name: "bert", Handler: "H", Version: "1.2", Endpoint: "https://bert.example", Description: "<b>small</b>", Tags: []string{"eu"}, Team: "search",
	})
	_, err = s.of("search", "index-b").SetWeight(0)
	require.NoError(t, err)
	for _, service := range []registry.Service[call]{payments, chat, search} {
		s.calls(service, 3)
	}
	return s
}

func TestOverview_HasTheWorstFirst(t *testing.T) {
	t.Parallel()
	s := badDay(t)
	text := s.page(http.StatusOK, "/")
	shows(t, text, "<title>2 services need attention", "4 services, 3 of 6 providers in use",
		"Needs attention", "no provider", ">payments<", "required", "1 breaker not closed", ">stripe<", "next trial", "i/o timeout", "failed over to group 1", ">chat<", "429 of upstream",
		"Services", `id="s-name=payments" class="group bad" open`, `id="s-name=chat" class="group warn" open`, `id="s-name=embeddings" class="group good" data-open="0"`,
		"Recent events", "Reset all breakers")
	well := newSite(t, control.Options{})
	shows(t, well.page(http.StatusOK, "/"), "<title>Registry", "Nothing: all 2 services have a provider in the first group")
	reg, err := registry.New(registry.Options{})
	require.NoError(t, err)
	shows(t, serve(t, reg, control.Options{}).page(http.StatusOK, "/"), "There is no service yet", "Nothing has happened yet")
}

// However much is wrong, the page is of a bounded size.
func TestOverview_IsBounded(t *testing.T) {
	t.Parallel()
	s := newSite(t, control.Options{})
	for i := range 30 {
		service := registry.NewService[call](fmt.Sprintf("s%02d", i))
		for j := range 10 {
			require.NoError(t, s.add(service, registry.Provider[call]{Name: fmt.Sprintf("p%02d-%d", i, j)}).ForceOpen(time.Hour, "maintenance"))
		}
	}
	text := s.page(http.StatusOK, "/")
	shows(t, text, "30 services need attention", "and 22 other services, listed below", "page 1 of 3, 32 in all")
	count := func(words string) int { return strings.Count(text, words) }
	require.Equal(t, 6, count(`data-open="1"`), "the worst ones are open")
	require.Equal(t, 12, count(`<details id="s-`))
	require.Equal(t, 36, count(`<tr id="r`), "three providers of each")
	shows(t, text, "All 10 providers of")
}

func TestOverview_SearchesProviders(t *testing.T) {
	t.Parallel()
	s := badDay(t)
	require.NoError(t, s.of("embeddings", "bert").MarkUnhealthy(errors.New("smells")))
	s.add(search, registry.Provider[call]{Name: "slow", Health: health.Policy{Probe: func(context.Context) error { return health.Limp(errors.New("slow")) }}})
	_, err := s.of("search", "slow").CheckHealth(t.Context())
	require.NoError(t, err)
	for search, found := range map[string][]string{
		"q=IO/&q=":        nil,
		"q=index":         {"2 providers found", ">index-b<", ">index-a<"},
		"q=I%2FO+TIMEOUT": {"1 provider found", ">stripe<", "of <bdi>payments</bdi>"},
		"state=out":       {"4 providers found"},
		"state=open":      {"2 providers found", "stripe"},
		"state=unhealthy": {"1 provider found", ">bert<", "smells"},
		"state=drained":   {"1 provider found", ">index-b<"},
		"state=degraded":  {"1 provider found", ">slow<"},
		"state=none":      {"7 providers found"},
		"q=zzz":           {"All services", "0 providers found"},
	} {
		shows(t, s.page(http.StatusOK, "/?"+search), found...)
	}
}

func TestService_HasItsProvidersAndEvents(t *testing.T) {
	t.Parallel()
	s := badDay(t)
	shows(t, s.page(http.StatusOK, "/service?name=payments"), "<title>payments", "no provider", "required", "0 of 1 provider in use", "3 look-ups", "Explain a query", "stripe", "Recent events")
	s.until("/service?name=payments", "Recent events", "opened", "stripe")
	shows(t, s.page(http.StatusNotFound, "/service?name=none"), "There is no service of that name", "Overview")
}

func TestProvider_HasAllThatIsKnown(t *testing.T) {
	t.Parallel()
	s := badDay(t)
	shows(t, s.page(http.StatusOK, "/provider?service=payments&provider=stripe"), ">payments<", "breaker open", ">stripe<", "Actions", "Reset breaker…", "Force open…", "State", "it has no probe",
		"opened once", "Last error", "i/o timeout", "2 attempts in the last minute, 2 failed", "Attempts", "no bound on calls at a time", "group 0, priority NORMAL, strategy FALLBACK", "Recent events")
	shows(t, s.page(http.StatusOK, "/provider?service=search&provider=index-a"), "0 of 4 places taken", "0 of 2 queued", "5 a second for each caller")
	shows(t, s.page(http.StatusOK, "/provider?service=search&provider=index-b"), "drained", "Undrain…", "(drained from 1)")
	shows(t, s.page(http.StatusOK, "/provider?service=embeddings&provider=bert"), "no attempts", "Handler", ">H<", "Version", "1.2", "Endpoint", "https://bert.example", "&lt;b&gt;small&lt;/b&gt;", "Tags", "eu", "Team", "search")
	require.NoError(t, s.of("embeddings", "bert").MarkUnhealthy(errors.New("smells")))
	shows(t, s.page(http.StatusOK, "/provider?service=embeddings&provider=bert"), "Mark healthy…", "Health so far", "smells")
	shows(t, s.page(http.StatusOK, "/provider?provider=stripe"), ">stripe<")
	s.page(http.StatusNotFound, "/provider?service=payments&provider=none")
	s.add(search, registry.Provider[call]{Name: "stripe"})
	s.page(http.StatusConflict, "/provider?provider=stripe")
}

func TestEvents_AreFilteredAndPaged(t *testing.T) {
	t.Parallel()
	s := newSite(t, control.Options{})
	for i := range 35 {
		s.follow(s.submit("/act", "verb", "force_open", "service", "chat", "provider", "a", "tag", "*", "for", "1h", "reason", fmt.Sprintf("reason %d", i)))
		s.follow(s.submit("/act", "verb", "reset", "service", "chat", "provider", "a"))
	}
	s.submit("/act", "verb", "restart", "component", "none", "reason", "why not")
	text := s.page(http.StatusOK, "/events?audits=true&service=")
	shows(t, text, "checked> Only changes by operators", "restart invalid", "none: ", "why not", "force open done", "reason 34", "by", "ops", "page 1 of 2, 71 in all")
	shows(t, s.page(http.StatusOK, "/events?audits=true&page=2"), "reason 0")
	s.until("/events?service=chat", "Events of <bdi>chat</bdi>", "closed → open")
	shows(t, s.page(http.StatusOK, "/events?service=none"), "Nothing has happened yet")
	shows(t, s.page(http.StatusOK, "/provider?service=chat&provider=a"), "Recent events", "reason 34")
}

func TestExplain_HasTheTableBehindThePick(t *testing.T) {
	t.Parallel()
	s := badDay(t)
	shows(t, s.page(http.StatusOK, "/explain"), "Explain a query", `<option value="chat">`)
	text := s.page(http.StatusOK, "/explain?service=chat")
	shows(t, text, "<bdi>anthropic</bdi> would be picked now", "openai", "breaker open", "back in", "last error", "anthropic", "eligible", "the first that can be asked", "Numbers of the service")
	shows(t, s.page(http.StatusOK, "/explain?"+url.Values{"service": {"chat"}, "exclude": {"anthropic, ,openai"}}.Encode()), `value="anthropic, ,openai"`, "No provider would be picked now")
	shows(t, s.page(http.StatusOK, "/explain?service=chat&require=text&caller=me&near=eu&key=k"), "anthropic</bdi> would be picked now")
	shows(t, s.page(http.StatusNotFound, "/explain?service=none"), "there is no service")
}
