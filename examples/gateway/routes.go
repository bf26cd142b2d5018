package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/capreg/registry"
	"github.com/capreg/registry/registryhttp"
	"github.com/capreg/registry/registryhttp/llm"
	"github.com/capreg/registry/verdict"
)

// Models is the service of the gateway: each route is a handler of it, with a provider for each key of its upstreams.
var Models = registry.NewService[*registryhttp.Upstream]("models")

// mostLearned bounds the models of routes with a star that get a route, and so breakers, of their own.
const mostLearned = 200

// state is a configuration in force. It does not change: another one takes its place.
type state struct {
	Config

	routes  map[string]*route             // by model
	clients map[[sha256.Size]byte]*client // by the hash of the key
	made    map[string]string             // what each provider was made of, by its name
	handler http.Handler
}

// route is a way to a model.
type route struct {
	Route

	ways sync.Map // the transports to its upstreams, by the capabilities that these must have
}

func (r Route) star() bool { return strings.HasSuffix(r.Model, "*") }

// client is a program that may ask.
type client struct {
	Client

	name, account string // the account is that of its tokens
	limiter       *rate.Limiter
	running       atomic.Int64
}

var anonymous, unknown = &client{name: "anonymous"}, &client{} //nolint:gochecknoglobals // what counts in them is not read

// expanded returns the route, and one of its own for each model with its beginning that an upstream maps, since other upstreams
// may not have it, or that was learned. What remains with a star is for the names that are passed on as they are.
func (c Config) expanded(r Route, learned []string) (all []Route) {
	models := []string{r.Model}
	for _, name := range r.upstreams() {
		models = append(models, slices.Sorted(maps.Keys(c.Upstreams[name].Models))...)
	}
	for _, model := range slices.Concat(models, learned) {
		if own := c.of(r, model); llm.Matches(r.Model, model) && len(own.upstreams()) > 0 {
			all = append(all, own)
		}
	}
	return all
}

// of returns the route for one model, with the upstreams that have it.
func (c Config) of(r Route, model string) Route {
	r.Model, r.Groups = model, slices.Clone(r.Groups)
	for i := range r.Groups {
		r.Groups[i].Upstreams = slices.DeleteFunc(slices.Clone(r.Groups[i].Upstreams), func(name string) bool {
			models := c.Upstreams[name].Models
			return len(models) > 0 && models[model] == ""
		})
	}
	return r
}

// upstreams returns the names of all upstreams, in order.
func (r Route) upstreams() (names []string) {
	for _, group := range r.Groups {
		names = append(names, group.Upstreams...)
	}
	return names
}

// apply puts a configuration in force. Providers that it does not change keep their breakers, cooldowns and requests; an
// error changes nothing.
func (g *gateway) apply(ctx context.Context, settings Config) error {
	g.changing.Lock()
	defer g.changing.Unlock()
	settings.Timeouts = settings.Timeouts.over(Timeouts{})
	next := &state{Config: settings, routes: make(map[string]*route), clients: make(map[[sha256.Size]byte]*client)}
	for name, c := range settings.Clients {
		if err := next.admit(name, c); err != nil {
			return err
		}
	}
	byLength := slices.SortedStableFunc(slices.Values(settings.Routes), func(a, b Route) int { return len(b.Model) - len(a.Model) })
	for _, r := range byLength { // the most exact route is taken, and one that is configured before one that follows from a star
		for _, own := range settings.expanded(r, g.learned) {
			if next.routes[own.Model] == nil || own.Model == r.Model {
				own.Timeouts, own.WholeAnswers = own.Timeouts.over(settings.Timeouts), own.WholeAnswers || settings.WholeAnswers
				next.routes[own.Model] = &route{Route: own}
			}
		}
	}
	return g.change(ctx, next)
}

// admit adds a client.
func (s *state) admit(name string, c Client) error {
	hash, limit := sha256.Sum256([]byte(c.Key.Reveal())), rate.Inf
	if other := s.clients[hash]; other != nil {
		return fmt.Errorf("configuration: clients.%s.key: it is the key of %s, too", name, other.name)
	}
	if c.RequestsPerMinute > 0 {
		limit = rate.Every(time.Minute / time.Duration(c.RequestsPerMinute))
	}
	s.clients[hash] = &client{Client: c, name: name, account: "client " + name, limiter: rate.NewLimiter(limit, c.RequestsPerMinute)}
	return nil
}

// learn gives a model that a route with a star has answered for a route of its own: what goes wrong with another model then
// leaves it alone.
func (g *gateway) learn(ctx context.Context, star *route, model string) {
	g.changing.Lock()
	defer g.changing.Unlock()
	next := *g.now.Load()
	if next.routes[star.Model] != star || next.routes[model] != nil || len(g.learned) >= mostLearned {
		return
	}
	next.routes = maps.Clone(next.routes)
	next.routes[model] = &route{Route: next.of(star.Route, model)}
	if g.change(ctx, &next) == nil { // else the model stays with the others of the star
		g.learned = append(g.learned, model)
	}
}

// change makes the providers those of the next state, at one moment, and puts it in force.
func (g *gateway) change(ctx context.Context, next *state) error {
	var update registry.Update
	before := make(map[string]string)
	if now := g.now.Load(); now != nil {
		before = now.made
	}
	next.made = make(map[string]string)
	for _, model := range slices.Sorted(maps.Keys(next.routes)) {
		all, err := g.providers(next, next.routes[model])
		if err != nil {
			return fmt.Errorf("configuration: %w", err)
		}
		for _, p := range all {
			next.made[p.Name] = p.Description
			if before[p.Name] != p.Description { // one that was made of other things
				p.Description = ""
				Models.AddTo(&update, p)
			}
		}
	}
	for name, made := range before {
		if next.made[name] != made {
			update.Remove(Models.Name(), name)
		}
	}
	if err := g.registry.Update(ctx, &update); err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	next.handler = g.handlerOf(next)
	g.now.Store(next)
	g.learned = slices.DeleteFunc(g.learned, func(model string) bool { return next.routes[model] == nil })
	return nil
}

// resolver returns one of the route, for the upstreams that have the capabilities.
func (g *gateway) resolver(r *route, capabilities ...string) *registry.Resolver[*registryhttp.Upstream] {
	return Models.Bind(g.registry, registry.Query{Handler: "model " + r.Model, OwnOnly: true, Require: capabilities})
}

// way returns the transport to the upstreams that have the capabilities. The times of attempts are those of each upstream.
func (g *gateway) way(r *route, capabilities ...string) http.RoundTripper {
	key := strings.Join(capabilities, "\n")
	if known, ok := r.ways.Load(key); ok {
		return known.(*registryhttp.Transport) //nolint:forcetypeassert // there is nothing else in it
	}
	total := time.Duration(r.Timeouts.Total)
	way, err := registryhttp.NewTransport(g.resolver(r, capabilities...), registryhttp.Options{
		Base: "/v1", Repeatable: func(*http.Request) bool { return true },
		FirstTimeout: total, StallTimeout: total, Timeout: total, Transport: g.network,
	})
	if err != nil {
		panic(err) // the options are fixed
	}
	known, _ := r.ways.LoadOrStore(key, way)
	return known.(*registryhttp.Transport) //nolint:forcetypeassert // see above
}

// providers returns the providers of a route.
func (g *gateway) providers(s *state, r *route) (all []registry.Provider[*registryhttp.Upstream], err error) {
	for rank, group := range r.Groups {
		for place, name := range group.Upstreams {
			providers, err := g.providersAt(s, r, name)
			if err != nil {
				return nil, fmt.Errorf("upstreams.%s: %w", name, err)
			}
			for _, p := range providers {
				p.Group, p.Strategy = rank, group.Strategy
				p.Description += fmt.Sprint(rank, place, group.Strategy)
				all = append(all, p)
			}
		}
	}
	return all, nil
}

// providersAt returns the providers of a route at an upstream, one for each key, which is a failure domain. The description of
// each has all that it was made of.
func (g *gateway) providersAt(s *state, r *route, name string) (all []registry.Provider[*registryhttp.Upstream], err error) {
	upstream := s.Upstreams[name]
	upstream.LastResort = upstream.LastResort || r.star() || len(r.upstreams()) == 1
	times := upstream.Timeouts.over(r.Timeouts)
	headers := upstream.headers()
	for i, header := range headers {
		domain := name + strings.Repeat("#"+strconv.Itoa(i+1), min(i, 1))
		p := registry.Provider[*registryhttp.Upstream]{
			Name: r.Model + " at " + domain, Handler: "model " + r.Model, Domain: domain, Classify: r.classify,
			Capabilities: []string{"upstream " + name, "model " + cmp.Or(upstream.Models[r.Model], r.Model)}, Weight: upstream.Weight / float64(len(headers)),
			LastResort: upstream.LastResort, Window: upstream.Window, Breaker: upstream.Breaker, Limits: upstream.Limits,
			Retry: *cmp.Or(upstream.Retry, &registry.RetryPolicy{Retries: 1}),
		}
		p.Instance, err = registryhttp.NewUpstream(upstream.URL, registryhttp.UpstreamOptions{Header: header, Transport: &llm.Transport{
			Name: name, Base: g.network, Models: upstream.Models, Whole: r.WholeAnswers, Memory: g.memory, Tokens: g.tokens.Of("upstream "+name, upstream.TokensPerMinute),
			FirstTimeout: time.Duration(times.FirstToken), StallTimeout: time.Duration(times.Stall), AnswerTimeout: time.Duration(times.Answer),
		}})
		if err != nil {
			return nil, err
		}
		made, _ := json.Marshal([]any{upstream, header, times, r.WholeAnswers})
		p.Description = string(made)
		all = append(all, p)
	}
	return all, nil
}

// classify reads errors as verdict.LLM does. Limits of rate are those of a model, unless a quota is the reason. That a model is
// not there says nothing about the others of a route with a star.
func (r *route) classify(err error) verdict.Verdict {
	v := verdict.LLM(err)
	switch {
	case v.Class == verdict.ClassRateLimited:
		v.Scope = verdict.ScopeProvider
	case v.Class == verdict.ClassNotFound && r.star():
		v = verdict.Verdict{Class: verdict.ClassNotAllowed}
	}
	return v
}
