package configured_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/capreg/registry"
	"github.com/capreg/registry/admin"
	"github.com/capreg/registry/admin/action"
	"github.com/capreg/registry/admin/configured"
	"github.com/capreg/registry/config"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var llm = registry.NewService[string]("llm")

type settings struct {
	Model string        `json:"model"`
	Key   config.Secret `json:"api_key"`
}

const first = `
services:
  llm:
    providers:
      - {name: a, kind: model, settings: {model: small, api_key: "${env:TEST_API_KEY}"}}
      - {name: b, kind: model, settings: {model: big, api_key: written-out}, priority: LOW}
`

// site serves the API of a registry that was configured, and answers requests.
func site(t *testing.T, authorise func(*http.Request, action.Action) (string, error)) (*registry.Registry, func(method, path, contentType, body string, headers ...string) (int, http.Header, map[string]any)) {
	t.Helper()
	t.Setenv("TEST_API_KEY", "from-the-environment")
	reg, err := registry.New(registry.Options{})
	require.NoError(t, err)
	options := config.Options{Kinds: []config.Kind{
		config.Bind(llm, "model", func(_ context.Context, s settings) (string, error) { return s.Model, nil }),
	}}
	manager, err := config.New(reg, options)
	require.NoError(t, err)
	handler, err := admin.New(reg, admin.Options{Authorize: authorise, Configuration: configured.By(manager, options), MaxDocument: 128 << 10})
	require.NoError(t, err)
	server := httptest.NewServer(handler)
	t.Cleanup(func() {
		server.Close()
		handler.Close()
		require.NoError(t, reg.Close(context.Background()))
	})
	return reg, func(method, path, contentType, body string, headers ...string) (int, http.Header, map[string]any) {
		r, err := http.NewRequestWithContext(t.Context(), method, server.URL+"/v1/runtime/configuration"+path, strings.NewReader(body))
		require.NoError(t, err)
		r.Header.Set("Content-Type", contentType)
		for i := 0; i < len(headers); i += 2 {
			r.Header.Set(headers[i], headers[i+1])
		}
		answer, err := http.DefaultTransport.RoundTrip(r)
		require.NoError(t, err)
		var value map[string]any
		require.NoError(t, json.NewDecoder(answer.Body).Decode(&value))
		require.NoError(t, answer.Body.Close())
		return answer.StatusCode, answer.Header, value
	}
}

func allow(*http.Request, action.Action) (string, error) { return "ops", nil }

const yaml = "application/yaml"

func TestBy_AppliesADocumentThatIsBasedOnTheOneInForce(t *testing.T) {
	reg, send := site(t, allow)
	status, header, value := send("GET", "", "", "")
	require.Equal(t, http.StatusOK, status)
	require.Nil(t, value["document"])
	none := header.Get("ETag")

	status, _, value = send("POST", "/plan", yaml, first)
	require.Equal(t, http.StatusOK, status)
	require.Contains(t, value["text"], "+ services.llm.providers[a]: add")
	require.Empty(t, reg.Registrations(), "nothing was changed")

	status, _, _ = send("PUT", "", yaml, first)
	require.Equal(t, http.StatusPreconditionRequired, status)
	status, header, value = send("PUT", "", yaml, first, "If-Match", none)
	require.Equal(t, http.StatusOK, status, value)
	require.Len(t, reg.Registrations(), 2)
	applied := header.Get("ETag")
	status, _, value = send("PUT", "", yaml, first, "If-Match", none)
	require.Equal(t, http.StatusPreconditionFailed, status)
	require.Equal(t, applied, value["current_etag"])

	status, header, value = send("GET", "", "", "")
	require.Equal(t, http.StatusOK, status)
	require.Equal(t, applied, header.Get("ETag"))
	text, err := json.Marshal(value)
	require.NoError(t, err)
	require.Contains(t, string(text), "${env:TEST_API_KEY}")
	require.NotContains(t, string(text), "from-the-environment")
	require.NotContains(t, string(text), "written-out", "a secret that was written out is hidden")
	require.Contains(t, string(text), "[secret]")

	document, err := json.Marshal(map[string]any{"services": map[string]any{"llm": map[string]any{"providers": []any{
		map[string]any{"name": "a", "kind": "model", "settings": map[string]any{"model": "other"}},
	}}}})
	require.NoError(t, err)
	status, _, value = send("PUT", "", "application/json", string(document), "If-Match", "*")
	require.Equal(t, http.StatusOK, status, value)
	require.Len(t, reg.Registrations(), 1)
}

func TestBy_UndoesTheLastDocument(t *testing.T) {
	reg, send := site(t, allow)
	const second = "services:\n  llm:\n    providers:\n      - {name: c, kind: model, settings: {model: other}}\n"
	status, _, value := send("POST", "/undo", "application/json", `{}`, "If-Match", "*")
	require.Equal(t, http.StatusConflict, status)
	require.Contains(t, value["detail"], "no document was applied here so far")
	for _, document := range []string{first, second} {
		status, _, value = send("PUT", "", yaml, document, "If-Match", "*")
		require.Equal(t, http.StatusOK, status, value)
	}
	_, header, _ := send("GET", "", "", "")
	status, _, _ = send("POST", "/undo", "application/json", `{}`)
	require.Equal(t, http.StatusPreconditionRequired, status)
	status, _, _ = send("POST", "/undo", "application/json", `{}`, "If-Match", `"old"`)
	require.Equal(t, http.StatusPreconditionFailed, status)
	status, _, _ = send("POST", "/undo", yaml, first, "If-Match", "*")
	require.Equal(t, http.StatusUnsupportedMediaType, status)
	require.Len(t, reg.Registrations(), 1)

	before := header.Get("ETag")
	status, header, value = send("POST", "/undo", "application/json", `{"reason": "too slow"}`, "If-Match", before)
	require.Equal(t, http.StatusOK, status, value)
	require.Contains(t, value["text"], "- services.llm.providers[c]: remove")
	require.Len(t, reg.Registrations(), 2)
	b, there := reg.Provider("llm", "b")
	require.True(t, there, "with the secret that is not shown")
	require.Equal(t, registry.PriorityLow, b.Info().Priority)
	status, _, _ = send("POST", "/undo", "application/json", `{}`, "If-Match", header.Get("ETag"))
	require.Equal(t, http.StatusOK, status, "what was undone is applied again")
	require.Len(t, reg.Registrations(), 1)
	status, _, _ = send("POST", "/undo", "application/json", `{}`, "If-Match", header.Get("ETag"))
	require.Equal(t, http.StatusPreconditionFailed, status)
	status, _, _ = send("POST", "/undo", "application/json", `{}`, "If-Match", before)
	require.Equal(t, http.StatusPreconditionFailed, status, "a request that is sent again is refused, although the same document is in force")
}

func TestBy_TheFirstDocumentHasNoFormer(t *testing.T) {
	reg, send := site(t, allow)
	status, _, _ := send("PUT", "", yaml, first, "If-Match", "*")
	require.Equal(t, http.StatusOK, status)
	status, _, value := send("POST", "/undo", "application/json", `{}`, "If-Match", "*")
	require.Equal(t, http.StatusConflict, status)
	require.Contains(t, value["detail"], "no document was in force before the first")
	require.Len(t, reg.Registrations(), 2)
}

func TestBy_DoesNotUndoWhatTheProgramHasApplied(t *testing.T) {
	reg, err := registry.New(registry.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, reg.Close(context.Background())) })
	options := config.Options{Kinds: []config.Kind{
		config.Bind(llm, "model", func(_ context.Context, s settings) (string, error) { return s.Model, nil }),
	}}
	manager, err := config.New(reg, options)
	require.NoError(t, err)
	c := configured.By(manager, options)
	one := []byte("services: {llm: {providers: [{name: a, kind: model}]}}")
	_, _, err = c.Apply(t.Context(), []byte("services: {llm: {providers: [{name: b, kind: model}]}}"))
	require.NoError(t, err)
	_, _, err = c.Apply(t.Context(), one)
	require.NoError(t, err)
	_, words, err := c.PlanUndo(t.Context())
	require.NoError(t, err)
	require.Contains(t, words, "- services.llm.providers[a]: remove")
	d, err := config.Parse("program", one)
	require.NoError(t, err)
	_, err = manager.Apply(t.Context(), d)
	require.NoError(t, err)
	_, _, err = c.PlanUndo(t.Context())
	require.ErrorIs(t, err, registry.ErrState)
	_, _, err = c.Undo(t.Context())
	require.ErrorIs(t, err, registry.ErrState)
	require.Len(t, reg.Registrations(), 1)
}

// A document that was read here has a word where a secret is, which must not become the secret.
func TestBy_RefusesTheWordForASecret(t *testing.T) {
	reg, send := site(t, allow)
	status, _, _ := send("PUT", "", yaml, first, "If-Match", "*")
	require.Equal(t, http.StatusOK, status)
	_, _, value := send("GET", "", "", "")
	read, err := json.Marshal(value["document"])
	require.NoError(t, err)
	status, _, value = send("POST", "/lint", "application/json", string(read))
	require.Equal(t, http.StatusOK, status)
	require.Equal(t, []any{map[string]any{
		"file": "document", "path": "services.llm.providers[b].settings.api_key",
		"text": "the secret is not shown here: write it, or better a reference such as ${env:NAME}",
	}}, value["problems"])
	for _, operation := range []string{"POST /plan", "PUT "} {
		method, path, _ := strings.Cut(operation, " ")
		status, _, value = send(method, path, "application/json", string(read), "If-Match", "*")
		require.Equal(t, http.StatusUnprocessableEntity, status, operation)
		require.Len(t, value["problems"], 1)
	}
	require.Len(t, reg.Registrations(), 2)
	const nested = "services: {llm: {providers: [{name: a, kind: model, settings: {model: [{x: '[secret]'}]}}]}}"
	_, _, value = send("POST", "/lint", yaml, nested)
	require.Contains(t, value["problems"].([]any)[0].(map[string]any)["path"], "settings.model[0].x")
}

func TestBy_TellsWhatIsWrongWithADocument(t *testing.T) {
	reg, send := site(t, allow)
	const wrong = "services:\n  llm:\n    providers:\n      - {name: a, kind: model, prioritty: HIGH}\n"
	status, _, value := send("POST", "/lint", yaml, wrong)
	require.Equal(t, http.StatusOK, status)
	require.Equal(t, []any{map[string]any{
		"file": "document", "line": 4.0, "column": 32.0, "path": "services.llm.providers[a].prioritty", "nearest": "priority",
		"text": "unknown field",
	}}, value["problems"])
	for _, method := range []string{"POST /plan", "PUT "} {
		verb, path, _ := strings.Cut(method, " ")
		status, _, value = send(verb, path, yaml, wrong, "If-Match", "*")
		require.Equal(t, http.StatusUnprocessableEntity, status)
		require.Len(t, value["problems"], 1)
	}
	status, _, value = send("POST", "/lint", yaml, first)
	require.Equal(t, http.StatusOK, status)
	require.Empty(t, value["problems"])
	status, _, _ = send("PUT", "", yaml, "include: [/etc/passwd]\n"+first, "If-Match", "*")
	require.Equal(t, http.StatusUnprocessableEntity, status, "documents that are sent read no files")
	status, _, _ = send("PUT", "", yaml, "# "+strings.Repeat("x", 128<<10), "If-Match", "*")
	require.Equal(t, http.StatusRequestEntityTooLarge, status)
	status, _, _ = send("PUT", "", "text/plain", first, "If-Match", "*")
	require.Equal(t, http.StatusUnsupportedMediaType, status)
	require.Empty(t, reg.Registrations())
}

func TestBy_PlansWhereThatIsAllowed(t *testing.T) {
	_, send := site(t, nil)
	for _, operation := range []string{"POST /plan", "POST /lint", "PUT "} {
		method, path, _ := strings.Cut(operation, " ")
		status, _, _ := send(method, path, yaml, first, "If-Match", "*")
		require.Equal(t, http.StatusForbidden, status, operation)
	}
	status, _, value := send("GET", "/schema", "", "")
	require.Equal(t, http.StatusOK, status)
	require.Contains(t, value, "$schema")
}
