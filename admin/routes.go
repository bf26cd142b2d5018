package admin

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/capreg/registry/admin/internal/control"
)

// Paths of what is reached in other ways than the rest.
const (
	base      = "/v1/runtime"
	livePath  = "/livez"
	readyPath = "/readyz"
	undoPath  = base + "/configuration/undo"
	yamlType  = "application/yaml"
)

// apiVersion is that of the paths and forms.
const apiVersion = "1.0.0"

// addRoutes enters all operations.
func (h *Handler) addRoutes() {
	schemas := newRegistry()
	config := huma.DefaultConfig("Registry control API", apiVersion)
	config.Components = &huma.Components{
		Schemas: schemas,
		SecuritySchemes: map[string]*huma.SecurityScheme{
			"bearer": {Type: "http", Scheme: "bearer"}, "basic": {Type: "http", Scheme: "basic"},
		},
	}
	config.Info.Description = "Reads and changes the service registry of one program. Where the program has given no authoriser, everything can be read and nothing be changed. " +
		"Bodies are application/json; changes need If-Match, with the ETag that was read or *, but for priority and reset, where it may be left out. " +
		"Where a name cannot stand in a path, such as .. or behind a proxy that decodes it, the query parameter provider names it instead."
	config.Servers = []*huma.Server{{URL: "../", Description: "The place that the handler is mounted at"}}
	config.OpenAPIPath, config.DocsPath, config.SchemasPath, config.CreateHooks = "", "", "", nil
	config.Formats = map[string]huma.Format{"application/json": strictJSON(), "json": strictJSON()} // and what ends in +json: problems
	config.RejectUnknownQueryParameters = true
	h.api = humago.New(h.mux, config)
	h.addServiceRoutes()
	h.addProviderRoutes()
	h.addChangeRoutes()
	h.addProgramRoutes()
	h.addEventRoutes()
	h.addDocument()
}

// operation returns an operation with its answers.
func (h *Handler) operation(id, method, path, summary string) huma.Operation {
	op := huma.Operation{
		OperationID: id, Method: method, Path: path, Summary: summary, MaxBodyBytes: longestBody, BodyReadTimeout: bodyTime,
		Responses: map[string]*huma.Response{}, Security: []map[string][]string{{}, {"bearer": {}}, {"basic": {}}},
	}
	statuses := []int{400, 401, 403, 404, 421, 422, 500}
	if method != http.MethodGet {
		statuses = append(statuses, 408, 409, 412, 413, 415, 428, 429, 502, 503)
	}
	for _, status := range statuses {
		h.addProblem(&op, status)
	}
	return op
}

func (h *Handler) addProblem(op *huma.Operation, status int) {
	op.Responses[strconv.Itoa(status)] = &huma.Response{
		Description: http.StatusText(status),
		Content:     map[string]*huma.MediaType{problemType: {Schema: schemaOf[problem](h)}},
	}
}

func schemaOf[T any](h *Handler) *huma.Schema {
	return h.api.OpenAPI().Components.Schemas.Schema(typeOf[T](), true, "")
}

// body is the answer of most operations.
type body[T any] struct{ Body T }

// tagged is an answer with the tag that changes are based on.
type tagged[T any] struct {
	ETag string `header:"ETag" doc:"Tag of the settings, for If-Match"`
	Body T
}

// answerOf returns an answer, or an error as a problem.
func answerOf[T any](value T, err error) (*body[T], error) {
	if err != nil {
		return nil, problemOf(err)
	}
	return &body[T]{value}, nil
}

// taggedOf is answerOf with a tag.
func taggedOf[T any](value T, tag string, err error) (*tagged[T], error) {
	if err != nil {
		return nil, problemOf(err)
	}
	return &tagged[T]{tag, value}, nil
}

// ask returns what a request asks for, with the side that sends it.
func (h *Handler) ask(ctx context.Context, match, reason string, unconditional bool) control.Ask {
	return control.Ask{Party: h.party(requestOf(ctx)), Match: match, Reason: reason, Unconditional: unconditional}
}

// addDocument adds the OpenAPI document, which describes itself as well.
func (h *Handler) addDocument() {
	op := h.operation("openapi", http.MethodGet, "/v1/openapi.json", "This document")
	op.Responses["200"] = &huma.Response{Content: map[string]*huma.MediaType{"application/json": {Schema: &huma.Schema{Type: huma.TypeObject, AdditionalProperties: true}}}}
	text := sync.OnceValues(func() ([]byte, error) { return json.Marshal(h.api.OpenAPI()) })
	huma.Register(h.api, op, func(context.Context, *struct{}) (*documentText, error) {
		document, err := text()
		if err != nil {
			return nil, problemOf(err)
		}
		return &documentText{"application/json", document}, nil
	})
}

// documentText is a text that is made already.
type documentText struct {
	ContentType string `header:"Content-Type"`
	Body        []byte
}

// rawAnswer is an answer whose text is made already.
type rawAnswer struct {
	Status      int
	ContentType string `header:"Content-Type"`
	ETag        string `header:"ETag" doc:"Tag of the content"`
	Body        []byte
}

// OpenAPI returns the OpenAPI document (3.1) of the API as JSON, which is served at v1/openapi.json as well.
func (h *Handler) OpenAPI() ([]byte, error) { return json.Marshal(h.api.OpenAPI()) }

// matchesAny reports whether a tag is among those of an If-None-Match header.
func matchesAny(header, tag string) bool {
	return slices.ContainsFunc(strings.Split(header, ","), func(one string) bool {
		one = strings.TrimPrefix(strings.TrimSpace(one), "W/")
		return one == tag || one == "*"
	})
}

func takesDocument(path string) bool {
	return strings.HasPrefix(path, base+"/configuration") && path != undoPath
}
