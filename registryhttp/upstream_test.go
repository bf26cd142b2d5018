package registryhttp_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/registryhttp"
)

func TestNewUpstream_RefusesBadInputWithoutShowingSecrets(t *testing.T) {
	t.Parallel()
	for _, base := range []string{
		"", "/v1", "host/v1", "//host/v1", "ftp://host", "http://", "http://:80", "http:host", "http://host/#fragment", "http://user:secret@/v1?key=secret",
		"http://host/%zz?key=secret", "://secret", "http://ho\nst/secret",
	} {
		_, err := registryhttp.NewUpstream(base, registryhttp.UpstreamOptions{})
		require.ErrorIs(t, err, registry.ErrInvalid, base)
		require.NotContains(t, err.Error(), "secret")
	}
	for field, options := range map[string]registryhttp.UpstreamOptions{
		"UpstreamOptions.Header":                {Header: http.Header{"two words": {"secret"}}},
		"UpstreamOptions.Header[Authorization]": {Header: http.Header{"Authorization": {"Bearer secret\n"}}},
		"UpstreamOptions.Header[X-Key]":         {Header: http.Header{"X-Key": {"fine", "secret\x7f"}}},
		"UpstreamOptions.FirstTimeout":          {FirstTimeout: -1},
	} {
		_, err := registryhttp.NewUpstream("http://host", options)
		var refused *registry.FieldError
		require.ErrorAs(t, err, &refused)
		require.Equal(t, field, refused.Field)
		require.NotContains(t, err.Error(), "secret")
	}
}

func TestUpstream_PrintsNoSecrets(t *testing.T) {
	t.Parallel()
	u, err := registryhttp.NewUpstream("https://user:secret@host/v1?key=secret", registryhttp.UpstreamOptions{Header: http.Header{"X-Key": {"secret"}}})
	require.NoError(t, err)
	asJSON, err := json.Marshal(u)
	require.NoError(t, err)
	require.JSONEq(t, `"https://host/v1"`, string(asJSON))
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%d"} {
		require.Equal(t, "https://host/v1", fmt.Sprintf(verb, u))
	}
	var none *registryhttp.Upstream
	require.Empty(t, none.String())
}

// sent returns the request that an upstream gets.
func sent(t *testing.T, base, stripped string, options registryhttp.UpstreamOptions, request *http.Request) (got *http.Request) {
	t.Helper()
	s := with(t, testkit.New(t, registry.Options{}), registryhttp.Options{Base: stripped})
	options.Transport = roundTrip(func(request *http.Request) (*http.Response, error) {
		got = request
		return says("ok")(request)
	})
	s.add(registry.Provider[*registryhttp.Upstream]{Name: "a"}, base, options)
	response, err := s.transport().RoundTrip(request)
	require.Equal(t, "ok", read(t, response, err))
	return got
}

func ask(t *testing.T, url string) *http.Request {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	require.NoError(t, err)
	return request
}

func TestUpstream_JoinsBaseAndRequest(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ base, stripped, asked, want string }{
		{"http://a", "", "http://c/v1/x?q=1", "http://a/v1/x?q=1"},
		{"http://a/", "", "http://c/v1/x", "http://a/v1/x"},
		{"http://a/base", "", "http://c/v1/x", "http://a/base/v1/x"},
		{"http://a/base/", "", "http://c/v1/x/", "http://a/base/v1/x/"},
		{"http://a/base", "", "http://c", "http://a/base"},
		{"http://a/base", "", "http://c/", "http://a/base/"},
		{"http://a/v2", "/v1", "http://c/v1/x", "http://a/v2/x"},
		{"http://a/v2/", "/v1/", "http://c/v1/x", "http://a/v2/x"},
		{"http://a/v2", "/v1", "http://c/v1", "http://a/v2"},
		{"http://a/v2?api-version=1", "/v1", "http://c/v1/x", "http://a/v2/x?api-version=1"},
		{"http://a/v2?api-version=1", "/v1", "http://c/v1/x?q=2", "http://a/v2/x?api-version=1&q=2"},
		{"http://a/with%2Fslash", "/v1", "http://c/v1/x", "http://a/with%2Fslash/x"},
		{"http://a/b", "/v1", "http://c/v1/a%2Fb//c", "http://a/b/a%2Fb//c"},
		{"http://user:pass@a/b", "", "http://c:8080/x", "http://a/b/x"},
	} {
		got := sent(t, c.base, c.stripped, registryhttp.UpstreamOptions{}, ask(t, c.asked))
		require.Equal(t, c.want, got.URL.String(), "%+v", c)
		require.Empty(t, got.Host, "that of the URL")
	}
}

func FuzzUpstream_JoinKeepsThePathOfTheRequest(f *testing.F) {
	for _, seed := range []string{"/x", "/a%2Fb", "//x", "/%", "/ü", "/a b", "/x?y", ""} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, path string) {
		asked, err := url.Parse("http://c/v1/" + path)
		if err != nil || asked.Host != "c" {
			return
		}
		want := strings.TrimPrefix(asked.EscapedPath(), "/v1")
		s := with(t, testkit.New(t, registry.Options{}), registryhttp.Options{Base: "/v1"})
		var got string
		s.add(registry.Provider[*registryhttp.Upstream]{Name: "a"}, "http://a/b%2Fc", registryhttp.UpstreamOptions{
			Transport: roundTrip(func(request *http.Request) (*http.Response, error) {
				got = request.URL.EscapedPath()
				return says("ok")(request)
			}),
		})
		response, err := s.transport().RoundTrip(&http.Request{Method: http.MethodGet, URL: asked})
		require.Equal(t, "ok", read(t, response, err))
		require.Equal(t, "/b%2Fc"+want, got)
	})
}

func TestUpstream_HeadersReplaceThoseOfTheRequest(t *testing.T) {
	t.Parallel()
	request := ask(t, "http://c/")
	request.Header = http.Header{
		"Authorization": {"client"}, "X-Api-Key": {"client"}, "Cookie": {"client"}, "Accept": {"a", "b"}, "X-Drop": {"1"}, "User-Agent": {"sdk"},
	}
	before := request.Header.Clone()
	got := sent(t, "http://user:pass@a", "", registryhttp.UpstreamOptions{Header: http.Header{
		"x-api-key": {"own"}, "X-Drop": nil, "host": {"virtual"}, "User-Agent": {"ours"},
	}}, request)
	require.Equal(t, http.Header{
		"Authorization": {"Basic dXNlcjpwYXNz"}, "X-Api-Key": {"own"}, "Accept": {"a", "b"}, "User-Agent": {"ours"},
	}, got.Header)
	require.Equal(t, "virtual", got.Host)
	_ = append(got.Header["Accept"], "c")
	require.Equal(t, before, request.Header)
}

func TestUpstream_CredentialsOfTheRequestGoToTheirServerAlone(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		base, asked string
		forward     bool
		want        http.Header
	}{
		{"https://other", "https://api.test/v1", false, http.Header{"Accept": {"x"}}},
		{"http://api.test", "https://api.test/v1", false, http.Header{"Accept": {"x"}}},
		{"https://api.test:444", "https://api.test/v1", false, http.Header{"Accept": {"x"}}},
		{"https://api.test", "https://api.test/v1", false, http.Header{"Accept": {"x"}, "Authorization": {"key"}}},
		{"https://API.test:443", "https://api.test/v1", false, http.Header{"Accept": {"x"}, "Authorization": {"key"}}},
		{"http://api.test", "http://api.test:80/v1", false, http.Header{"Accept": {"x"}, "Authorization": {"key"}}},
		{"https://other", "https://api.test/v1", true, http.Header{"Accept": {"x"}, "Authorization": {"key"}, "Cookie": {"session"}}},
	} {
		request := ask(t, c.asked)
		request.Header = http.Header{"Authorization": {"key"}, "Cookie": {"session"}, "Accept": {"x"}}
		got := sent(t, c.base, "", registryhttp.UpstreamOptions{Credentials: c.forward}, request)
		require.Equal(t, c.want, got.Header, "%+v", c)
	}
}

func TestTransport_FollowsRedirectsWithinTheUpstreamAlone(t *testing.T) {
	t.Parallel()
	elsewhere := server(t, func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("a request came here, with %v", r.Header)
	})
	target := ""
	upstream := server(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Api-Key") != "key" {
			w.WriteHeader(http.StatusUnauthorized)
		}
		if strings.HasPrefix(r.URL.Path, "/base/start") {
			w.Header().Set("Location", target)
			w.WriteHeader(http.StatusTemporaryRedirect)
			return
		}
		body, _ := io.ReadAll(r.Body)
		_, _ = fmt.Fprintf(w, "%s %s", r.URL, body)
	})
	s := with(t, testkit.New(t, registry.Options{}), registryhttp.Options{Base: "/v1"})
	s.add(registry.Provider[*registryhttp.Upstream]{Name: "a"}, upstream.URL+"/base?fixed=1", registryhttp.UpstreamOptions{
		Header: http.Header{"X-Api-Key": {"key"}},
	})
	client := &http.Client{Transport: s.transport()}
	defer client.CloseIdleConnections()
	for _, c := range []struct{ location, want string }{
		{"/base/there?q=2", "/base/there?fixed=1&q=2 body"},
		{upstream.URL + "/base/there?fixed=1&q=%20", "/base/there?fixed=1&q=%20 body"},
		{"there/a%2Fb", "/base/there/a%2Fb?fixed=1 body"},
		{"/base", "/base?fixed=1 body"},
	} {
		target = c.location
		response, err := client.Post("http://client/v1/start", "text/plain", strings.NewReader("body")) //nolint:noctx // it is short
		require.Equal(t, c.want, read(t, response, err), c.location)
	}
	for _, location := range []string{
		elsewhere.URL, elsewhere.URL + "/base/there", "/outside", "/baseless", "//" + strings.TrimPrefix(elsewhere.URL, "http://") + "/base/x",
		strings.Replace(upstream.URL, "http://", "https://", 1) + "/base/x",
	} {
		target = location
		_, err := client.Post("http://client/v1/start", "text/plain", strings.NewReader("body")) //nolint:noctx,bodyclose // it is short, and there is none
		require.ErrorIs(t, err, registryhttp.ErrRedirect, location)
	}
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	target = elsewhere.URL
	response, err := client.Get("http://client/v1/start") //nolint:noctx // it is short
	require.Empty(t, read(t, response, err))
	require.Equal(t, target, response.Header.Get("Location"))
	target = "%zz"
	_, err = client.Get("http://client/v1/start") //nolint:noctx,bodyclose // it is short, and there is none
	require.ErrorContains(t, err, "%zz", "as net/http says it")
}
