package console_test

import (
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/admin/action"
	"github.com/capreg/registry/admin/internal/console"
	"github.com/capreg/registry/admin/internal/control"
)

func TestConsole_AssetsAreKeptByTheirVersion(t *testing.T) {
	t.Parallel()
	s := newSite(t, control.Options{})
	text := s.page(http.StatusOK, "/")
	found := regexp.MustCompile(`(?:href|src)="(console\.(?:css|js))(\?v=[0-9a-f]{12})"`).FindAllStringSubmatch(text, -1)
	require.Len(t, found, 2)
	for _, asset := range found {
		w := s.do(http.MethodGet, "/"+asset[1]+asset[2], "")
		require.Equal(t, http.StatusOK, w.Code)
		require.Contains(t, w.Header().Get("Cache-Control"), "immutable")
		require.NotEmpty(t, w.Body.Bytes())
		require.Equal(t, strconv.Itoa(w.Body.Len()), w.Header().Get("Content-Length"))
		require.Contains(t, []string{"text/css; charset=utf-8", "text/javascript; charset=utf-8"}, w.Header().Get("Content-Type"))
		for _, other := range []string{"", "?v=000000000000"} {
			require.Empty(t, s.do(http.MethodGet, "/"+asset[1]+other, "").Header().Get("Cache-Control"), "it may be of another version")
		}
	}
}

func TestConsole_KnowsItsPagesAndForms(t *testing.T) {
	t.Parallel()
	c := console.New(console.Options{})
	for _, path := range []string{"/", "/service", "/provider", "/explain", "/events", "/startup", "/configuration", "/fleet", "/act", "/console.css"} {
		require.True(t, c.Serves(path), path)
	}
	for _, path := range []string{"", "/v1", "/livez", "/none", "/service/"} {
		require.False(t, c.Serves(path), path)
	}
	for path, takes := range map[string]bool{"/act": true, "/configuration": true, "/": false, "/service": false, "/v1/runtime/configuration": false} {
		require.Equal(t, takes, console.TakesForms(path), path)
	}
	s := newSite(t, control.Options{})
	require.Equal(t, http.StatusMethodNotAllowed, s.submit("/service", "name", "chat").Code)
}

func TestConsole_SaysThatItIsReadOnly(t *testing.T) {
	t.Parallel()
	s := newSite(t, control.Options{})
	require.NotContains(t, s.page(http.StatusOK, "/"), "read-only")
	s.authorize = func(a action.Action) (string, error) { return "", action.ErrUnauthenticated }
	require.NotContains(t, s.page(http.StatusOK, "/"), "read-only", "credentials may be asked for")
	s.authorize = nil
	text := s.page(http.StatusOK, "/")
	shows(t, text, "read-only")
	require.NotContains(t, text, "Reset")
}

func TestConsole_ListsHaveLinksToPagesBesides(t *testing.T) {
	t.Parallel()
	s := newSite(t, control.Options{})
	for i := range 100 {
		s.add(chat, registry.Provider[call]{Name: fmt.Sprintf("p%02d", i)})
	}
	for page, links := range map[string][]string{
		"":            {`<a href="?name=chat&amp;page=2" rel="next">`},
		"&page=2":     {`<a href="?name=chat&amp;page=1" rel="prev">`, "page 2 of 3, 102 in all", `<a href="?name=chat&amp;page=3" rel="next">`},
		"&page=3":     {`<a href="?name=chat&amp;page=2" rel="prev">`},
		"&page=-7":    {"page 1 of 3"},
		"&page=99999": {"page 3 of 3"},
		"&page=x":     {"page 1 of 3"},
	} {
		shows(t, s.page(http.StatusOK, "/service?name=chat"+page), links...)
	}
	require.NotContains(t, s.page(http.StatusOK, "/service?name=chat&page=3"), `rel="next"`)
	require.NotContains(t, s.page(http.StatusOK, "/service?name=search"), `class="pager"`)
}

func BenchmarkConsole_Render(b *testing.B) {
	for _, n := range []int{1000, 10_000} {
		b.Run(fmt.Sprintf("Providers=%d", n), func(b *testing.B) {
			reg, err := registry.New(registry.Options{})
			require.NoError(b, err)
			s := serve(b, reg, control.Options{})
			for i := range n {
				handle := s.add(registry.NewService[call](fmt.Sprintf("service-%04d", i/10)), registry.Provider[call]{Name: fmt.Sprintf("provider-%05d", i), Group: i % 3})
				if i%7 == 0 {
					require.NoError(b, handle.ForceOpen(1<<40, "maintenance"))
				}
			}
			size := 0
			b.ReportAllocs()
			for b.Loop() {
				w := s.do(http.MethodGet, "/", "")
				size = w.Body.Len()
			}
			b.ReportMetric(float64(size), "bytes/page")
		})
	}
}
