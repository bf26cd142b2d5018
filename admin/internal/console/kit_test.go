package console_test

import (
	"context"
	"errors"
	"html"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/capreg/registry"
	"github.com/capreg/registry/admin/action"
	"github.com/capreg/registry/admin/internal/console"
	"github.com/capreg/registry/admin/internal/control"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// call is the type of all providers of these tests.
type call func() error

var chat, search = registry.NewService[call]("chat"), registry.NewService[call]("search")

func works() error { return nil }

// site is a registry with the pages of its console.
type site struct {
	t   testing.TB
	reg *registry.Registry
	mux *http.ServeMux
	// authorize is that of all requests; nil: nothing can be changed.
	authorize func(action.Action) (string, error)
}

func allow(action.Action) (string, error) { return "ops", nil }

// newSite returns the console of a registry with the providers a and b of chat, and c of search.
func newSite(tb testing.TB, options control.Options) *site {
	tb.Helper()
	reg, err := registry.New(registry.Options{Required: []string{"chat"}})
	require.NoError(tb, err)
	s := serve(tb, reg, options)
	s.add(chat, registry.Provider[call]{Name: "a", Capabilities: []string{"text"}})
	s.add(chat, registry.Provider[call]{Name: "b"})
	s.add(search, registry.Provider[call]{Name: "c", Limits: registry.LimitPolicy{MaxConcurrent: 4, MaxQueue: 2}})
	return s
}

func serve(tb testing.TB, reg *registry.Registry, options control.Options) *site {
	tb.Helper()
	options.Events, options.ChangesPerSecond, options.ChangesAtOnce = 1000, 1000, 1000
	c := control.New(reg, options)
	s := &site{t: tb, reg: reg, mux: http.NewServeMux(), authorize: allow}
	console.New(console.Options{
		Control: c, MaxDocument: 10_000,
		Startup: options.Orchestrator != nil, Configured: options.Configuration != nil, Fleet: options.Fleet != nil,
		Party: func(*http.Request) control.Party { return control.Party{Authorize: s.authorize, Remote: "10.0.0.1"} },
		Status: func(err error) (int, http.Header) {
			var refusal *control.Error
			require.ErrorAs(tb, err, &refusal)
			status := map[control.Kind]int{
				control.NotFound: 404, control.Stale: 412, control.Unconditional: 428, control.Denied: 403, control.ReadOnly: 403, control.Conflict: 409,
				control.Unauthenticated: 401, control.Invalid: 422, control.Ambiguous: 409, control.Failed: 502,
			}[refusal.Kind]
			return status, http.Header{"Etag": {refusal.Tag}, "Retry-After": {"1"}}
		},
	}).AddRoutes(s.mux)
	tb.Cleanup(func() {
		c.Close()
		require.NoError(tb, reg.Close(context.WithoutCancel(tb.Context())))
	})
	return s
}

func (s *site) add(service registry.Service[call], p registry.Provider[call]) *registry.Registration {
	s.t.Helper()
	if p.Instance == nil {
		p.Instance = works
	}
	handle, err := service.Register(s.t.Context(), s.reg, p)
	require.NoError(s.t, err)
	return handle
}

func (s *site) of(service, provider string) *registry.Registration {
	s.t.Helper()
	handle, ok := s.reg.Provider(service, provider)
	require.True(s.t, ok)
	return handle
}

func (s *site) do(method, path, body string) *httptest.ResponseRecorder {
	s.t.Helper()
	r := httptest.NewRequestWithContext(s.t.Context(), method, path, strings.NewReader(body))
	if body != "" {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	w := httptest.NewRecorder()
	s.mux.ServeHTTP(w, r)
	return w
}

// page returns the text of a page.
func (s *site) page(status int, path string) string {
	s.t.Helper()
	w := s.do(http.MethodGet, path, "")
	require.Equal(s.t, status, w.Code, "%s: %s", path, w.Body)
	require.Equal(s.t, "text/html; charset=utf-8", w.Header().Get("Content-Type"), path)
	require.Empty(s.t, w.Header().Get("Etag"), "tags are those of settings, not of pages")
	return w.Body.String()
}

// submit sends a form, given as names and values.
func (s *site) submit(path string, pairs ...string) *httptest.ResponseRecorder {
	s.t.Helper()
	form := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		form.Set(pairs[i], pairs[i+1])
	}
	return s.do(http.MethodPost, path, form.Encode())
}

// refused sends a form that is refused, and returns the page that says so.
func (s *site) refused(status int, path string, pairs ...string) string {
	s.t.Helper()
	w := s.submit(path, pairs...)
	require.Equal(s.t, status, w.Code, w.Body)
	return w.Body.String()
}

// follow returns the page that an action leads to.
func (s *site) follow(w *httptest.ResponseRecorder) string {
	s.t.Helper()
	require.Equal(s.t, http.StatusSeeOther, w.Code, w.Body)
	return s.page(http.StatusOK, "/"+strings.TrimPrefix(w.Header().Get("Location"), "./"))
}

var fieldOfForm = regexp.MustCompile(`<input type="hidden" name="([^"]*)" value="([^"]*)">`)

// fields returns the hidden fields of the first form after a text, as names and values.
func fields(tb testing.TB, page, after string) (pairs []string) {
	tb.Helper()
	_, rest, found := strings.Cut(page, after)
	require.True(tb, found, "%s in %s", after, page)
	rest, _, _ = strings.Cut(rest, "</form>")
	for _, field := range fieldOfForm.FindAllStringSubmatch(rest, -1) {
		pairs = append(pairs, field[1], html.UnescapeString(field[2]))
	}
	return pairs
}

// undo returns the fields of the form that takes back what was done.
func undo(tb testing.TB, page string) []string {
	tb.Helper()
	_, rest, found := strings.Cut(page, `id="done"`)
	require.True(tb, found, page)
	rest, _, _ = strings.Cut(rest, "</div>")
	if !strings.Contains(rest, "<form") {
		return nil
	}
	return fields(tb, rest, "<form")
}

// shows checks that words stand on a page in that order.
func shows(tb testing.TB, page string, words ...string) {
	tb.Helper()
	rest := page
	for _, word := range words {
		_, after, found := strings.Cut(rest, word)
		require.True(tb, found, "%q comes next in %s", word, page)
		rest = after
	}
}

// until waits until words stand on a page in that order: events come a moment later.
func (s *site) until(path string, words ...string) {
	s.t.Helper()
	require.Eventually(s.t, func() bool {
		rest := s.page(http.StatusOK, path)
		for _, word := range words {
			_, after, found := strings.Cut(rest, word)
			if !found {
				return false
			}
			rest = after
		}
		return true
	}, time.Minute, 5*time.Millisecond, words)
}

var errRefused = errors.New("not you")

// calls makes n calls of a service.
func (s *site) calls(service registry.Service[call], n int) {
	for range n {
		_ = service.Bind(s.reg, registry.Query{}).Do(s.t.Context(), func(_ context.Context, c call) error { return c() })
	}
}
