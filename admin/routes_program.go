package admin

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/capreg/registry/admin/internal/control"
	"github.com/capreg/registry/admin/internal/input"
	"github.com/capreg/registry/startup"
)

type restartInput struct {
	input.Match

	Component string `path:"component" maxLength:"1024" doc:"Name of the component"`
	Body      reasonBody
}

type restartAnswer struct {
	Component string        `json:"component"`
	State     startup.State `json:"state"`
}

type documentAnswer struct {
	Document json.RawMessage `json:"document" doc:"The document in force, with references as they were written; null: none"`
}

type lintAnswer struct {
	Problems []control.DocumentProblem `json:"problems"`
}

// documentInput takes the text of a document as it is.
type documentInput struct {
	input.Match

	RawBody []byte `contentType:"application/yaml"`
}

type undoInput struct {
	input.Match

	Body reasonBody
}

type fleetInput struct {
	Node      string `query:"node" maxLength:"1024" doc:"Only the node of that name"`
	Limit     int    `query:"limit" minimum:"1" maximum:"1000" default:"100" doc:"Nodes of a page"`
	PageToken string `query:"page_token" maxLength:"2048" doc:"next_page_token of the page before"`
}

func (h *Handler) addProgramRoutes() {
	huma.Register(h.api, h.operation("orchestrator", http.MethodGet, base+"/orchestrator", "Plan, report and states of the components of the program"),
		func(context.Context, *struct{}) (*tagged[control.Startup], error) {
			s, err := h.control.Startup()
			return taggedOf(s, s.Tag, err)
		})
	huma.Register(h.api, h.operation("restart", http.MethodPost, base+"/orchestrator/components/{component}/restart", "Restart a component, and wait until it is ready"),
		func(ctx context.Context, in *restartInput) (*body[restartAnswer], error) {
			state, err := h.control.Restart(ctx, h.ask(ctx, in.IfMatch, in.Body.Reason, true), in.Component)
			return answerOf(restartAnswer{in.Component, state}, err)
		})
	huma.Register(h.api, h.programOperation("fleet", "/fleet", "The processes that offer providers to each other, as this one sees them"),
		func(_ context.Context, in *fleetInput) (*body[control.FleetPage], error) {
			return answerOf(h.control.FleetNodes(in.Node, in.PageToken, in.Limit))
		})
	huma.Register(h.api, h.programOperation("configuration", "/configuration", "The document in force"),
		func(context.Context, *struct{}) (*tagged[documentAnswer], error) {
			document, tag, err := h.control.Document()
			return taggedOf(documentAnswer{document}, tag, err)
		})
	huma.Register(h.api, h.programOperation("configuration-schema", "/configuration/schema", "The JSON Schema of documents"),
		func(context.Context, *struct{}) (*body[json.RawMessage], error) {
			return answerOf[json.RawMessage](h.control.Schema())
		})
	huma.Register(h.api, h.documentOperation("configuration-lint", http.MethodPost, "/lint", "What is wrong with a document"),
		func(ctx context.Context, in *documentInput) (*body[lintAnswer], error) {
			if err := h.control.MayPlan(h.party(requestOf(ctx))); err != nil {
				return nil, problemOf(err)
			}
			problems, err := h.control.Lint(in.RawBody)
			return answerOf(lintAnswer{problems}, err)
		})
	huma.Register(h.api, h.documentOperation("configuration-plan", http.MethodPost, "/plan", "What a document would change; nothing is changed"),
		func(ctx context.Context, in *documentInput) (*body[control.Planned], error) {
			if err := h.control.MayPlan(h.party(requestOf(ctx))); err != nil {
				return nil, problemOf(err)
			}
			return answerOf(h.control.PlanDocument(ctx, in.RawBody))
		})
	huma.Register(h.api, h.documentOperation("configuration-apply", http.MethodPut, "", "Apply a document at one moment, or not at all"),
		func(ctx context.Context, in *documentInput) (*tagged[control.Planned], error) {
			done, err := h.control.ApplyDocument(ctx, h.ask(ctx, in.IfMatch, "", false), in.RawBody)
			return taggedOf(done, done.Tag, err)
		})
	huma.Register(h.api, h.operation("configuration-undo", http.MethodPost, undoPath, "Apply again the document that was in force before the last one that was applied here"),
		func(ctx context.Context, in *undoInput) (*tagged[control.Planned], error) {
			done, err := h.control.UndoDocument(ctx, h.ask(ctx, in.IfMatch, in.Body.Reason, false))
			return taggedOf(done, done.Tag, err)
		})
}

// programOperation reads what the program has given, which may fail.
func (h *Handler) programOperation(id, path, summary string) huma.Operation {
	op := h.operation(id, http.MethodGet, base+path, summary)
	h.addProblem(&op, http.StatusBadGateway)
	return op
}

// documentOperation is an operation whose body is a document, in YAML or JSON.
func (h *Handler) documentOperation(id, method, path, summary string) huma.Operation {
	op := h.operation(id, method, base+"/configuration"+path, summary)
	op.MaxBodyBytes = h.options.MaxDocument
	op.RequestBody = &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{"application/json": {}}}
	return op
}
