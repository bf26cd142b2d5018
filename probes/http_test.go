package probes_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/capreg/registry/health"
	"github.com/capreg/registry/probes"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errDown = errors.New("down")

// answer returns a handler of a fixed answer.
func answer(code int, contentType, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		w.WriteHeader(code)
		_, _ = io.WriteString(w, body)
	}
}

func serve(t *testing.T, handler http.HandlerFunc) *httptest.Server {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return server
}

func probeOf(t *testing.T, url string, options probes.HTTPOptions) health.Probe {
	t.Helper()
	probe, err := probes.HTTP(url, options)
	require.NoError(t, err)
	return probe
}

// requireLine requires an error of one line.
func requireLine(t *testing.T, err error) {
	t.Helper()
	require.Error(t, err)
	require.NotContains(t, err.Error(), "\n")
	require.LessOrEqual(t, len(err.Error()), 2048)
}

// requireDial requires an error of a connection that was not established, whatever the system calls it.
func requireDial(t *testing.T, err error) {
	t.Helper()
	var failure *net.OpError
	require.ErrorAs(t, err, &failure)
	require.Equal(t, "dial", failure.Op)
}

// refused returns an address of this machine without a listener.
func refused(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // ends at once
	require.NoError(t, err)
	require.NoError(t, listener.Close())
	return listener.Addr().String()
}

func TestHTTP_JudgesStatusCodeAndJSON(t *testing.T) {
	t.Parallel()
	const (
		well  = "well"
		limps = "limps"
		fails = "fails"
		out   = "out"
		json  = "application/json"
	)
	for name, test := range map[string]struct {
		code              int
		contentType, body string
		options           probes.HTTPOptions
		want, text        string
	}{
		"200":                           {code: 200, want: well},
		"text is not read":              {code: 200, contentType: "text/plain", body: `{"status":"down"}`, want: well},
		"no content type":               {code: 200, body: "fine", want: well},
		"204":                           {code: 204, want: well},
		"206":                           {code: 206, contentType: "text/plain", body: "part", want: well},
		"204 that is not expected":      {code: 204, options: probes.HTTPOptions{Codes: []int{200}}, want: fails, text: "204 No Content, want 200"},
		"503 that says why":             {code: 503, contentType: "text/plain", body: "db is\n away", want: fails, text: "want 200 to 299: db is  away"},
		"503 in binary":                 {code: 503, body: "\x00\x01", want: fails, text: "want 200 to 299"},
		"draining":                      {code: 200, contentType: json, body: `{"status":"Draining"}`, want: out, text: `its status is "Draining": {"status":"Draining"}`},
		"out of service":                {code: 200, contentType: json, body: `{"status":"OUT_OF_SERVICE"}`, want: out},
		"own healthy word":              {code: 200, contentType: json, body: `{"status":"green"}`, options: probes.HTTPOptions{Healthy: []string{" Green"}}, want: well},
		"own words replace":             {code: 200, contentType: json, body: `{"status":"ok"}`, options: probes.HTTPOptions{Healthy: []string{"green"}}, want: fails},
		"own degraded word":             {code: 200, contentType: json, body: `{"status":"yellow"}`, options: probes.HTTPOptions{Degraded: []string{"yellow"}}, want: limps},
		"own word for out":              {code: 200, contentType: json, body: `{"status":"red"}`, options: probes.HTTPOptions{Out: []string{"red"}}, want: out},
		"204 that is expected":          {code: 204, contentType: json, options: probes.HTTPOptions{Codes: []int{200, 204}}, want: well},
		"503":                           {code: 503, want: fails, text: "503 Service Unavailable, want 200"},
		"503 with good JSON":            {code: 503, contentType: json, body: `{"status":"ok"}`, want: fails, text: "503 Service Unavailable"},
		"503 that is expected":          {code: 503, options: probes.HTTPOptions{Codes: []int{503}}, want: well},
		"200 that is not":               {code: 200, options: probes.HTTPOptions{Codes: []int{204, 503}}, want: fails, text: "200 OK, want 204 503"},
		"a code without a name":         {code: 599, want: fails, text: "599, want 200"},
		"redirect":                      {code: 302, want: fails, text: "302 Found, want 200"},
		"redirect that is expected":     {code: 302, options: probes.HTTPOptions{Codes: []int{302}}, want: well},
		"healthy":                       {code: 200, contentType: json, body: `{"status":"healthy"}`, want: well},
		"ok":                            {code: 200, contentType: json, body: `{"status":"ok"}`, want: well},
		"up":                            {code: 200, contentType: json, body: `{"status":"UP"}`, want: well},
		"pass":                          {code: 200, contentType: json, body: `{"status":"pass"}`, want: well},
		"passing":                       {code: 200, contentType: json, body: `{"status":"Passing"}`, want: well},
		"serving":                       {code: 200, contentType: json, body: `{"status":" SERVING "}`, want: well},
		"degraded":                      {code: 200, contentType: json, body: `{"status":"degraded"}`, want: limps, text: `200 OK, but its status is "degraded"`},
		"warn":                          {code: 200, contentType: json, body: `{"status":"warn"}`, want: limps},
		"warning":                       {code: 200, contentType: json, body: `{"status":"WARNING"}`, want: limps},
		"down":                          {code: 200, contentType: json, body: `{"status":"down"}`, want: fails, text: `200 OK, but its status is "down"`},
		"no word":                       {code: 200, contentType: json, body: `{"status":""}`, want: fails, text: `its status is ""`},
		"many words":                    {code: 200, contentType: json, body: `{"status":"` + strings.Repeat("x\\n", 1000) + `"}`, want: fails, text: "its status is \"x\\nx"},
		"a number":                      {code: 200, contentType: json, body: `{"status":200}`, want: fails, text: "200 OK, but its status is not a string"},
		"null":                          {code: 200, contentType: json, body: `{"status":null}`, want: fails, text: "not a string"},
		"a key in capitals":             {code: 200, contentType: json, body: `{"Status":"down"}`, want: fails},
		"a status further down":         {code: 200, contentType: json, body: `{"parts":{"status":"down"}}`, want: well},
		"no status":                     {code: 200, contentType: json, body: `{}`, want: well},
		"no object":                     {code: 200, contentType: json, body: `["down"]`, want: well},
		"empty JSON":                    {code: 200, contentType: json, want: fails, text: "200 OK, but its JSON is malformed"},
		"cut JSON":                      {code: 200, contentType: json, body: `{"status":"ok"`, want: fails, text: "malformed"},
		"two of JSON":                   {code: 200, contentType: json, body: `{"status":"ok"}{}`, want: fails, text: "malformed"},
		"a page that says it is JSON":   {code: 200, contentType: json, body: `<html>`, want: fails, text: "malformed"},
		"charset":                       {code: 200, contentType: "Application/JSON; charset=utf-8", body: `{"status":"down"}`, want: fails},
		"a kind of JSON":                {code: 200, contentType: "application/health+json", body: `{"status":"fail"}`, want: fails},
		"JSON in lines":                 {code: 200, contentType: "application/json-seq", body: `{"status":"fail"}`, want: well},
		"64 KiB":                        {code: 200, contentType: json, body: `{"status":"ok"}` + strings.Repeat(" ", 64<<10-15), want: well},
		"more than 64 KiB":              {code: 200, contentType: json, body: `{"status":"ok"}` + strings.Repeat(" ", 64<<10-14), want: fails, text: "200 OK, but its JSON is longer than 64 KiB"},
		"a huge page":                   {code: 200, contentType: "text/html", body: strings.Repeat("x", 1<<20), want: well},
		"huge JSON":                     {code: 200, contentType: json, body: `{"status":"ok","x":"` + strings.Repeat("x", 1<<20) + `"}`, want: fails, text: "64 KiB"},
		"deep JSON":                     {code: 200, contentType: json, body: strings.Repeat("[", 60_000), want: fails, text: "malformed"},
		"only the code":                 {code: 200, contentType: json, body: `{"status":"red"}`, options: probes.HTTPOptions{CodeOnly: true}, want: well},
		"only the code, which is wrong": {code: 500, options: probes.HTTPOptions{CodeOnly: true}, want: fails, text: "500"},
		"HEAD":                          {code: 200, contentType: json, options: probes.HTTPOptions{Method: "HEAD"}, want: well},
		"HEAD that fails":               {code: 404, options: probes.HTTPOptions{Method: "HEAD"}, want: fails, text: "HEAD http://127.0.0.1"},
		"POST":                          {code: 200, options: probes.HTTPOptions{Method: "POST"}, want: well},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := serve(t, answer(test.code, test.contentType, test.body))
			err := probeOf(t, server.URL+"/healthz", test.options)(t.Context())
			if test.want == well {
				require.NoError(t, err)
				return
			}
			requireLine(t, err)
			require.Equal(t, test.want == limps, health.IsLimp(err))
			require.Equal(t, test.want == out, health.IsOut(err))
			require.ErrorContains(t, err, test.text)
			require.ErrorContains(t, err, server.URL+"/healthz: ")
		})
	}
}

func TestHTTP_ReportsUsage(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		body string
		want map[string]float64
	}{
		"usage":                  {`{"usage":{"memory":0.5,"gpu memory":1,"disk":0}}`, map[string]float64{"memory": 0.5, "gpu memory": 1, "disk": 0}},
		"resources":              {`{"resources":{"memory":0.5}}`, map[string]float64{"memory": 0.5}},
		"the higher of both":     {`{"usage":{"memory":0.5},"resources":{"memory":0.7,"cpu":0.1}}`, map[string]float64{"memory": 0.7, "cpu": 0.1}},
		"what is no share":       {`{"usage":{"a":1.01,"b":-0.1,"c":"0.5","d":null,"e":{"f":0.5},"g":1e999,"h":0.25}}`, map[string]float64{"h": 0.25}},
		"no object":              {`{"usage":[0.5],"resources":0.5}`, map[string]float64{}},
		"one that limps":         {`{"status":"degraded","usage":{"memory":0.95}}`, map[string]float64{"memory": 0.95}},
		"one that fails":         {`{"status":"down","usage":{"memory":0.95}}`, map[string]float64{"memory": 0.95}},
		"a name of two lines":    {`{"usage":{"gpu\nmemory":0.5}}`, map[string]float64{"gpu memory": 0.5}},
		"nothing when malformed": {`{"usage":{"memory":0.5}`, map[string]float64{}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			told := make(map[string]float64)
			ctx := health.WithUse(t.Context(), func(resource string, share float64) { told[resource] = share })
			server := serve(t, answer(200, "application/json", test.body))
			_ = probeOf(t, server.URL, probes.HTTPOptions{})(ctx)
			require.Equal(t, test.want, told)
		})
	}
}

func TestHTTP_BoundsTheDecompressedBody(t *testing.T) {
	t.Parallel()
	var bomb bytes.Buffer
	writer := gzip.NewWriter(&bomb)
	_, err := writer.Write(bytes.Repeat([]byte(" "), 1<<20))
	require.NoError(t, err)
	require.NoError(t, writer.Close())
	server := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = w.Write(bomb.Bytes())
	})
	err = probeOf(t, server.URL, probes.HTTPOptions{})(t.Context())
	require.ErrorContains(t, err, "longer than 64 KiB")
}

func TestHTTP_SendsTheRequestOfItsOptions(t *testing.T) {
	t.Parallel()
	requests := make(chan *http.Request, 1)
	server := serve(t, func(_ http.ResponseWriter, r *http.Request) { requests <- r })
	header := http.Header{"Authorization": {"Bearer token"}, "Host": {"inner.example"}, "X-Many": {"a", "b"}}
	codes := []int{200}
	probe := probeOf(t, server.URL+"/health?deep=1", probes.HTTPOptions{Method: http.MethodOptions, Header: header, Codes: codes})
	header.Set("Authorization", "changed")
	codes[0] = 404
	require.NoError(t, probe(t.Context()))
	request := <-requests
	require.Equal(t, http.MethodOptions, request.Method)
	require.Equal(t, "/health?deep=1", request.RequestURI)
	require.Equal(t, "Bearer token", request.Header.Get("Authorization"))
	require.Equal(t, "inner.example", request.Host)
	require.Equal(t, []string{"a", "b"}, request.Header.Values("X-Many"))
}

func TestHTTP_SendsUserInformationOfTheURL(t *testing.T) {
	t.Parallel()
	server := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "user" || password != "pass word" {
			w.WriteHeader(http.StatusUnauthorized)
		}
	})
	url := strings.Replace(server.URL, "//", "//user:pass%20word@", 1)
	require.NoError(t, probeOf(t, url, probes.HTTPOptions{})(t.Context()))
}

func TestHTTP_RedirectIsAnAnswer(t *testing.T) {
	t.Parallel()
	var followed atomic.Bool
	server := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/malformed":
			w.Header().Set("Location", "http://user:secret@%zz/?key=secret")
		case "/elsewhere":
			w.Header().Set("Location", "/")
		default:
			followed.Store(true)
			return
		}
		w.WriteHeader(http.StatusTemporaryRedirect)
	})
	for _, path := range []string{"/malformed", "/elsewhere"} {
		err := probeOf(t, server.URL+path, probes.HTTPOptions{})(t.Context())
		require.ErrorContains(t, err, "307 Temporary Redirect, want 200")
	}
	require.False(t, followed.Load())

	require.NoError(t, probeOf(t, server.URL+"/elsewhere", probes.HTTPOptions{Client: server.Client()})(t.Context()))
	require.True(t, followed.Load(), "a client of the user does as it is told")
	err := probeOf(t, server.URL+"/malformed", probes.HTTPOptions{Client: server.Client()})(t.Context())
	requireLine(t, err)
	require.NotContains(t, err.Error(), "secret")
}

func TestHTTP_StopsReadingAnEndlessBody(t *testing.T) {
	t.Parallel()
	server := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		for {
			if _, err := w.Write(make([]byte, 32<<10)); err != nil {
				return
			}
		}
	})
	require.NoError(t, probeOf(t, server.URL, probes.HTTPOptions{})(t.Context()))
}

func TestHTTP_HangingServerFailsWithTheContext(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		header, body string
		code         int
		text         string
	}{
		"in a page":          {"text/html", "<html>", 200, "200 OK, but its body broke off: context canceled"},
		"in JSON":            {"application/json", `{"status":"ok"`, 200, "200 OK, but its body broke off: context canceled"},
		"after a wrong code": {"text/html", "<html>", 503, "503 Service Unavailable, want 200"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := serve(t, func(w http.ResponseWriter, r *http.Request) {
				answer(test.code, test.header, test.body)(w, r)
				_ = http.NewResponseController(w).Flush()
				<-r.Context().Done()
			})
			ctx, cancel := context.WithCancel(t.Context())
			client := &http.Client{Transport: tripper(func(r *http.Request) (*http.Response, error) {
				defer cancel() // the header is there, the body will not be
				return http.DefaultTransport.RoundTrip(r)
			})}
			err := probeOf(t, server.URL, probes.HTTPOptions{Client: client})(ctx)
			requireLine(t, err)
			require.ErrorContains(t, err, test.text)
		})
	}
	t.Run("before the header", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithCancel(t.Context())
		server := serve(t, func(_ http.ResponseWriter, r *http.Request) {
			cancel()
			<-r.Context().Done()
		})
		err := probeOf(t, server.URL, probes.HTTPOptions{})(ctx)
		require.ErrorIs(t, err, context.Canceled)
		requireLine(t, err)
	})
	t.Run("instead of another protocol", func(t *testing.T) {
		t.Parallel()
		done := make(chan struct{})
		defer close(done)
		server := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Connection", "Upgrade")
			w.Header().Set("Upgrade", "other")
			w.WriteHeader(http.StatusSwitchingProtocols)
			_ = http.NewResponseController(w).Flush()
			<-done
		})
		err := probeOf(t, server.URL, probes.HTTPOptions{})(t.Context())
		require.ErrorContains(t, err, "101 Switching Protocols, want 200")
	})
	t.Run("before anything", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		err := probeOf(t, "http://"+refused(t), probes.HTTPOptions{})(ctx)
		require.ErrorIs(t, err, context.Canceled)
	})
}

// tripper is a transport in one function.
type tripper func(*http.Request) (*http.Response, error)

func (f tripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestHTTP_FailsOnATruncatedBody(t *testing.T) {
	t.Parallel()
	server := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "10")
		_, _ = io.WriteString(w, "short")
	})
	err := probeOf(t, server.URL, probes.HTTPOptions{})(t.Context())
	require.ErrorContains(t, err, "200 OK, but its body broke off")
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
}

func TestHTTP_FailsWithoutAServer(t *testing.T) {
	t.Parallel()
	url := "http://" + refused(t) + "/healthz"
	err := probeOf(t, url, probes.HTTPOptions{})(t.Context())
	requireLine(t, err)
	requireDial(t, err)
	require.ErrorContains(t, err, "GET "+url+": ")
}

func TestHTTP_RefusesAnUnknownCertificate(t *testing.T) {
	t.Parallel()
	server := httptest.NewUnstartedServer(answer(200, "text/plain", "fine"))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	err := probeOf(t, server.URL, probes.HTTPOptions{})(t.Context())
	requireLine(t, err)
	var authority x509.UnknownAuthorityError
	require.ErrorAs(t, err, &authority)
	require.NoError(t, probeOf(t, server.URL, probes.HTTPOptions{Client: server.Client()})(t.Context()))
}

func TestHTTP_FailsOnAnotherProtocol(t *testing.T) {
	t.Parallel()
	plain := serve(t, answer(200, "text/plain", "fine"))
	err := probeOf(t, strings.Replace(plain.URL, "http", "https", 1), probes.HTTPOptions{})(t.Context())
	requireLine(t, err)
	require.ErrorContains(t, err, "HTTP response to HTTPS client")

	other := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		connection, _, err := http.NewResponseController(w).Hijack()
		if err == nil {
			_, _ = io.WriteString(connection, "502 unknown command\r\nhelo\n")
			_ = connection.Close()
		}
	})
	err = probeOf(t, other.URL, probes.HTTPOptions{})(t.Context())
	requireLine(t, err)
	require.ErrorContains(t, err, "malformed HTTP")
}

func TestHTTP_FailureContainsNoSecrets(t *testing.T) {
	t.Parallel()
	server := serve(t, answer(503, "text/plain", ""))
	secret := func(address string) string {
		return strings.Replace(address, "//", "//secret-user:secret%2Fpass@", 1) + "/healthz?key=secret&more=sec%20ret#secret"
	}
	chatty := &http.Client{Transport: tripper(func(r *http.Request) (*http.Response, error) {
		return nil, fmt.Errorf("%w:\n\ttold %s and %q by http://secret:sec/ret?@proxy", errDown, r.URL, r.URL)
	})}
	looping := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return errDown }}
	redirecting := serve(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "//user:secret@elsewhere/?secret", http.StatusFound)
	})
	for name, probe := range map[string]health.Probe{
		"code":     probeOf(t, secret(server.URL), probes.HTTPOptions{}),
		"refused":  probeOf(t, secret("http://"+refused(t)), probes.HTTPOptions{}),
		"client":   probeOf(t, secret(server.URL), probes.HTTPOptions{Client: chatty}),
		"redirect": probeOf(t, redirecting.URL, probes.HTTPOptions{Client: looping}),
	} {
		err := probe(t.Context())
		requireLine(t, err)
		require.NotContains(t, err.Error(), "sec", name)
		require.NotContains(t, err.Error(), "ret", name)
		require.ErrorContains(t, err, "GET http://127.0.0.1:", name)
	}
}

func TestHTTP_CookiesDoNotAccumulate(t *testing.T) {
	t.Parallel()
	var sent atomic.Int32
	server := serve(t, func(w http.ResponseWriter, r *http.Request) {
		sent.Store(int32(len(r.Cookies())))
		http.SetCookie(w, &http.Cookie{Name: "session", Value: "1"})
	})
	jar, err := cookiejar.New(nil)
	require.NoError(t, err)
	probe := probeOf(t, server.URL, probes.HTTPOptions{Client: &http.Client{Jar: jar}})
	for range 5 {
		require.NoError(t, probe(t.Context()))
	}
	require.EqualValues(t, 1, sent.Load())
}

func TestHTTP_IsSafeForConcurrentUse(t *testing.T) {
	t.Parallel()
	server := serve(t, answer(200, "application/json", `{"status":"ok","usage":{"memory":0.5}}`))
	probe := probeOf(t, server.URL, probes.HTTPOptions{})
	var running sync.WaitGroup
	for range 32 {
		running.Go(func() {
			if err := probe(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	running.Wait()
}

func TestHTTP_BadInputNamesFieldValueAndBound(t *testing.T) {
	t.Parallel()
	const url = "http://localhost/"
	for name, test := range map[string]struct {
		url     string
		options probes.HTTPOptions
		text    string
	}{
		"no URL":             {"", probes.HTTPOptions{}, `url is "": want an absolute URL of http or https`},
		"no scheme":          {"localhost:80", probes.HTTPOptions{}, `url is "localhost:80": want`},
		"another scheme":     {"ftp://localhost", probes.HTTPOptions{}, `url is "ftp://localhost": want`},
		"no host":            {"http:///healthz", probes.HTTPOptions{}, `url is "http:///healthz": want`},
		"only a port":        {"http://:80", probes.HTTPOptions{}, `url is "http://:80": want`},
		"a port too high":    {"http://localhost:65536", probes.HTTPOptions{}, `url is "http://localhost:65536": want`},
		"two lines":          {"http://local\nhost", probes.HTTPOptions{}, `url is "http://local\nhost": want`},
		"a long one":         {"ftp://" + strings.Repeat("x", 1000), probes.HTTPOptions{}, strings.Repeat("x", 58) + `…": want`},
		"a secret":           {"ftp://user:secret@host/?secret", probes.HTTPOptions{}, `url is "ftp://…@host/?…": want`},
		"an unclear secret":  {"http://user:secret?secret@host", probes.HTTPOptions{}, `url is "http://…": want`},
		"an unclear one":     {"http://user:sec/ret:%zz@host", probes.HTTPOptions{}, `url is "http://…@host": want`},
		"one of no scheme":   {"user:secret@host://secret@host", probes.HTTPOptions{}, `url is "…@host": want`},
		"method":             {url, probes.HTTPOptions{Method: "get"}, `HTTPOptions.Method is "get": want GET (default), HEAD, OPTIONS or POST`},
		"code":               {url, probes.HTTPOptions{Codes: []int{200, 101}}, `HTTPOptions.Codes[1] is 101: want 200 to 599`},
		"high code":          {url, probes.HTTPOptions{Codes: []int{600}}, `HTTPOptions.Codes[0] is 600: want 200 to 599`},
		"name of a header":   {url, probes.HTTPOptions{Header: http.Header{"A b": nil}}, `HTTPOptions.Header is "A b": want names of header fields`},
		"header of no name":  {url, probes.HTTPOptions{Header: http.Header{"": nil}}, `HTTPOptions.Header is "": want`},
		"value of a header":  {url, probes.HTTPOptions{Header: http.Header{"X": {"", "secret\r\nY: 1"}}}, `HTTPOptions.Header["X"][1] is of several lines or binary: want one line of text`},
		"letters in headers": {url, probes.HTTPOptions{Header: http.Header{"Ä": nil}}, `want names of header fields`},
	} {
		probe, err := probes.HTTP(test.url, test.options)
		require.ErrorIs(t, err, probes.ErrInvalid, name)
		requireLine(t, err)
		require.True(t, strings.HasPrefix(err.Error(), "probes: invalid input: "), name)
		require.ErrorContains(t, err, test.text, name)
		require.NotContains(t, err.Error(), "secret", name)
		require.Nil(t, probe, name)
	}
}

// FuzzBody holds what a probe makes of JSON against a slow reading of it.
func FuzzBody(f *testing.F) {
	for _, body := range []string{
		`{"status":"ok"}`, `{"status":"DEGRADED"}`, `{"Status":"down","status":"up"}`, `{"status":null}`, `{"status":1}`, `[]`, ``, `null`,
		`{"usage":{"a":0.5,"a":0.7,"a\n":1},"RESOURCES":{"a":0.6}}`, `{"usage":{"a":1e999}}`, `{"usage":null,"usage":{"b":0}}`, `{"ſtatus":"warn"}`,
	} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		client := &http.Client{Transport: tripper(func(r *http.Request) (*http.Response, error) {
			header := http.Header{"Content-Type": {"application/json"}}
			return &http.Response{StatusCode: http.StatusOK, Header: header, Body: io.NopCloser(bytes.NewReader(body)), Request: r}, nil
		})}
		told := make(map[string]float64)
		ctx := health.WithUse(t.Context(), func(resource string, share float64) { told[resource] = share })
		err := probeOf(t, "http://localhost", probes.HTTPOptions{Client: client})(ctx)

		fine, limping := naively(body)
		require.Equal(t, fine, err == nil, "%v", err)
		require.Equal(t, limping, err != nil && health.IsLimp(err), "%v", err)
		if err != nil {
			requireLine(t, err)
		}
		for _, share := range told {
			require.True(t, share >= 0 && share <= 1)
		}
		if !json.Valid(body) {
			require.Empty(t, told)
		}
	})
}

// naively reads JSON field by field.
func naively(body []byte) (fine, limping bool) {
	if len(body) > 64<<10 || !json.Valid(body) {
		return false, false
	}
	fine = true
	decoder := json.NewDecoder(bytes.NewReader(body))
	if opening, _ := decoder.Token(); opening != json.Delim('{') {
		return fine, limping
	}
	for decoder.More() {
		key, _ := decoder.Token()
		var value any
		if err := decoder.Decode(&value); err != nil {
			value = err // such as a number that is too large
		}
		if !strings.EqualFold(key.(string), "status") { //nolint:forcetypeassert // the key of an object
			continue
		}
		word, _ := value.(string)
		word = strings.ToLower(strings.TrimSpace(word))
		fine = slices.Contains([]string{"healthy", "ok", "up", "pass", "passing", "serving"}, word)
		limping = slices.Contains([]string{"degraded", "warn", "warning"}, word)
	}
	return fine, limping
}
