package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"maps"
	"net/http"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/rs/cors"
	"go.uber.org/zap"

	"github.com/capreg/registry/registryhttp"
	"github.com/capreg/registry/registryhttp/llm"
)

// ServeHTTP answers in OpenAI's words, also where there is nothing to answer.
func (g *gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if g.admin != nil && strings.HasPrefix(r.URL.Path, "/admin/") {
		http.StripPrefix("/admin", g.admin).ServeHTTP(w, r)
		return
	}
	g.now.Load().handler.ServeHTTP(w, r)
}

// handlerOf returns the handler of a state.
func (g *gateway) handlerOf(s *state) http.Handler {
	named := registryhttp.Middleware(registryhttp.MiddlewareOptions{
		Correlate: true, Caller: func(r *http.Request) string { return s.clientOf(r).name },
	})
	handler := named(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { g.serve(w, r, s) }))
	if len(s.Origins) == 0 {
		return handler
	}
	return cors.New(cors.Options{
		AllowedOrigins: s.Origins, AllowedMethods: []string{http.MethodGet, http.MethodPost}, AllowedHeaders: []string{"*"},
		ExposedHeaders: []string{"*"}, MaxAge: 600,
	}).Handler(handler)
}

func (g *gateway) serve(w http.ResponseWriter, r *http.Request, s *state) {
	method, answer, open := http.MethodGet, g.models, false
	switch at := path.Clean(r.URL.Path); at {
	case "/healthz":
		answer, open = func(w http.ResponseWriter, _ *http.Request, _ *state, _ *client) { _, _ = io.WriteString(w, "ok\n") }, true
	case "/readyz":
		answer, open = g.ready, true
	case "/metrics":
		answer, open = func(w http.ResponseWriter, r *http.Request, _ *state, _ *client) { g.metrics.ServeHTTP(w, r) }, true
	case "/status":
		answer = g.status
	case "/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/embeddings":
		method, answer, r.URL.Path = http.MethodPost, g.ask, at
	default:
		if at != "/v1/models" && !strings.HasPrefix(at, "/v1/models/") {
			refuse(w, r, http.StatusNotFound, "not_found", fmt.Sprintf("there is no %q here", at))
			return
		}
	}
	c := s.clientOf(r)
	switch {
	case r.Method != method:
		w.Header().Set("Allow", method)
		refuse(w, r, http.StatusMethodNotAllowed, "method_not_allowed", fmt.Sprintf("%s is expected, not %q", method, r.Method))
	case c.name == "" && !open:
		w.Header().Set("WWW-Authenticate", "Bearer")
		refuse(w, r, http.StatusUnauthorized, "invalid_api_key", "the gateway does not know this key")
	default:
		answer(w, r, s, c)
	}
}

func refuse(w http.ResponseWriter, r *http.Request, status int, code, message string) {
	(&llm.Error{Status: status, Code: code, Message: message}).ServeHTTP(w, r)
}

// clientOf returns the client that a request is from, without a name where its key is not known. How long that takes tells
// nothing, since keys are found by their hash.
func (s *state) clientOf(r *http.Request) *client {
	if len(s.clients) == 0 {
		return anonymous
	}
	scheme, key, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return unknown
	}
	return cmp.Or(s.clients[sha256.Sum256([]byte(strings.TrimSpace(key)))], unknown)
}

// ask answers a request for a model, within the limits of the client.
func (g *gateway) ask(w http.ResponseWriter, r *http.Request, _ *state, c *client) {
	defer c.running.Add(-1)
	if n := c.running.Add(1); c.Concurrency > 0 && n > c.Concurrency || c.limiter != nil && !c.limiter.Allow() {
		g.limit(w, r, c)
		return
	}
	g.proxy.ServeHTTP(w, r)
}

// limit refuses a request beyond the limits of its client. In ask it would make the stack of each stream twice as large.
func (g *gateway) limit(w http.ResponseWriter, r *http.Request, c *client) {
	w.Header().Set("Retry-After", fmt.Sprintf("%.0f", 1+max(0, (1-c.limiter.Tokens())/float64(c.limiter.Limit()))))
	g.log.Info("a limit of a client is reached", zap.String("id", registryhttp.MetadataOf(r.Context()).Correlation), zap.String("client", c.name))
	refuse(w, r, http.StatusTooManyRequests, "rate_limit_exceeded", "the limit of this key at the gateway is reached")
}

func (c *client) allows(model string) bool {
	return len(c.Models) == 0 || slices.ContainsFunc(c.Models, func(allowed string) bool { return llm.Matches(allowed, model) })
}

// proxyFor returns the proxy. It knows the latest state: a change in progress may take the route of a request away.
func (g *gateway) proxyFor() *llm.Proxy {
	return &llm.Proxy{
		Memory: g.memory, Done: g.done,
		Route: func(r *http.Request, asked llm.Request) (llm.Way, error) {
			g.changing.RLock()
			s := g.now.Load()
			g.changing.RUnlock()
			found, c := s.routeOf(asked.Model), s.clientOf(r)
			if found == nil || c.name == "" || !c.allows(asked.Model) {
				return llm.Way{}, llm.NoModel(asked.Model)
			}
			times, to := found.Timeouts, g.way(found, g.pin(r, s, found, asked.Continues)...)
			return llm.Way{Transport: to, Timeout: time.Duration(times.Total), CommentEvery: time.Duration(times.Comment), Tokens: g.tokens.Of(c.account, c.TokensPerMinute)}, nil
		},
	}
}

// routeOf returns the route of the model: the one of its name, or the one with the longest beginning.
func (s *state) routeOf(model string) (found *route) {
	if r := s.routes[model]; r != nil && !r.star() {
		return r
	}
	for _, r := range s.routes {
		if r.star() && llm.Matches(r.Model, model) && (found == nil || len(r.Model) > len(found.Model)) {
			found = r
		}
	}
	return found
}

// pin returns what upstreams must have for a request: vectors of another model are of no use beside the old ones, and only
// the upstream that has begun a conversation can continue it.
func (g *gateway) pin(r *http.Request, s *state, to *route, continues string) []string {
	if continues == "" && !strings.HasSuffix(r.URL.Path, "/embeddings") {
		return nil
	}
	first := to.upstreams()[0]
	if continues == "" {
		return []string{"model " + cmp.Or(s.Upstreams[first].Models[to.Model], to.Model)}
	}
	if origin := g.origins.Of(continues); slices.Contains(to.upstreams(), origin) {
		first = origin
	}
	return []string{"upstream " + first}
}

// done notes and logs what was answered.
func (g *gateway) done(r *http.Request, report *llm.Report) {
	asked, m := report.Asked, registryhttp.MetadataOf(r.Context())
	g.log.Info("request", zap.String("id", m.Correlation), zap.String("client", m.Caller), zap.String("path", r.URL.Path), zap.Inline(report))
	g.origins.Note(report)
	if to := g.now.Load().routeOf(asked.Model); report.Err == nil && to != nil && to.star() {
		g.learn(context.WithoutCancel(r.Context()), to, asked.Model)
	}
}

// ready reports whether there is a route that can answer.
func (g *gateway) ready(w http.ResponseWriter, r *http.Request, s *state, _ *client) {
	for _, to := range s.routes {
		if !g.stopping.Load() && g.resolver(to).Ready() == nil {
			_, _ = io.WriteString(w, "ready\n")
			return
		}
	}
	refuse(w, r, http.StatusServiceUnavailable, "not_ready", "no model can answer now")
}

// status reports the next upstream of each route, and why others are not eligible.
func (g *gateway) status(w http.ResponseWriter, _ *http.Request, s *state, _ *client) {
	for _, name := range slices.Sorted(maps.Keys(s.routes)) {
		_, _ = fmt.Fprintf(w, "%v\n", g.resolver(s.routes[name]).Explain()) // the client may be gone
	}
}

// models lists the models that the client can name, or describes one. Those of a route with a star are what its upstreams list.
func (g *gateway) models(w http.ResponseWriter, r *http.Request, s *state, c *client) {
	var all []llm.Model
	for _, to := range s.routes {
		if !to.star() {
			all = append(all, llm.Model{ID: to.Model, Object: "model", Created: g.started.Unix(), OwnedBy: "gateway"})
			continue
		}
		for _, name := range to.upstreams() {
			if len(s.Upstreams[name].Models) == 0 {
				all = append(all, g.lists.Of(r.Context(), name, "http://gateway/v1/models", g.way(to, "upstream "+name))...)
			}
		}
	}
	all = slices.DeleteFunc(all, func(m llm.Model) bool { return !c.allows(m.ID) || s.routeOf(m.ID) == nil })
	llm.ServeModels(w, r, all)
}
