package admin_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"html"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/admin"
	"github.com/capreg/registry/admin/action"
	"github.com/capreg/registry/health"
	"github.com/capreg/registry/status"
)

// consolePages are all pages of the scene.
func consolePages() []string {
	return []string{
		"/", "/?q=a", "/?state=open", "/service?name=payments", "/provider?service=payments&provider=stripe", "/explain", "/explain?service=chat&exclude=local",
		"/events", "/events?audits=true", "/startup", "/configuration", "/configuration?edit=true", "/fleet", "/fleet?node=agent-1", "/act?verb=reset", "/act?verb=set_priority&service=chat&provider=local",
		"/service?" + url.Values{"name": {hostileService}}.Encode(),
		"/provider?" + url.Values{"service": {hostileService}, "provider": {hostileProvider}}.Encode(),
		"/explain?" + url.Values{"service": {hostileService}}.Encode(), "/?" + url.Values{"q": {hostileService}}.Encode(),
		"/act?" + url.Values{"verb": {"drain"}, "service": {hostileService}, "provider": {hostileProvider}}.Encode(),
	}
}

// withPages returns the options with which a console has all of its pages.
func withPages(tb testing.TB, reg *registry.Registry) admin.Options {
	tb.Helper()
	return admin.Options{Authorize: allow, Orchestrator: orchestrator(tb, reg), Configuration: newConfiguration(tb, reg), Fleet: newFleet()}
}

func TestConsole_ShowsWhatIsWrongFirst(t *testing.T) {
	t.Parallel()
	s := consoleOf(t, newScene(t), admin.Options{})
	text := s.page(http.StatusOK, "/")
	before := -1
	for _, words := range []string{
		"2 services need attention", "no provider", ">payments<", "dial tcp 10.0.0.7:443: i/o timeout", "failed over to group 1", ">chat<", "429 of upstream",
		"Services", `id="s-name=payments" class="group bad" open`, `id="s-name=chat" class="group warn" open`, `id="s-name=embeddings" class="group good" data-open="0"`,
		"Recent events", "breaker",
	} {
		at := strings.Index(text[before+1:], words)
		require.GreaterOrEqual(t, at, 0, "%s comes next", words)
		before += at + 1
	}
	require.Contains(t, text, "next trial <time datetime=")
	require.Contains(t, text, `aria-label="2 attempts in the last minute, 2 failed"`)
	require.Contains(t, text, "read-only")
	require.NotContains(t, text, "Reset")
}

func TestConsole_PagesLoadNothingFromElsewhereAndHaveNoInlineCode(t *testing.T) {
	t.Parallel()
	reg := newScene(t)
	s := consoleOf(t, reg, withPages(t, reg))
	require.NoError(t, s.of("embeddings", "bert").MarkUnhealthy(errors.New(hostileText)))
	reference := regexp.MustCompile(`(?:href|src|action)="([^"]*)"`)
	for _, path := range consolePages() {
		answer := do(t, s.request(http.MethodGet, path, ""))
		require.Equal(t, http.StatusOK, answer.Status, path)
		require.Contains(t, answer.Header.Get("Content-Security-Policy"), "default-src 'none'; script-src 'self'; style-src 'self'")
		text := string(answer.Body)
		text = regexp.MustCompile(` value="[^"]*"`).ReplaceAllString(text, "") // what goes back as it is, and is not shown
		require.NotRegexp(t, `(?i) style=| on[a-z]+="|<style|javascript:|<script>|<img|<svg onload`, text, path)
		require.Equal(t, 1, strings.Count(text, "<script "), path)
		for _, hidden := range []string{"\u202e", "\u2066", "\r", "&#13;"} {
			require.NotContains(t, text, hidden, path)
		}
		for _, found := range reference.FindAllStringSubmatch(text, -1) {
			require.NotRegexp(t, `^(/|[a-z]+:[^,]|\.\./)`, html.UnescapeString(found[1]), "%s: links are relative", path)
		}
	}
	text := s.page(http.StatusOK, "/provider?"+url.Values{"service": {hostileService}, "provider": {hostileProvider}}.Encode())
	require.Contains(t, text, `a/b ..\u202e%0d%0aSet-Cookie: x=1 &lt;script&gt;alert(2)&lt;/script&gt;`)
	require.Contains(t, text, `&lt;/script&gt;&lt;svg onload=alert(3)&gt;\r\nX: \u2066y\u202e`, "the description")
}

func TestConsole_LinksOfHostileNamesLeadThere(t *testing.T) {
	t.Parallel()
	s := consoleOf(t, newScene(t), admin.Options{Authorize: allow})
	link := regexp.MustCompile(`href="(provider\?[^"]*img[^"]*)"`).FindStringSubmatch(s.page(http.StatusOK, "/service?"+url.Values{"name": {hostileService}}.Encode()))
	require.NotNil(t, link)
	text := s.page(http.StatusOK, "/"+html.UnescapeString(link[1]))
	act := regexp.MustCompile(`href="(act\?verb=drain[^"]*)"`).FindStringSubmatch(text)
	require.NotNil(t, act)
	require.Contains(t, s.page(http.StatusOK, "/"+html.UnescapeString(act[1])), "It gets no new calls")
	answer := s.submit("verb", "drain", "service", hostileService, "provider", hostileProvider, "tag", s.tag(hostileService, hostileProvider))
	require.Contains(t, s.follow(answer), "gets no new calls")
	require.Empty(t, answer.Header.Get("Set-Cookie"))
	require.Zero(t, s.of(hostileService, hostileProvider).Weight())
}

func TestConsole_ActsAndUndoes(t *testing.T) {
	t.Parallel()
	undoForm := regexp.MustCompile(`<input type="hidden" name="([^"]*)" value="([^"]*)">`)
	for _, test := range []struct {
		name string
		form []string
		done func(*registry.Registration) bool
		back bool // it can be undone
	}{
		{"drain", []string{"verb", "drain"}, func(r *registry.Registration) bool { return r.Weight() == 0 }, true},
		{"priority", []string{"verb", "set_priority", "priority", "low", "group", "4", "strategy", "ROUND_ROBIN"}, func(r *registry.Registration) bool {
			return r.Info().Group == 4 && r.Info().Priority == registry.PriorityLow && r.Info().Strategy.String() == "ROUND_ROBIN"
		}, true},
		{"weight", []string{"verb", "set_weight", "weight", "2.5"}, func(r *registry.Registration) bool { return r.Weight() == 2.5 }, true},
		{"limits", []string{"verb", "set_limits", "limits", `{"max_concurrent": 3}`}, func(r *registry.Registration) bool { return r.Limits().MaxConcurrent == 3 }, true},
		{"force open", []string{"verb", "force_open", "for", "10m"}, func(r *registry.Registration) bool { return r.Breaker().State == status.BreakerOpen }, true},
		{"mark", []string{"verb", "mark_unhealthy", "reason", "smells"}, func(r *registry.Registration) bool { return r.Health().State == health.Unhealthy }, true},
		{"probe", []string{"verb", "reset"}, func(r *registry.Registration) bool { return r.Breaker().State == status.BreakerClosed }, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, admin.Options{Authorize: allow})
			b := s.of("chat", "b")
			before := b.Info()
			form := append([]string{"service", "chat", "provider", "b", "tag", s.tag("chat", "b")}, test.form...)
			text := s.follow(s.submit(form...))
			require.True(t, test.done(b))
			require.Contains(t, text, "<strong>Done:</strong>")
			_, text, _ = strings.Cut(text, `id="done"`)
			text, _, _ = strings.Cut(text, "</div>")
			var undo []string
			for _, field := range undoForm.FindAllStringSubmatch(text, -1) {
				undo = append(undo, field[1], html.UnescapeString(field[2]))
			}
			require.Equal(t, test.back, len(undo) > 0)
			if !test.back {
				return
			}
			s.follow(s.submit(undo...))
			after := b.Info()
			require.False(t, test.done(b))
			require.Equal(t, []any{before.Weight, before.Priority, before.Group, before.Strategy.String(), before.Limits, before.Breaker.State, before.Health.State},
				[]any{after.Weight, after.Priority, after.Group, after.Strategy.String(), after.Limits, after.Breaker.State, after.Health.State})
		})
	}
}

func TestConsole_ResetsAllOfAService(t *testing.T) {
	t.Parallel()
	s := consoleOf(t, newScene(t), admin.Options{Authorize: allow})
	require.Contains(t, s.page(http.StatusOK, "/act?verb=reset&service=payments"), "all providers of payments")
	require.Contains(t, s.follow(s.submit("verb", "reset", "service", "payments")), "2 breakers reset, 2 of them not closed before")
	require.Equal(t, status.BreakerOpen, s.of("chat", "openai-eu").Breaker().State)
	s.follow(s.submit("verb", "reset"))
	require.Equal(t, status.BreakerClosed, s.of("chat", "openai-eu").Breaker().State)
}

func TestConsole_RefusalsArePagesAndChangeNothing(t *testing.T) {
	t.Parallel()
	s := newSite(t, admin.Options{Authorize: allow})
	before := s.of("chat", "a").Info().Definition
	tag := s.tag("chat", "a")
	for _, test := range []struct {
		status int
		words  string
		form   []string
	}{
		{http.StatusPreconditionFailed, "it was changed meanwhile", []string{"verb", "drain", "tag", `"old"`}},
		{http.StatusPreconditionRequired, "Look at it again", []string{"verb", "drain"}},
		{http.StatusUnprocessableEntity, "is no number", []string{"verb", "set_weight", "weight", "<b>", "tag", tag}},
		{http.StatusUnprocessableEntity, "priority", []string{"verb", "set_priority", "priority", "huge", "group", "1", "tag", tag}},
		{http.StatusUnprocessableEntity, "group", []string{"verb", "set_priority", "priority", "LOW", "group", "x", "tag", tag}},
		{http.StatusUnprocessableEntity, "limits", []string{"verb", "set_limits", "limits", "{", "tag", tag}},
		{http.StatusUnprocessableEntity, "for", []string{"verb", "force_open", "for", "long", "tag", tag}},
		{http.StatusNotFound, "no such action", []string{"verb", "destroy"}},
		{http.StatusNotFound, "no provider", []string{"verb", "drain", "provider", "<i>", "tag", tag}},
		{http.StatusRequestEntityTooLarge, "", nil},
	} {
		form := append([]string{"service", "chat", "provider", "a"}, test.form...)
		if test.form == nil {
			form = append(form, "verb", "drain", "reason", strings.Repeat("x", 65<<10))
			test.status = http.StatusBadRequest
		}
		answer := s.submit(form...)
		require.Equal(t, test.status, answer.Status, "%v: %s", test.form, answer.Body)
		require.Equal(t, "text/html; charset=utf-8", answer.Header.Get("Content-Type"))
		require.Contains(t, string(answer.Body), test.words)
		require.NotContains(t, string(answer.Body), "<b>")
	}
	require.Equal(t, before, s.of("chat", "a").Info().Definition)
	s.page(http.StatusNotFound, "/provider?service=chat&provider=none")
	s.page(http.StatusNotFound, "/service?name=none")
	s.page(http.StatusNotFound, "/act?verb=none")
	s.page(http.StatusNotFound, "/act?verb=drain&service=chat")
	s.page(http.StatusNotFound, "/startup")
}

func TestConsole_FormsOfOtherSitesChangeNothing(t *testing.T) {
	t.Parallel()
	s := newSite(t, admin.Options{Authorize: allow})
	for _, headers := range [][]string{
		{"Sec-Fetch-Site", "cross-site"},
		{"Sec-Fetch-Site", "same-site"},
		{"Origin", "https://evil.example"},
		{"Origin", "null"},
		{"Host", "evil.example", "Origin", "http://evil.example"},
	} {
		document := url.Values{"document": {translation}, "step": {"plan"}}
		answer := do(t, s.request(http.MethodPost, "/configuration", document.Encode(), append(headers, "Content-Type", "application/x-www-form-urlencoded")...))
		require.Contains(t, []int{http.StatusForbidden, http.StatusMisdirectedRequest}, answer.Status, headers)
		form := url.Values{"verb": {"drain"}, "service": {"chat"}, "provider": {"a"}, "tag": {s.tag("chat", "a")}}
		answer = do(t, s.request(http.MethodPost, "/act", form.Encode(), append(headers, "Content-Type", "application/x-www-form-urlencoded")...))
		require.Contains(t, []int{http.StatusForbidden, http.StatusMisdirectedRequest}, answer.Status, headers)
	}
	require.InDelta(t, 1, s.of("chat", "a").Weight(), 0)
	require.Equal(t, http.StatusMethodNotAllowed, do(t, s.request(http.MethodPost, "/provider", "{}")).Status)
}

func TestConsole_OffersWhatThePartyMayDo(t *testing.T) {
	t.Parallel()
	may := func(_ *http.Request, a action.Action) (string, error) {
		if a.Verb == action.Read || a.Verb == action.Drain {
			return "guest", nil
		}
		return "guest", errors.New("not you")
	}
	s := newSite(t, admin.Options{Authorize: may})
	text := s.page(http.StatusOK, "/provider?service=chat&provider=a")
	require.Contains(t, text, "act?verb=drain")
	require.NotContains(t, text, "act?verb=set_priority")
	require.Contains(t, s.page(http.StatusOK, "/act?verb=set_weight&service=chat&provider=a"), "You may not do this here")
	answer := s.submit("verb", "set_weight", "weight", "3", "service", "chat", "provider", "a", "tag", s.tag("chat", "a"))
	require.Equal(t, http.StatusForbidden, answer.Status)
	require.InDelta(t, 1, s.of("chat", "a").Weight(), 0)
}

func TestConsole_AsksForCredentials(t *testing.T) {
	t.Parallel()
	s := newSite(t, admin.Options{Authorize: admin.Tokens(map[string]string{"ops": "secret"}, nil)})
	answer := do(t, s.request(http.MethodGet, "/", ""))
	require.Equal(t, http.StatusUnauthorized, answer.Status)
	require.Contains(t, answer.Header.Values("Www-Authenticate"), `Basic realm="registry", charset="UTF-8"`)
	require.NotContains(t, string(answer.Body), "chat")
	r := s.request(http.MethodGet, "/", "")
	r.SetBasicAuth("any", "secret")
	require.Contains(t, string(do(t, r).Body), "chat")
}

func TestConsole_TenThousandProvidersAreSearchedAndPaged(t *testing.T) {
	t.Parallel()
	s := consoleOf(t, manyProviders(t, 10_000), admin.Options{})
	text := s.page(http.StatusOK, "/")
	require.Contains(t, text, "1000 services")
	require.Contains(t, text, `page 1 of 84, 1000 in all`)
	require.Contains(t, s.page(http.StatusOK, "/?page=84"), "service-0999")
	require.Contains(t, s.page(http.StatusOK, "/?page=99999"), "page 84 of 84")
	text = s.page(http.StatusOK, "/?q=provider-07777")
	require.Contains(t, text, "1 provider found")
	require.Contains(t, text, ">provider-07777<")
	require.Contains(t, s.page(http.StatusOK, "/?state=open"), "1429 providers found")
	require.Contains(t, s.page(http.StatusOK, "/?q=RACK+7000"), ">provider-07000<", "reasons are searched, in any case")
}

func TestConsole_PagesAreSmall(t *testing.T) {
	t.Parallel()
	reg := newScene(t)
	scene := consoleOf(t, reg, withPages(t, reg))
	many := consoleOf(t, manyProviders(t, 10_000), admin.Options{Authorize: allow})
	assets := 0
	text := scene.page(http.StatusOK, "/")
	for _, asset := range regexp.MustCompile(`(console\.[a-z]+\?v=[0-9a-f]+)`).FindAllString(text, -1) {
		answer := do(t, scene.request(http.MethodGet, "/"+asset, ""))
		require.Contains(t, answer.Header.Get("Cache-Control"), "immutable")
		assets += zipped(t, answer.Body)
	}
	require.NotZero(t, assets)
	for _, path := range consolePages() {
		require.Less(t, assets+zipped(t, []byte(scene.page(http.StatusOK, path))), 20_000, path)
	}
	for _, path := range []string{"/", "/?state=open", "/service?name=service-0001", "/events"} {
		size := assets + zipped(t, []byte(many.page(http.StatusOK, path)))
		t.Logf("%s: %d bytes with %d of assets", path, size, assets)
		require.Less(t, size, 20_000, path)
	}
}

func zipped(tb testing.TB, text []byte) int {
	tb.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, err := w.Write(text)
	require.NoError(tb, err)
	require.NoError(tb, w.Close())
	return out.Len()
}

func TestConsole_ExplainShowsTheTableBehindThePick(t *testing.T) {
	t.Parallel()
	s := consoleOf(t, newScene(t), admin.Options{})
	text := s.page(http.StatusOK, "/explain?service=chat")
	require.Contains(t, text, "<bdi>anthropic</bdi> would be picked now")
	require.Contains(t, text, "breaker open")
	require.Contains(t, s.page(http.StatusOK, "/explain?service=chat&exclude=anthropic,+local"), "No provider would be picked now")
	require.Contains(t, s.page(http.StatusNotFound, "/explain?service=none"), "there is no service")
}

const translation = "services:\n  translate:\n    providers:\n      - {name: deep, kind: model, settings: {language: de, api_key: written-out}}\n"

func TestConsole_PlansAppliesAndUndoesADocument(t *testing.T) {
	t.Parallel()
	reg := newScene(t)
	var kept audits
	s := consoleOf(t, reg, admin.Options{Authorize: allow, Configuration: newConfiguration(t, reg), Audit: kept.add})
	send := func(document string, pairs ...string) reply {
		return s.submitTo("/configuration", append([]string{"document", document}, pairs...)...)
	}
	field := func(text, name string) string {
		found := regexp.MustCompile(`name="` + name + `" value="([^"]*)"`).FindStringSubmatch(text)
		require.NotNil(t, found, "%s in %s", name, text)
		return html.UnescapeString(found[1])
	}
	apply := func(document string) string {
		answer := send(document)
		require.Equal(t, http.StatusOK, answer.Status, string(answer.Body))
		return s.follow(send(document, "step", "apply", "tag", field(string(answer.Body), "tag"), "digest", field(string(answer.Body), "digest")))
	}
	wrong := send(strings.Replace(translation, "kind", "kynd", 1))
	require.Equal(t, http.StatusUnprocessableEntity, wrong.Status)
	require.Contains(t, string(wrong.Body), "line 4, column 22")
	require.Contains(t, string(wrong.Body), "is <bdi>kind</bdi> meant?")
	require.Contains(t, string(send(translation).Body), "services.translate.providers[deep]: add")
	require.Empty(t, kept.take())

	require.Contains(t, apply(translation), "the document was applied")
	require.Len(t, reg.Registrations("translate"), 1)
	text := s.page(http.StatusOK, "/configuration?edit=true")
	require.NotContains(t, text, "written-out")
	require.Contains(t, text, "[secret]")
	other := strings.Replace(translation, "deep", "wide", 1)
	text = apply(other)
	require.Contains(t, text, "the document was applied")
	answer := s.submit("verb", "configure", "tag", field(text, "tag"))
	require.Contains(t, s.follow(answer), "the former document was applied")
	_, there := reg.Provider("translate", "deep")
	require.True(t, there)
	for _, r := range kept.take() {
		require.Equal(t, []any{action.Configure, action.Done, "ops"}, []any{r.Verb, r.Outcome, r.Actor})
		require.NotContains(t, r.Detail, "written-out")
	}
}

func TestConsole_DocumentsAreAsLongAsTheOptionSays(t *testing.T) {
	t.Parallel()
	reg := newScene(t)
	s := consoleOf(t, reg, admin.Options{Authorize: allow, Configuration: newConfiguration(t, reg), MaxDocument: 128 << 10})
	long := translation + "#" + strings.Repeat("ü\n#", 32<<10) // three bytes of the form for one, and more
	require.Less(t, len(long), 256<<10)
	require.Equal(t, http.StatusRequestEntityTooLarge, s.submitTo("/configuration", "document", long).Status)
	require.Equal(t, http.StatusOK, s.submitTo("/configuration", "document", long[:100<<10]).Status)
	require.Equal(t, http.StatusRequestEntityTooLarge, s.submitTo("/configuration", "document", strings.Repeat("x", 1<<20)).Status)
}

func TestConsole_StartupIsAPicture(t *testing.T) {
	t.Parallel()
	reg := newScene(t)
	s := consoleOf(t, reg, admin.Options{Authorize: allow, Orchestrator: orchestrator(t, reg)})
	text := s.page(http.StatusOK, "/startup")
	require.Contains(t, text, `<svg class="timeline"`)
	require.Equal(t, 3, strings.Count(text, `class="start"`))
	require.Contains(t, text, "&lt;b&gt;api&lt;/b&gt;")
	require.Contains(t, s.follow(s.submit("verb", "restart", "component", "cache")), "cache was restarted and is ready")
}

func BenchmarkConsole_Overview(b *testing.B) {
	for _, n := range []int{1000, 10_000} {
		b.Run("providers="+strconv.Itoa(n), func(b *testing.B) {
			s := consoleOf(b, manyProviders(b, n), admin.Options{})
			b.ReportAllocs()
			for b.Loop() {
				s.page(http.StatusOK, "/")
			}
		})
	}
}
