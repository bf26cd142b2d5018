package admin_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/capreg/registry"
	"github.com/capreg/registry/admin"
	"github.com/capreg/registry/admin/action"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// call is the type of all providers of these tests.
type call func() error

var (
	chat   = registry.NewService[call]("chat")
	search = registry.NewService[call]("search")
)

// site is a registry with its handler behind a server.
type site struct {
	t       testing.TB
	reg     *registry.Registry
	handler *admin.Handler
	server  *httptest.Server
	schema  *document
}

// allow allows every change to an actor.
func allow(*http.Request, action.Action) (string, error) { return "ops", nil }

// newSite serves a registry with providers a and b of chat, and c of search.
func newSite(tb testing.TB, options admin.Options) *site {
	tb.Helper()
	reg, err := registry.New(registry.Options{Decisions: 100, Required: []string{"chat"}})
	require.NoError(tb, err)
	return serve(tb, reg, options)
}

func serve(tb testing.TB, reg *registry.Registry, options admin.Options) *site {
	tb.Helper()
	for _, name := range []string{"a", "b"} {
		add(tb, reg, chat, registry.Provider[call]{Name: name, Capabilities: []string{"text"}})
	}
	add(tb, reg, search, registry.Provider[call]{Name: "c", Limits: registry.LimitPolicy{MaxConcurrent: 4}})
	handler, err := admin.New(reg, options)
	require.NoError(tb, err)
	return siteOf(tb, reg, handler)
}

// siteOf serves a handler below a prefix.
func siteOf(tb testing.TB, reg *registry.Registry, handler *admin.Handler) *site {
	tb.Helper()
	mux := http.NewServeMux()
	mux.Handle("/ops/", http.StripPrefix("/ops", handler))
	server := httptest.NewServer(mux)
	tb.Cleanup(func() {
		server.Close()
		handler.Close()
		require.NoError(tb, reg.Close(context.WithoutCancel(tb.Context())))
	})
	return &site{tb, reg, handler, server, documentOf(tb, handler)}
}

func add(tb testing.TB, reg *registry.Registry, s registry.Service[call], p registry.Provider[call]) *registry.Registration {
	tb.Helper()
	if p.Instance == nil {
		p.Instance = func() error { return nil }
	}
	handle, err := s.Register(tb.Context(), reg, p)
	require.NoError(tb, err)
	return handle
}

// provider returns the handle of the named provider.
func (s *site) provider(name string) *registry.Registration {
	s.t.Helper()
	for _, handle := range s.reg.Registrations() {
		if handle.Name() == name {
			return handle
		}
	}
	require.Fail(s.t, "there is no provider", name)
	return nil
}

// reply is an answer, with its body read.
type reply struct {
	t      testing.TB
	Status int
	Header http.Header
	Body   []byte
}

// send sends a request below the prefix and checks that the answer is documented.
func (s *site) send(method, path, body string, headers ...string) reply {
	s.t.Helper()
	r := s.request(method, path, body, headers...)
	answer := do(s.t, r)
	s.schema.check(s.t, method, strings.TrimPrefix(r.URL.EscapedPath(), "/ops"), answer)
	return answer
}

func (s *site) request(method, path, body string, headers ...string) *http.Request {
	s.t.Helper()
	var reader io.Reader
	if body != "" {
		reader = strings.NewReader(body)
	}
	r, err := http.NewRequestWithContext(s.t.Context(), method, s.server.URL+"/ops"+path, reader)
	require.NoError(s.t, err)
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(headers); i += 2 {
		if headers[i] == "Host" {
			r.Host = headers[i+1]
			continue
		}
		r.Header.Set(headers[i], headers[i+1])
	}
	return r
}

func do(tb testing.TB, r *http.Request) reply {
	tb.Helper()
	answer, err := try(r)
	require.NoError(tb, err)
	answer.t = tb
	return answer
}

// try is do for goroutines.
func try(r *http.Request) (reply, error) {
	answer, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		return reply{}, err
	}
	text, err := io.ReadAll(answer.Body)
	return reply{Status: answer.StatusCode, Header: answer.Header, Body: text}, errors.Join(err, answer.Body.Close())
}

// get is send for reading, with the status that is expected.
func (s *site) get(status int, path string, headers ...string) reply {
	s.t.Helper()
	answer := s.send(http.MethodGet, path, "", headers...)
	require.Equal(s.t, status, answer.Status, string(answer.Body))
	return answer
}

// change is send for a change that is based on whatever is there.
func (s *site) change(status int, method, path, body string, headers ...string) reply {
	s.t.Helper()
	answer := s.send(method, path, body, append([]string{"If-Match", "*"}, headers...)...)
	require.Equal(s.t, status, answer.Status, string(answer.Body))
	return answer
}

// json reads the body.
func (r reply) json() map[string]any {
	r.t.Helper()
	var value map[string]any
	require.NoError(r.t, json.Unmarshal(r.Body, &value), string(r.Body))
	return value
}

// providerPath returns the path of an operation on a provider.
func providerPath(name, operation string) string {
	return "/v1/runtime/providers/" + url.PathEscape(name) + operation
}

// document is the OpenAPI document of a handler.
type document struct {
	value    map[string]any
	compiler *jsonschema.Compiler
	mu       sync.Mutex // guards the compiler
}

// theDocument is that of all handlers, which does not depend on their options.
var theDocument struct {
	once  sync.Once
	value *document
}

func documentOf(tb testing.TB, handler *admin.Handler) *document {
	tb.Helper()
	theDocument.once.Do(func() {
		text, err := handler.OpenAPI()
		require.NoError(tb, err)
		value, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
		require.NoError(tb, err)
		d := &document{value: value.(map[string]any), compiler: jsonschema.NewCompiler()}
		d.compiler.AssertFormat()
		require.NoError(tb, d.compiler.AddResource("openapi.json", value))
		theDocument.value = d
	})
	return theDocument.value
}

// operations returns the documented operations, as "GET /path".
func (d *document) operations() (all []string) {
	for path, item := range d.value["paths"].(map[string]any) {
		for method := range item.(map[string]any) {
			all = append(all, strings.ToUpper(method)+" "+path)
		}
	}
	return all
}

// find returns the documented path that an escaped path is of.
func (d *document) find(escaped string) (string, map[string]any) {
	parts := strings.Split(escaped, "/")
	best, found := "", map[string]any(nil)
	for path, item := range d.value["paths"].(map[string]any) {
		pattern := strings.Split(path, "/")
		matches, fixed := len(pattern) == len(parts), !strings.Contains(path, "{")
		for i := 0; matches && i < len(pattern); i++ {
			matches = strings.HasPrefix(pattern[i], "{") && parts[i] != "" || pattern[i] == parts[i]
		}
		if matches && (best == "" || fixed) {
			best, found = path, item.(map[string]any)
		}
	}
	return best, found
}

// check checks that status, headers, type and body of an answer are documented. Where there is no operation, it is a
// problem.
func (d *document) check(tb testing.TB, method, escaped string, r reply) {
	tb.Helper()
	media, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	path, item := d.find(escaped)
	operation, _ := item[strings.ToLower(method)].(map[string]any)
	if operation == nil {
		require.Contains(tb, []int{400, 401, 403, 404, 405, 415, 421}, r.Status, "%s %s", method, escaped)
		require.Equal(tb, "application/problem+json", media)
		d.validate(tb, "openapi.json#/components/schemas/Problem", r.Body)
		return
	}
	status := http.StatusText(r.Status)
	documented, ok := operation["responses"].(map[string]any)[statusText(r.Status)].(map[string]any)
	require.True(tb, ok, "%s %s: %d %s is not documented: %s", method, path, r.Status, status, r.Body)
	headers, _ := documented["headers"].(map[string]any)
	for name := range headers {
		require.NotEmpty(tb, r.Header.Get(name), "%s %s: documented header %s", method, path, name)
	}
	content, _ := documented["content"].(map[string]any)
	if len(content) == 0 {
		require.Empty(tb, r.Body)
		return
	}
	require.Contains(tb, content, media, "%s %s: %d", method, path, r.Status)
	if media == "text/event-stream" {
		return
	}
	escape := strings.NewReplacer("~", "~0", "/", "~1", "{", "%7B", "}", "%7D")
	d.validate(tb, "openapi.json#/paths/"+escape.Replace(path)+"/"+strings.ToLower(method)+"/responses/"+statusText(r.Status)+
		"/content/"+escape.Replace(media)+"/schema", r.Body)
}

func statusText(status int) string {
	text, _ := json.Marshal(status)
	return string(text)
}

func (d *document) validate(tb testing.TB, schema string, text []byte) {
	tb.Helper()
	d.mu.Lock()
	compiled, err := d.compiler.Compile(schema)
	d.mu.Unlock()
	require.NoError(tb, err)
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	require.NoError(tb, err, string(text))
	require.NoError(tb, compiled.Validate(value), "%s: %s", schema, text)
}
