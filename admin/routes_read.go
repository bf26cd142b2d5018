package admin

import (
	"context"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/capreg/registry"
	"github.com/capreg/registry/admin/internal/control"
	"github.com/capreg/registry/admin/internal/input"
	"github.com/capreg/registry/health"
	"github.com/capreg/registry/selection"
)

func typeOf[T any]() reflect.Type { return reflect.TypeFor[T]() }

type servicesInput struct {
	State      string `query:"state" enum:"healthy,degraded,unhealthy" doc:"Only services in that state"`
	Capability string `query:"capability" maxLength:"1024" doc:"Only services with a provider that declares it"`
	Search     string `query:"search" maxLength:"1024" doc:"Only services with that text in their name or a provider's"`
	Limit      int    `query:"limit" minimum:"1" maximum:"1000" default:"1000"`
	PageToken  string `query:"page_token" maxLength:"2048" doc:"next_page_token of the page before"`
}

type servicesAnswer struct {
	Services      []control.Service `json:"services"`
	TotalServices int               `json:"total_services"`
	NextPageToken string            `json:"next_page_token,omitempty"`
}

func (h *Handler) addServiceRoutes() {
	huma.Register(h.api, h.operation("services", http.MethodGet, base+"/services", "The services with their providers"),
		func(_ context.Context, in *servicesInput) (*body[servicesAnswer], error) {
			return &body[servicesAnswer]{h.services(in)}, nil
		})
	huma.Register(h.api, h.operation("services-health", http.MethodGet, base+"/services/health", "The health of all services, and what to do about it"),
		func(context.Context, *struct{}) (*body[control.Health], error) {
			return &body[control.Health]{h.control.Health()}, nil
		})
	huma.Register(h.api, h.operation("services-selection", http.MethodGet, base+"/services/selection", "Which provider a query is given to now, and why not the others"),
		func(ctx context.Context, in *selectionInput) (*body[control.Selection], error) {
			q, err := in.query()
			if err != nil {
				return nil, problemOf(err)
			}
			return answerOf(h.control.Explain(ctx, in.Service, q, in.Caller))
		})
	huma.Register(h.api, h.operation("what-if", http.MethodPost, base+"/what-if", "Which provider a query would be given to without some of them; nothing is changed"),
		func(ctx context.Context, in *whatIfInput) (*body[control.WhatIf], error) {
			if err := h.control.MayRead(h.party(requestOf(ctx))); err != nil {
				return nil, problemOf(err)
			}
			return answerOf(h.control.WhatIf(ctx, in.Body.Service, in.Body.Query, in.Body.Caller, in.Body.Without))
		})
	for path, group := range map[string]string{livePath: health.Liveness, readyPath: health.Readiness} {
		op := h.operation(strings.Trim(path, "/"), http.MethodGet, path, "Whether the group "+group+" is not unhealthy, for orchestrators; without authorisation")
		op.Responses["503"] = &huma.Response{Description: "Unhealthy", Content: map[string]*huma.MediaType{"application/json": {Schema: schemaOf[probeAnswer](h)}}}
		huma.Register(h.api, op, func(context.Context, *struct{}) (*probeOutput, error) {
			state := h.control.Registry().Health(group).State
			status := http.StatusOK
			if state == health.Unhealthy {
				status = http.StatusServiceUnavailable
			}
			return &probeOutput{status, probeAnswer{state}}, nil
		})
	}
}

type probeOutput struct {
	Status int
	Body   probeAnswer
}

type probeAnswer struct {
	Status health.State `json:"status"`
}

func (h *Handler) services(in *servicesInput) servicesAnswer {
	s := h.control.Snapshot()
	found := []control.Service{}
	text := strings.ToLower(in.Search)
	for _, service := range s.Services {
		named := strings.Contains(strings.ToLower(service.Name), text) ||
			slices.ContainsFunc(service.Providers, func(r control.Row) bool { return strings.Contains(strings.ToLower(r.Provider), text) })
		capable := in.Capability == "" ||
			slices.ContainsFunc(service.Providers, func(r control.Row) bool { return slices.Contains(r.Capabilities, in.Capability) })
		if named && capable && (in.State == "" || in.State == service.State.String()) {
			found = append(found, service)
		}
	}
	answer := servicesAnswer{TotalServices: len(found)}
	from, _ := slices.BinarySearchFunc(found, in.PageToken, func(s control.Service, after string) int {
		if s.Name > after || after == "" {
			return 1
		}
		return -1
	})
	answer.Services = found[from:min(len(found), from+in.Limit)]
	if from+in.Limit < len(found) {
		answer.NextPageToken = found[from+in.Limit-1].Name
	}
	return answer
}

type selectionInput struct {
	Service    string   `query:"service" required:"true" maxLength:"1024" doc:"Name of the service"`
	Caller     string   `query:"caller" maxLength:"1024" doc:"Caller that rates and authorisers count for; default: the handler"`
	Handler    string   `query:"handler" maxLength:"1024" doc:"Handler whose own providers come first"`
	OwnOnly    bool     `query:"own_only" doc:"Without the global providers"`
	Require    []string `query:"require,explode" maxItems:"256" doc:"Required capabilities, all of them"`
	Prefer     []string `query:"prefer,explode" maxItems:"256" doc:"Preferred capabilities and tags"`
	Only       []string `query:"only,explode" maxItems:"256" doc:"The only providers that may be asked"`
	Exclude    []string `query:"exclude,explode" maxItems:"256" doc:"Providers that are taken away"`
	Tags       []string `query:"tag,explode" maxItems:"256" doc:"Tags that a provider must have, all of them"`
	Regions    []string `query:"region,explode" maxItems:"256" doc:"Accepted regions"`
	Near       string   `query:"near" maxLength:"1024" doc:"Region of the caller"`
	Key        string   `query:"key" maxLength:"1024" doc:"Affinity key of sticky strategies"`
	MaxCost    float64  `query:"max_cost" minimum:"0"`
	MaxLatency string   `query:"max_latency" maxLength:"64" doc:"Such as 2s"`
	MinVersion string   `query:"min_version" maxLength:"1024"`
}

func (in *selectionInput) query() (registry.Query, error) {
	var latency duration
	if in.MaxLatency != "" {
		if err := latency.UnmarshalText([]byte(in.MaxLatency)); err != nil {
			return registry.Query{}, &control.Error{Kind: control.Invalid, Text: err.Error(), Field: "query.max_latency"}
		}
	}
	return registry.Query{
		Handler: in.Handler, OwnOnly: in.OwnOnly, Only: in.Only, Require: in.Require, Prefer: in.Prefer, Near: in.Near, Key: in.Key,
		Where: selection.Requirements{
			MaxLatency: time.Duration(latency), MaxCost: in.MaxCost, MinVersion: in.MinVersion, Tags: in.Tags,
			Regions: in.Regions, Exclude: in.Exclude,
		},
	}, nil
}

type whatIfInput struct {
	Body struct {
		Service string         `json:"service" maxLength:"1024"`
		Query   registry.Query `json:"query,omitzero" doc:"Kind of request; default: any global provider"`
		Caller  string         `json:"caller,omitempty" maxLength:"1024"`
		Without []string       `json:"without,omitempty" maxItems:"256" nullable:"false" doc:"Providers that are taken away"`
	}
}

type providersInput struct {
	Service    string `query:"service" maxLength:"1024"`
	State      string `query:"state" enum:"unknown,starting,healthy,degraded,unhealthy,draining" doc:"State of health"`
	Code       string `query:"code" maxLength:"64" doc:"Reason, such as breaker_open"`
	Breaker    string `query:"circuit_breaker" enum:"closed,open,half-open"`
	Capability string `query:"capability" maxLength:"1024"`
	Search     string `query:"search" maxLength:"1024" doc:"Text in its name, its service, its reason or its last error"`
	Ineligible bool   `query:"ineligible" doc:"Only those that no call can be given to"`
	Limit      int    `query:"limit" minimum:"1" maximum:"1000" default:"100"`
	PageToken  string `query:"page_token" maxLength:"2048" doc:"next_page_token of the page before"`
}

type providersAnswer struct {
	Providers      []control.Row `json:"providers"`
	TotalProviders int           `json:"total_providers"`
	NextPageToken  string        `json:"next_page_token,omitempty"`
}

type decisionsInput struct {
	Service string `query:"service" maxLength:"1024"`
	Limit   int    `query:"limit" minimum:"1" maximum:"1000" default:"100"`
}

type decisionsAnswer struct {
	Decisions []selection.Decision `json:"decisions"`
}

func (h *Handler) addProviderRoutes() {
	huma.Register(h.api, h.operation("providers", http.MethodGet, base+"/providers", "The providers, filtered and in pages"),
		func(_ context.Context, in *providersInput) (*body[providersAnswer], error) {
			page, next, total, err := h.control.Providers(control.Filter{
				Service: in.Service, State: in.State, Code: in.Code, Breaker: in.Breaker, Capability: in.Capability,
				Text: in.Search, Ineligible: in.Ineligible,
			}, in.PageToken, in.Limit)
			return answerOf(providersAnswer{page, total, next}, err)
		})
	op := h.operation("provider", http.MethodGet, base+"/providers/{provider}", "All that is known of a provider")
	h.addProblem(&op, http.StatusConflict)
	huma.Register(h.api, op, func(_ context.Context, in *input.Target) (*tagged[*control.Detail], error) {
		detail, err := h.control.Provider(in.Target())
		if err != nil {
			return nil, problemOf(err)
		}
		return taggedOf(detail, detail.Tag, nil)
	})
	huma.Register(h.api, h.operation("decisions", http.MethodGet, base+"/decisions", "The latest picks, newest first, where the program records them"),
		func(_ context.Context, in *decisionsInput) (*body[decisionsAnswer], error) {
			return &body[decisionsAnswer]{decisionsAnswer{h.control.Decisions(in.Service, in.Limit)}}, nil
		})
	op = h.operation("snapshot", http.MethodGet, base+"/snapshot", "The registry at one moment, at most a quarter of a second old")
	op.Responses["200"] = &huma.Response{Description: "OK", Content: map[string]*huma.MediaType{"application/json": {Schema: schemaOf[control.Snapshot](h)}}}
	op.Responses["304"] = &huma.Response{Description: "Not Modified"}
	huma.Register(h.api, op, func(_ context.Context, in *struct {
		IfNoneMatch string `header:"If-None-Match"`
	},
	) (*rawAnswer, error) {
		text, tag := h.control.Snapshot().Text()
		if matchesAny(in.IfNoneMatch, tag) {
			return &rawAnswer{Status: http.StatusNotModified, ETag: tag}, nil
		}
		return &rawAnswer{Status: http.StatusOK, ContentType: "application/json", ETag: tag, Body: text}, nil
	})
}
