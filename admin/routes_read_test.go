package admin_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/admin"
)

var errDown = errors.New("down")

func TestHealth_CountsServicesAndRecommends(t *testing.T) {
	t.Parallel()
	s := newSite(t, admin.Options{})
	read := func() map[string]any { return s.get(http.StatusOK, "/v1/runtime/services/health").json() }
	h := read()
	require.Equal(t, "healthy", h["overall_health"])
	require.EqualValues(t, 2, h["total_services"])
	require.EqualValues(t, 2, h["healthy_services"])
	require.Empty(t, h["recommendations"])
	require.Len(t, h["details"], 2)

	require.NoError(t, s.provider("c").ForceOpen(time.Hour, "by hand"))
	require.NoError(t, s.provider("a").MarkUnhealthy(errDown))
	_, err := s.provider("b").SetWeight(0)
	require.NoError(t, err)
	h = read()
	require.Equal(t, "unhealthy", h["overall_health"], "chat is required")
	text := fmt.Sprint(h["recommendations"])
	for _, part := range []string{
		`service "chat" has no provider for a call`, `service "search" has no provider for a call`, `provider "a" of service "chat" is unhealthy: `,
		`provider "b" of service "chat" is drained: undrain it`, `provider "c" of service "search" has its breaker open: by hand; it is tried again by itself, and a reset closes it now`,
	} {
		require.Contains(t, text, part)
	}
	require.Equal(t, `service "chat"`, fmt.Sprint(h["recommendations"].([]any)[0])[:len(`service "chat"`)], "the worst comes first")
}

func TestProbes_FollowTheirGroups(t *testing.T) {
	t.Parallel()
	s := newSite(t, admin.Options{Authorize: admin.Tokens(nil, nil)})
	s.get(http.StatusUnauthorized, "/v1/runtime/services")
	require.Equal(t, "healthy", s.get(http.StatusOK, "/readyz").json()["status"])
	for _, name := range []string{"a", "b"} {
		require.NoError(t, s.provider(name).MarkUnhealthy(errDown))
	}
	require.Equal(t, "unhealthy", s.get(http.StatusServiceUnavailable, "/readyz", "Host", "10.1.2.3:8080").json()["status"])
	s.get(http.StatusOK, "/livez", "Host", "any.name")
}

func TestServices_AreFilteredAndInPages(t *testing.T) {
	t.Parallel()
	s := newSite(t, admin.Options{})
	names := func(query string) (names []string, next string) {
		answer := s.get(http.StatusOK, "/v1/runtime/services?"+query).json()
		for _, service := range answer["services"].([]any) {
			names = append(names, service.(map[string]any)["name"].(string))
		}
		next, _ = answer["next_page_token"].(string)
		return names, next
	}
	require.NoError(t, s.provider("c").MarkUnhealthy(errDown))
	for query, want := range map[string][]string{
		"": {"chat", "search"}, "state=unhealthy": {"search"}, "capability=text": {"chat"}, "search=SEA": {"search"}, "search=b": {"chat"}, "state=degraded": nil,
	} {
		found, _ := names(query)
		require.Equal(t, want, found, query)
	}
	first, next := names("limit=1")
	require.Equal(t, []string{"chat"}, first)
	second, last := names("limit=1&page_token=" + url.QueryEscape(next))
	require.Equal(t, []string{"search"}, second)
	require.Empty(t, last)
	s.get(http.StatusUnprocessableEntity, "/v1/runtime/services?limit=0")
	s.get(http.StatusUnprocessableEntity, "/v1/runtime/services?state=ill")
}

func TestProviders_AreFilteredAndInPages(t *testing.T) {
	t.Parallel()
	s := newSite(t, admin.Options{})
	for i := range 25 {
		add(t, s.reg, search, registry.Provider[call]{Name: fmt.Sprintf("p%02d", i), Group: 1})
	}
	require.NoError(t, s.provider("p07").ForceOpen(time.Hour, "disk is full"))
	require.NoError(t, s.provider("p08").MarkUnhealthy(errDown))
	names := func(query string) (names []string, total float64, next string) {
		answer := s.get(http.StatusOK, "/v1/runtime/providers?"+query).json()
		for _, provider := range answer["providers"].([]any) {
			names = append(names, provider.(map[string]any)["provider"].(string))
		}
		next, _ = answer["next_page_token"].(string)
		return names, answer["total_providers"].(float64), next
	}
	for query, want := range map[string][]string{
		"service=chat": {"a", "b"}, "circuit_breaker=open": {"p07"}, "state=unhealthy": {"p08"}, "code=breaker_open": {"p07"},
		"capability=text": {"a", "b"}, "search=DISK": {"p07"}, "ineligible=true": {"p07", "p08"}, "service=none": nil,
	} {
		found, total, _ := names(query)
		require.Equal(t, want, found, query)
		require.InDelta(t, len(want), total, 0)
	}
	var all []string
	token := ""
	for pages := 1; ; pages++ {
		page, total, next := names("limit=10&page_token=" + token)
		require.InDelta(t, 28, total, 0)
		all = append(all, page...)
		if token = next; token == "" {
			require.Equal(t, 3, pages)
			break
		}
	}
	require.Len(t, all, 28)
	require.ElementsMatch(t, all, unique(all), "each once")
	s.get(http.StatusUnprocessableEntity, "/v1/runtime/providers?page_token=nonsense")
}

func unique(all []string) (once []string) {
	seen := map[string]bool{}
	for _, one := range all {
		if !seen[one] {
			seen[one], once = true, append(once, one)
		}
	}
	return once
}

func TestSelection_ExplainsAConcreteQuery(t *testing.T) {
	t.Parallel()
	s := newSite(t, admin.Options{})
	add(t, s.reg, chat, registry.Provider[call]{Name: "own", Handler: "guest", Capabilities: []string{"text", "vision"}, Tags: []string{"eu"}, Version: "2", Cost: 3})
	require.NoError(t, chat.Bind(s.reg, registry.Query{}).Do(t.Context(), func(context.Context, call) error { return nil }))
	for query, want := range map[string]string{
		"": "a", "&exclude=a": "b", "&exclude=a&exclude=b": "", "&handler=guest": "own", "&handler=guest&require=text&require=vision": "own",
		"&only=b": "b", "&handler=guest&own_only=true&tag=eu&min_version=1": "own", "&handler=guest&own_only=true&max_cost=1": "",
		"&require=none": "", "&max_latency=1s&prefer=text&near=eu&key=k&caller=c": "a",
	} {
		answer := s.get(http.StatusOK, "/v1/runtime/services/selection?service=chat"+query).json()
		require.Equal(t, want, answer["explanation"].(map[string]any)["winner"], query)
		require.NotEmpty(t, answer["text"])
	}
	analytics := s.get(http.StatusOK, "/v1/runtime/services/selection?service=chat").json()["analytics"].(map[string]any)
	require.EqualValues(t, 1, analytics["attempts"], "explaining counts nothing")
	s.get(http.StatusNotFound, "/v1/runtime/services/selection?service=none")
	s.get(http.StatusUnprocessableEntity, "/v1/runtime/services/selection")
	s.get(http.StatusUnprocessableEntity, "/v1/runtime/services/selection?service=chat&own_only=true")
	s.get(http.StatusUnprocessableEntity, "/v1/runtime/services/selection?service=chat&max_latency=soon")
	decisions := s.get(http.StatusOK, "/v1/runtime/decisions?service=chat").json()["decisions"].([]any)
	require.Len(t, decisions, 1)
	require.Empty(t, s.get(http.StatusOK, "/v1/runtime/decisions?service=search").json()["decisions"])
}

func TestWhatIf_AsksWithoutSomeProviders(t *testing.T) {
	t.Parallel()
	s := newSite(t, admin.Options{})
	before := fingerprint(t, s.reg)
	ask := func(status int, body string) map[string]any {
		answer := s.send(http.MethodPost, "/v1/runtime/what-if", body)
		require.Equal(t, status, answer.Status, string(answer.Body))
		return answer.json()
	}
	found := ask(http.StatusOK, `{"service": "chat", "query": {"require": ["text"]}, "without": ["a"]}`)
	require.Equal(t, true, found["changed"])
	require.Equal(t, "b would be picked instead of a", found["message"])
	require.Equal(t, "no provider would be picked", ask(http.StatusOK, `{"service": "chat", "without": ["a", "b"]}`)["message"])
	require.Equal(t, "a would be picked as now", ask(http.StatusOK, `{"service": "chat", "without": ["b"]}`)["message"])
	ask(http.StatusUnprocessableEntity, `{"without": ["b"]}`)
	ask(http.StatusUnprocessableEntity, `{"service": "chat", "query": {"wants": 1}}`)
	ask(http.StatusNotFound, `{"service": "none"}`)
	require.Equal(t, before, fingerprint(t, s.reg))
}

func TestSnapshot_IsNotSentAgain(t *testing.T) {
	t.Parallel()
	s := newSite(t, admin.Options{Authorize: allow})
	first := s.get(http.StatusOK, "/v1/runtime/snapshot")
	tag := first.Header.Get("ETag")
	s.get(http.StatusNotModified, "/v1/runtime/snapshot", "If-None-Match", `"other", W/`+tag)
	s.get(http.StatusOK, "/v1/runtime/snapshot", "If-None-Match", `"other"`)
	s.change(http.StatusOK, http.MethodPost, providerPath("a", "/drain"), `{}`)
	second := s.get(http.StatusOK, "/v1/runtime/snapshot", "If-None-Match", tag)
	require.Contains(t, string(second.Body), `"weight":0`, "a change is seen at once")
	head := do(t, s.request(http.MethodHead, "/v1/runtime/snapshot", ""))
	require.Equal(t, http.StatusOK, head.Status)
	require.Empty(t, head.Body)
}

func TestNew_RefusesWhatIsOutOfBounds(t *testing.T) {
	t.Parallel()
	s := newSite(t, admin.Options{})
	for field, options := range map[string]admin.Options{
		"Options.Events": {Events: -1}, "Options.Streams": {Streams: 1 << 30}, "Options.ChangesPerSecond": {ChangesPerSecond: -1},
		"Options.ChangesAtOnce": {ChangesAtOnce: -1}, "Options.MaxDocument": {MaxDocument: -1}, "Options.Hosts[1]": {Hosts: []string{"a", "b:80"}},
		"Options.Hosts[0]": {Hosts: []string{"Upper"}}, "Options.TrustedOrigins[0]": {TrustedOrigins: []string{"ops.example"}},
	} {
		_, err := admin.New(s.reg, options)
		var refused *registry.FieldError
		require.ErrorAs(t, err, &refused, field)
		require.Equal(t, field, refused.Field)
		require.ErrorIs(t, err, registry.ErrInvalid)
	}
	_, err := admin.New(nil, admin.Options{})
	require.ErrorIs(t, err, registry.ErrInvalid)
}

func TestHosts_ThatAreListedAreServed(t *testing.T) {
	t.Parallel()
	s := newSite(t, admin.Options{Hosts: []string{"agent.internal"}, TrustedOrigins: []string{"https://ops.example"}, Authorize: allow})
	for host, status := range map[string]int{
		"agent.internal": 200, "agent.internal:8080": 200, "AGENT.internal.": 200, "localhost:1": 200, "[::1]:80": 200, "10.0.0.1": 200,
		"other.internal": 421, "agent.internal.evil.example": 421, "agent": 421,
	} {
		s.get(status, "/v1/runtime/services", "Host", host)
	}
	s.change(http.StatusOK, http.MethodPost, providerPath("a", "/drain"), `{}`, "Origin", "https://ops.example", "Sec-Fetch-Site", "cross-site")
	open := newSite(t, admin.Options{Hosts: []string{"*"}})
	open.get(http.StatusOK, "/v1/runtime/services", "Host", "what.ever")
}
