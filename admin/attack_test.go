package admin_test

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/capreg/registry"
	"github.com/capreg/registry/admin"
	"github.com/capreg/registry/admin/action"
)

// fingerprint is all that operators can change, as text.
func fingerprint(tb testing.TB, reg *registry.Registry) string {
	tb.Helper()
	var text strings.Builder
	for info := range reg.All() {
		fmt.Fprintln(&text, info.Definition, info.Breaker.State, info.Breaker.ForcedOpen, info.Breaker.Resets, info.Health.State, info.Limits)
	}
	return text.String()
}

// request is one request, as it is written on the wire.
type request struct {
	name string
	text string
	// statuses are those that are expected.
	statuses []int
}

func post(path, body string, headers ...string) string {
	return "POST " + path + " HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nIf-Match: *\r\n" +
		strings.Join(append(headers, ""), "\r\n") + fmt.Sprintf("Content-Length: %d\r\nConnection: close\r\n\r\n%s", len(body), body)
}

const drainA = "/ops/v1/runtime/providers/a/drain"

// Requests that a web page, a proxy or a hand-made client may send where right requests make changes.
func TestAttack_ChangesNothing(t *testing.T) {
	t.Parallel()
	s := newSite(t, admin.Options{Authorize: allow, Hosts: []string{"registry.internal"}, ChangesAtOnce: 1000})
	before := fingerprint(t, s.reg)
	host := func(name string) string {
		return strings.Replace(post(drainA, `{}`), "Host: localhost", "Host: "+name, 1)
	}
	content := func(header string) string {
		return strings.Replace(post(drainA, `{}`), "Content-Type: application/json", header, 1)
	}
	forbidden, misdirected, unsupported, bad := []int{403}, []int{421}, []int{415}, []int{400}
	for _, attack := range []request{
		{"cross-site form", post(drainA, `{}`, "Sec-Fetch-Site: cross-site", "Origin: https://evil.example"), forbidden},
		{"same-site sibling", post(drainA, `{}`, "Sec-Fetch-Site: same-site", "Origin: https://blog.localhost"), forbidden},
		{"other origin, old browser", post(drainA, `{}`, "Origin: http://evil.example"), forbidden},
		{"origin null, as of a sandboxed frame", post(drainA, `{}`, "Origin: null"), forbidden},
		{"rebinding", host("evil.example"), misdirected},
		{"rebinding, origin agrees", strings.Replace(host("evil.example"), "If-Match", "Origin: http://evil.example\r\nIf-Match", 1), misdirected},
		{"rebinding with a port", host("evil.example:80"), misdirected},
		{"rebinding by a subdomain", host("registry.internal.evil.example"), misdirected},
		{"rebinding by a name that begins like an address", host("127.0.0.1.evil.example"), misdirected},
		{"rebinding by a name that ends like a known one", host("evilregistry.internal"), misdirected},
		{"host with a user", host("localhost@evil.example"), []int{400, 421}},
		{"no host", strings.Replace(post(drainA, `{}`), "Host: localhost", "Host:", 1), misdirected},
		{"two hosts", strings.Replace(post(drainA, `{}`), "Host: localhost", "Host: localhost\r\nHost: evil.example", 1), bad},
		{"forwarded host", strings.Replace(host("evil.example"), "If-Match", "X-Forwarded-Host: localhost\r\nIf-Match", 1), misdirected},
		{"absolute form of another host", strings.Replace(post(drainA, `{}`), "POST /ops", "POST http://evil.example/ops", 1), misdirected},
		{"form content", content("Content-Type: application/x-www-form-urlencoded"), unsupported},
		{"text content", content("Content-Type: text/plain"), unsupported},
		{"text content with a promise", content("Content-Type: text/plain; application/json"), unsupported},
		{"multipart content", content("Content-Type: multipart/form-data; boundary=application/json"), unsupported},
		{"no content type", content("X-Nothing: 1"), unsupported},
		{"two content types", content("Content-Type: text/plain\r\nContent-Type: application/json"), unsupported},
		{"content types in one", content("Content-Type: application/json, text/plain"), unsupported},
		{"another charset", content("Content-Type: application/json; charset=utf-7"), unsupported},
		{"encoded content", post(drainA, `{}`, "Content-Encoding: gzip"), unsupported},
		{"yaml where JSON is wanted", content("Content-Type: application/yaml"), unsupported},
		{"method override", strings.Replace(post(drainA, `{}`, "X-HTTP-Method-Override: POST", "X-Method-Override: POST"), "POST", "GET", 1), []int{405}},
		{"method override in the query", strings.Replace(post(drainA+"?_method=POST", `{}`), "POST", "GET", 1), []int{405}},
		{"unknown method", strings.Replace(post(drainA, `{}`), "POST", "BREW", 1), []int{405}},
		{"TRACE", strings.Replace(post(drainA, `{}`), "POST", "TRACE", 1), []int{405}},
		{"CONNECT", strings.Replace(post(drainA, `{}`), "POST /ops", "CONNECT /ops", 1), []int{400, 403, 404, 405}},
		{"dots", post("/ops/v1/runtime/../runtime/providers/a/drain", `{}`), []int{301, 307, 404}},
		{"encoded dots", post("/ops/v1/runtime/%2e%2e/runtime/providers/a/drain", `{}`), []int{404}},
		{"encoded slash", post("/ops/v1/runtime%2fproviders%2fa%2fdrain", `{}`), []int{404}},
		{"twofold encoding", post("/ops/v1/runtime/providers/%2561/drain", `{}`), []int{404}},
		{"doubled slash", post("/ops//v1/runtime/providers/a/drain", `{}`), []int{301, 307, 404}},
		{"slash at the end", post(drainA+"/", `{}`), []int{404}},
		{"parameters in the path", post("/ops/v1/runtime/providers/a;x=y/drain", `{}`), []int{404}},
		{"zero byte", post("/ops/v1/runtime/providers/a%00/drain", `{}`), []int{404}},
		{"unknown query", post(drainA+"?force=true", `{}`), []int{422}},
		{"newline in a name", post("/ops/v1/runtime/providers/a%0d%0aSet-Cookie:%20x=y/drain", `{}`), []int{404}},
		{"large body", post(drainA, `{"reason": "`+strings.Repeat("x", 65<<10)+`"}`), []int{413}},
		{"large body without its length", strings.Replace(post(drainA, ""), "Content-Length: 0", "Transfer-Encoding: chunked", 1) +
			strings.Repeat("1000\r\n"+strings.Repeat(" ", 0x1000)+"\r\n", 20) + "0\r\n\r\n", []int{413}},
		{"two lengths", post(drainA, `{}`, "Content-Length: 1"), bad},
		{"length and chunks", post(drainA, "2\r\n{}\r\n0\r\n\r\n", "Transfer-Encoding: chunked, identity"), []int{400, 501}},
		{"folded header", post(drainA, `{}`, "X-A: 1\r\n Host: evil.example", "If-Match : *"), bad},
		{"newline in a header", post(drainA, `{}`, "X-A: 1\rSet-Cookie: x=y"), bad},
		{"two credentials", post(drainA, `{}`, "Authorization: Bearer a", "Authorization: Bearer b"), bad},
		{"deep nesting", post(drainA, strings.Repeat(`{"reason":`, 6000)), []int{400}},
		{"name twice", post(drainA, `{"reason": "a", "reason": "b"}`), bad},
		{"name twice in another case", post(drainA, `{"reason": "a", "Reason": "b"}`), bad},
		{"unknown field", post(drainA, `{"force": true}`), []int{422}},
		{"two values", post(drainA, `{}{}`), bad},
		{"wrong text", post(drainA, "{\"reason\": \"\xff\xfe"), bad},
		{"no body", post(drainA, ``), bad},
		{"not a number", post("/ops/v1/runtime/providers/a/weight", `{"weight": NaN}`), []int{400, 405}},
		{"negative weight", strings.Replace(post("/ops/v1/runtime/providers/a/weight", `{"weight": -1}`), "POST", "PUT", 1), []int{422}},
		{"endless weight", strings.Replace(post("/ops/v1/runtime/providers/a/weight", `{"weight": 1e999}`), "POST", "PUT", 1), []int{400, 422}},
		{"no time", post("/ops/v1/runtime/providers/a/force-open", `{"for": "-1s"}`), []int{422}},
		{"without a tag", strings.Replace(post(drainA, `{}`), "If-Match: *\r\n", "", 1), []int{428}},
		{"with an old tag", strings.Replace(post(drainA, `{}`), "If-Match: *", `If-Match: "0123456789abcdef01234567"`, 1), []int{412}},
		{"beside the prefix", post("/opsv1/runtime/providers/a/drain", `{}`), []int{404}},
	} {
		status, header, body := s.raw(t, attack.text)
		require.Contains(t, attack.statuses, status, "%s: %s", attack.name, body)
		require.Empty(t, header["Set-Cookie"], attack.name)
		require.Empty(t, header["Access-Control-Allow-Origin"], attack.name)
		require.Equal(t, before, fingerprint(t, s.reg), attack.name)
		if header.Get("X-Frame-Options") != "" { // it has come to the handler
			require.Equal(t, "application/problem+json", header.Get("Content-Type"), attack.name)
		}
	}
	s.change(http.StatusOK, http.MethodPost, providerPath("a", "/drain"), `{}`)
	require.NotEqual(t, before, fingerprint(t, s.reg), "a right request is made")
}

// Requests that may reach the page which takes documents, where a right one would apply one.
func TestAttack_FormsOfDocumentsChangeNothing(t *testing.T) {
	t.Parallel()
	reg := newScene(t)
	s := consoleOf(t, reg, admin.Options{Authorize: allow, Configuration: newConfiguration(t, reg), ChangesAtOnce: 1000, MaxDocument: 64 << 10})
	digest := fmt.Sprintf("%x", sha256.Sum256([]byte(translation)))[:24]
	form := url.Values{"document": {translation}, "step": {"apply"}, "digest": {digest}, "tag": {"*"}}
	send := func(form string, headers ...string) string {
		return "POST /ops/configuration HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\n" +
			strings.Join(append(headers, ""), "\r\n") + fmt.Sprintf("Content-Length: %d\r\nConnection: close\r\n\r\n%s", len(form), form)
	}
	with := func(name, value string) string {
		other := maps.Clone(form)
		other.Set(name, value)
		return other.Encode()
	}
	right, before := form.Encode(), fingerprint(t, reg)
	for _, attack := range []request{
		{"cross-site form", send(right, "Sec-Fetch-Site: cross-site", "Origin: https://evil.example"), []int{403}},
		{"same-site sibling", send(right, "Sec-Fetch-Site: same-site", "Origin: https://blog.localhost"), []int{403}},
		{"sandboxed frame", send(right, "Origin: null"), []int{403}},
		{"rebinding", strings.Replace(send(right), "Host: localhost", "Host: evil.example", 1), []int{421}},
		{"parameters of the address", strings.Replace(send(""), "/ops/configuration", "/ops/configuration?"+right, 1), []int{422}},
		{"GET", strings.Replace(strings.Replace(send(""), "/ops/configuration", "/ops/configuration?"+right, 1), "POST", "GET", 1), []int{200}},
		{"PUT", strings.Replace(send(right), "POST", "PUT", 1), []int{405, 415}},
		{"text content", strings.Replace(send(right), "application/x-www-form-urlencoded", "text/plain", 1), []int{415}},
		{"multipart content", strings.Replace(send(right), "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", 1), []int{415}},
		{"encoded content", send(right, "Content-Encoding: gzip"), []int{415}},
		{"without a plan", send(with("digest", "")), []int{200}},
		{"another document than was planned", send(with("document", translation+"#")), []int{200}},
		{"without a tag", send(with("tag", "")), []int{428}},
		{"with an old tag", send(with("tag", `"0123456789abcdef01234567"`)), []int{412}},
		{"files of the program", send(with("document", "include: [/etc/passwd]\n")), []int{422}},
		{"large document", send(with("document", strings.Repeat("x", 65<<10))), []int{413}},
		{"huge form", send(with("x", strings.Repeat("x", 1<<20))), []int{413}},
		{"aliases without end", send(with("document", "a: &a [x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b]\nd: [*c,*c,*c,*c,*c,*c,*c,*c]\n")), []int{422}},
		{"deep nesting", send(with("document", strings.Repeat("[", 20_000))), []int{422}},
		{"markup", send(with("document", "</textarea><script>alert(1)</script>")), []int{422}},
		{"undo without a tag", strings.Replace(send("verb=configure"), "/ops/configuration", "/ops/act", 1), []int{428}},
		{"undo of another site", strings.Replace(send("verb=configure&tag=*", "Sec-Fetch-Site: cross-site"), "/ops/configuration", "/ops/act", 1), []int{403}},
		{"undo as a form, by the API", strings.Replace(send("tag=*", "If-Match: *"), "/ops/configuration", "/ops/v1/runtime/configuration/undo", 1), []int{415}},
		{"document as a form, by the API", strings.Replace(send(right, "If-Match: *"), "/ops/configuration", "/ops/v1/runtime/configuration/plan", 1), []int{415}},
	} {
		status, header, body := s.raw(t, attack.text)
		require.Contains(t, attack.statuses, status, "%s: %s", attack.name, body)
		require.Empty(t, header["Set-Cookie"], attack.name)
		require.NotContains(t, body, "<script>", attack.name)
		require.Equal(t, before, fingerprint(t, reg), attack.name)
	}
	status, _, body := s.raw(t, send(right, "Sec-Fetch-Site: same-origin"))
	require.Equal(t, http.StatusSeeOther, status, body)
	require.NotEqual(t, before, fingerprint(t, reg), "a right request is made")
}

// raw writes a request as it is and returns the answer.
func (s *site) raw(t *testing.T, text string) (status int, header http.Header, body string) {
	t.Helper()
	connection, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", s.server.Listener.Addr().String())
	require.NoError(t, err)
	defer func() { require.NoError(t, connection.Close()) }()
	require.NoError(t, connection.SetDeadline(time.Now().Add(time.Minute)))
	go func() { _, _ = io.WriteString(connection, text) }() // the server may close before it has read all
	answer, err := http.ReadResponse(bufio.NewReader(connection), nil)
	require.NoError(t, err)
	read, _ := io.ReadAll(answer.Body)
	require.NoError(t, answer.Body.Close())
	return answer.StatusCode, answer.Header, string(read)
}

func TestAttack_PagesCannotBeFramedOrFilled(t *testing.T) {
	t.Parallel()
	s := newSite(t, admin.Options{})
	for _, path := range []string{"/", "/v1/runtime/services", "/livez", "/v1/nothing"} {
		header := do(t, s.request(http.MethodGet, path, "")).Header
		require.Contains(t, header.Get("Content-Security-Policy"), "default-src 'none'")
		require.Contains(t, header.Get("Content-Security-Policy"), "frame-ancestors 'none'")
		require.NotContains(t, header.Get("Content-Security-Policy"), "unsafe")
		require.Equal(t, "DENY", header.Get("X-Frame-Options"))
		require.Equal(t, "nosniff", header.Get("X-Content-Type-Options"))
		require.Equal(t, "no-referrer", header.Get("Referrer-Policy"))
		require.Equal(t, "same-origin", header.Get("Cross-Origin-Resource-Policy"))
		require.Equal(t, "no-store", header.Get("Cache-Control"))
	}
}

func TestAttack_LinesOfTheLogCannotBeMade(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	for _, encoder := range []zapcore.Encoder{zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), zapcore.NewConsoleEncoder(zap.NewProductionEncoderConfig())} {
		out.Reset()
		var kept audits
		logger := zap.New(zapcore.NewCore(encoder, zapcore.AddSync(&out), zapcore.DebugLevel))
		s := newSite(t, admin.Options{Authorize: func(*http.Request, action.Action) (string, error) { return "ops\nroot", nil }, Logger: logger, Audit: kept.add})
		reason := `{"reason": "disk\r\n{\"level\":\"error\"}\u2028\u001b[31mred"}`
		s.change(http.StatusOK, http.MethodPost, providerPath("a", "/drain"), reason)
		s.change(http.StatusNotFound, http.MethodPost, providerPath("x\r\nlevel=error", "/drain"), reason)
		require.Equal(t, 2, strings.Count(out.String(), "\n"))
		require.NotContains(t, out.String(), "\x1b")
		require.NotContains(t, out.String(), "\u2028")
		for _, r := range kept.take() {
			require.NotContains(t, r.Reason+r.Actor+r.Provider+r.Detail, "\n")
		}
	}
}

// Guesses teach nothing of a token: every answer is the same, and what is compared is always of one length.
func TestAttack_TokensAreNotToldByAnswers(t *testing.T) {
	t.Parallel()
	const token = "correct horse battery staple"
	s := newSite(t, admin.Options{Authorize: admin.Tokens(map[string]string{"ops": token, "nobody": ""}, nil), ChangesAtOnce: 1000})
	var first []byte
	for _, guess := range []string{
		"Bearer c", "Bearer correct horse battery stapl", "Bearer correct horse battery staple!", "Bearer " + strings.Repeat("x", 4000), "Bearer", "Bearer ",
		"Basic Og==", "Basic b3BzOg==", "Basic !!!", "Digest " + token, token, fmt.Sprintf("Bearer %x", sha256.Sum256([]byte(token))),
	} {
		answer := s.send(http.MethodGet, "/v1/runtime/services", "", "Authorization", guess)
		require.Equal(t, http.StatusUnauthorized, answer.Status, guess)
		require.Equal(t, []string{"Bearer", `Basic realm="registry", charset="UTF-8"`}, answer.Header.Values("WWW-Authenticate"))
		if first == nil {
			first = answer.Body
		}
		require.Equal(t, first, answer.Body)
	}
	s.get(http.StatusOK, "/v1/runtime/services", "Authorization", "bearer "+token)
	r := s.request(http.MethodGet, "/v1/runtime/services", "")
	r.SetBasicAuth("any", token)
	require.Equal(t, http.StatusOK, do(t, r).Status)
	s.get(http.StatusOK, "/livez")
}

func TestAttack_AuthoriserThatPanicsRefuses(t *testing.T) {
	t.Parallel()
	s := newSite(t, admin.Options{Authorize: func(*http.Request, action.Action) (string, error) { panic("no") }})
	before := fingerprint(t, s.reg)
	s.get(http.StatusForbidden, "/v1/runtime/services")
	s.change(http.StatusForbidden, http.MethodPost, providerPath("a", "/drain"), `{}`)
	require.Equal(t, before, fingerprint(t, s.reg))
}

// Requests that never end hold a connection for a bounded time.
func TestAttack_SlowRequestsAreCut(t *testing.T) {
	t.Parallel()
	for name, begin := range map[string]string{
		"headers": "POST /v1/runtime/providers/a/drain HTTP/1.1\r\nHost: localhost\r\nX-A",
		"body":    "POST /v1/runtime/providers/a/drain HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nIf-Match: *\r\nContent-Length: 1000\r\n\r\n{",
		"chunks":  "POST /v1/runtime/providers/a/drain HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nIf-Match: *\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inBubble(t, admin.Options{Authorize: allow}, func(b *bubble) {
				before := fingerprint(b.t, b.reg)
				connection, err := b.pipes.dial(b.t.Context())
				require.NoError(b.t, err)
				began := time.Now()
				_, err = io.WriteString(connection, begin)
				require.NoError(b.t, err)
				stop := make(chan struct{})
				go func() { // a byte now and then
					for _, err := io.WriteString(connection, " "); err == nil; _, err = io.WriteString(connection, " ") {
						time.Sleep(time.Second)
					}
					close(stop)
				}()
				_, _ = io.Copy(io.Discard, connection)
				require.LessOrEqual(b.t, time.Since(began), 16*time.Second)
				require.NoError(b.t, connection.Close())
				<-stop
				synctest.Wait()
				require.Equal(b.t, before, fingerprint(b.t, b.reg))
			})
		})
	}
}

// A client that asks for much and reads nothing holds a connection for a bounded time.
func TestAttack_AnswersThatAreNotReadAreCut(t *testing.T) {
	t.Parallel()
	inBubble(t, admin.Options{}, func(b *bubble) {
		connection, err := b.pipes.dial(b.t.Context())
		require.NoError(b.t, err)
		_, err = io.WriteString(connection, "GET /v1/openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n")
		require.NoError(b.t, err)
		time.Sleep(time.Minute)
		synctest.Wait()
		read, _ := io.Copy(io.Discard, connection)
		require.Less(b.t, read, int64(100_000), "the rest of it was not written")
		require.NoError(b.t, connection.Close())
	})
}

// An action that was recorded cannot be made again by sending it again.
func TestAttack_ReplayIsRefused(t *testing.T) {
	t.Parallel()
	s := newSite(t, admin.Options{Authorize: allow, ChangesAtOnce: 1000})
	a := s.provider("a")
	for _, operation := range []string{"drain", "undrain", "mark-unhealthy", "mark-healthy", "clear-cooldown"} {
		tag := s.get(http.StatusOK, providerPath("a", "")).Header.Get("ETag")
		require.Equal(t, http.StatusOK, s.send(http.MethodPost, providerPath("a", "/"+operation), `{}`, "If-Match", tag).Status)
		before := fingerprint(t, s.reg)
		require.Equal(t, http.StatusPreconditionFailed, s.send(http.MethodPost, providerPath("a", "/"+operation), `{}`, "If-Match", tag).Status, operation)
		require.Equal(t, before, fingerprint(t, s.reg))
	}
	tag := s.get(http.StatusOK, providerPath("a", "")).Header.Get("ETag")
	require.NoError(t, a.Unregister(t.Context()))
	add(t, s.reg, chat, registry.Provider[call]{Name: "a", Capabilities: []string{"text"}})
	require.Equal(t, http.StatusPreconditionFailed, s.send(http.MethodPost, providerPath("a", "/drain"), `{}`, "If-Match", tag).Status, "a new provider of that name")
}
