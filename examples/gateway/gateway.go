package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"log"
	"maps"
	"math"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/capreg/registry"
	"github.com/capreg/registry/event"
	"github.com/capreg/registry/selection"
	"github.com/capreg/registry/selectors"
	"github.com/capreg/registry/stream"
	"github.com/capreg/registry/verdict"
)

// Chat is the service of the gateway: each route is a handler of it, with a
// provider for each of its upstreams.
var Chat = registry.NewService[*target]("chat")

// gateway answers requests. It is an http.Handler.
type gateway struct {
	config   Config
	registry *registry.Registry
	routes   map[string]*registry.Resolver[*target] // by the model of the route
	whole    map[string]bool
	keys     map[string][sha256.Size]byte // by client
	clients  []*http.Client
	mux      *http.ServeMux
	log      *log.Logger
	started  time.Time
	told     chan struct{} // closed when the last event is logged
}

func newGateway(ctx context.Context, config Config, logger *log.Logger) (_ *gateway, err error) {
	g := &gateway{
		config: config, log: logger, started: time.Now(), mux: http.NewServeMux(),
		routes: make(map[string]*registry.Resolver[*target]), whole: make(map[string]bool),
		keys: make(map[string][sha256.Size]byte),
	}
	if g.registry, err = registry.New(registry.Options{Strategies: selectors.All()}); err != nil {
		return nil, err
	}
	events := g.registry.Subscribe(0)
	g.told = make(chan struct{})
	go g.logEvents(events) //nolint:gosec // it ends with the registry, not with ctx
	defer func() {
		if err != nil {
			err = errors.Join(err, g.close(ctx))
		}
	}()
	for name, variable := range config.Clients {
		g.keys[name] = sha256.Sum256([]byte(os.Getenv(variable)))
	}
	connections := make(map[string]*http.Client)
	for name := range config.Upstreams {
		connections[name] = newClient()
		g.clients = append(g.clients, connections[name])
	}
	for _, route := range config.expanded() {
		if err := g.wireRoute(ctx, route, connections); err != nil {
			return nil, err
		}
		g.routes[route.Model] = Chat.Bind(g.registry, registry.Query{
			Handler: handlerOf(route.Model), OwnOnly: true, TryRefused: strings.HasSuffix(route.Model, "*"),
		})
		g.whole[route.Model] = config.WholeAnswers || route.WholeAnswers
	}
	g.mux.HandleFunc("POST /v1/chat/completions", g.admitted(g.chat))
	g.mux.HandleFunc("GET /v1/models", g.admitted(g.models))
	g.mux.HandleFunc("GET /status", g.admitted(g.status))
	return g, nil
}

// wireRoute registers the upstreams of a route.
func (g *gateway) wireRoute(ctx context.Context, route Route, connections map[string]*http.Client) error {
	for rank, group := range route.Groups {
		for _, name := range group.Upstreams {
			if err := g.wire(ctx, route.Model, rank, group.Strategy, name, connections[name]); err != nil {
				return err
			}
		}
	}
	return nil
}

// wire registers the upstream for the route. All routes to one upstream share
// its key, so they share what the key is allowed and what it is refused: the
// domain.
func (g *gateway) wire(
	ctx context.Context, model string, rank int, strategy selection.Strategy, name string, client *http.Client,
) error {
	upstream := g.config.Upstreams[name]
	_, err := Chat.Register(ctx, g.registry, registry.Provider[*target]{
		Name: model + " at " + name, Handler: handlerOf(model), Group: rank, Strategy: strategy, Domain: name,
		Instance: &target{
			upstream: name, url: upstream.URL, key: os.Getenv(upstream.Key), client: client,
			model: upstream.Models[model], anyModel: strings.HasSuffix(model, "*"),
		},
		AttemptTimeout: or(g.config.Timeouts.Attempt, time.Minute),
		Limits:         registry.LimitPolicy{MaxConcurrent: upstream.Concurrency},
	})
	return err
}

func handlerOf(model string) string { return "model " + model }

// logEvents logs the changes of the upstreams, until the registry is closed.
func (g *gateway) logEvents(events *registry.Subscription) {
	defer close(g.told)
	for {
		e, err := events.Next(context.Background())
		if err != nil {
			return
		}
		switch e.Kind {
		case event.BreakerOpened, event.BreakerClosed, event.Cooling, event.Parked, event.CooldownEnded:
			g.log.Printf("%s: %s %s", e.Provider, strings.ReplaceAll(string(e.Kind), "_", " "), e.Reason)
		default:
		}
	}
}

func (g *gateway) close(ctx context.Context) error {
	err := g.registry.Close(ctx)
	if err == nil {
		<-g.told
	}
	for _, client := range g.clients {
		client.CloseIdleConnections()
	}
	return err
}

// ServeHTTP answers in OpenAI's words, also where there is nothing to answer.
func (g *gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if _, pattern := g.mux.Handler(r); pattern != "" {
		g.mux.ServeHTTP(w, r)
		return
	}
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		other := r.Clone(r.Context())
		other.Method = method
		if _, pattern := g.mux.Handler(other); pattern != "" {
			w.Header().Set("Allow", method)
			refuse(w, http.StatusMethodNotAllowed, "method_not_allowed", fmt.Sprintf("%s takes %s, not %s", r.URL.Path, method, r.Method))
			return
		}
	}
	refuse(w, http.StatusNotFound, "not_found", fmt.Sprintf("there is no %s here", r.URL.Path))
}

// admitted lets clients in that know a key, and names them.
func (g *gateway) admitted(serve func(http.ResponseWriter, *http.Request, string)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if len(g.keys) == 0 {
			serve(w, r, "anonymous")
			return
		}
		scheme, key, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		given := sha256.Sum256([]byte(strings.TrimSpace(key)))
		client := ""
		for name, wanted := range g.keys { // all of them: the time must not tell which
			if subtle.ConstantTimeCompare(given[:], wanted[:]) == 1 {
				client = name
			}
		}
		if client == "" || !strings.EqualFold(scheme, "Bearer") {
			w.Header().Set("WWW-Authenticate", "Bearer")
			refuse(w, http.StatusUnauthorized, "invalid_api_key", "the gateway does not know this key")
			return
		}
		serve(w, r, client)
	}
}

// request is the body of a client's request. Fields that the gateway does not know are
// passed on as they are.
type request struct {
	model    string
	streamed bool
	fields   map[string]json.RawMessage
}

func readRequest(r *http.Request) (request, error) {
	var asked request
	body, err := io.ReadAll(http.MaxBytesReader(nil, r.Body, mostBytes))
	if err != nil {
		return asked, err
	}
	if err := json.Unmarshal(body, &asked.fields); err != nil || asked.fields == nil {
		return asked, errors.New("the body is no JSON object")
	}
	if err := json.Unmarshal(asked.fields["model"], &asked.model); err != nil || asked.model == "" {
		return asked, errors.New("model is missing, or not a string")
	}
	if field, ok := asked.fields["stream"]; ok {
		if err := json.Unmarshal(field, &asked.streamed); err != nil {
			return asked, errors.New("stream is neither true nor false")
		}
	}
	return asked, nil
}

// body returns the request in JSON, for the given model.
func (q request) body(model string) ([]byte, error) {
	fields := maps.Clone(q.fields)
	name, err := json.Marshal(model)
	if err != nil {
		return nil, err
	}
	fields["model"] = name
	return json.Marshal(fields)
}

// route returns the route of the model: the one of its name, or the one
// with the longest beginning.
func (g *gateway) route(model string) (name string, ok bool) {
	if _, ok := g.routes[model]; ok && !strings.HasSuffix(model, "*") {
		return model, true
	}
	for candidate := range g.routes {
		prefix, many := strings.CutSuffix(candidate, "*")
		if many && strings.HasPrefix(model, prefix) && len(candidate) > len(name) {
			name = candidate
		}
	}
	return name, name != ""
}

func (g *gateway) chat(w http.ResponseWriter, r *http.Request, client string) {
	asked, err := readRequest(r)
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		refuse(w, http.StatusRequestEntityTooLarge, "request_too_large", fmt.Sprintf("the body has more than %d bytes", tooLarge.Limit))
		return
	}
	if err != nil {
		refuse(w, http.StatusBadRequest, "invalid_request", err.Error())
		return
	}
	name, ok := g.route(asked.model)
	if !ok {
		refuse(w, http.StatusNotFound, "model_not_found", fmt.Sprintf("there is no route for the model %q", asked.model))
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), or(g.config.Timeouts.Total, 5*time.Minute))
	defer cancel()
	if asked.streamed {
		err = g.stream(ctx, w, name, asked, client)
	} else {
		err = g.answer(ctx, w, name, asked, client)
	}
	if err != nil && r.Context().Err() == nil {
		g.log.Printf("%s asked for %q: %v", client, asked.model, err)
	}
}

// answer serves a complete answer.
func (g *gateway) answer(ctx context.Context, w http.ResponseWriter, route string, asked request, client string) error {
	var report registry.CallReport
	got, err := registry.Call(ctx, g.routes[route], func(ctx context.Context, t *target) (answer, error) {
		return t.chat(ctx, asked)
	}, registry.Caller(client), registry.ReportTo(&report))
	if err != nil {
		explain(ctx, w, err)
		return err
	}
	g.failedOver(report.Attempts)
	served(w, got.upstream, got.model, len(report.Attempts))
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(got.body) // the client may be gone
	return nil
}

// stream serves an answer as it arrives, from the first upstream that yields a token.
func (g *gateway) stream(ctx context.Context, w http.ResponseWriter, route string, asked request, client string) error {
	upstream := ""
	out := newEvents(ctx, w, or(g.config.Timeouts.Comment, 20*time.Second))
	defer out.close()
	parts, err := stream.Open(ctx, g.routes[route], func(ctx context.Context, t *target) (iter.Seq2[part, error], error) {
		upstream = t.upstream
		return t.stream(ctx, asked)
	}, stream.Options[part]{
		FirstTimeout: or(g.config.Timeouts.FirstToken, 15*time.Second),
		StallTimeout: or(g.config.Timeouts.Stall, 30*time.Second),
		Timeout:      or(g.config.Timeouts.Total, 5*time.Minute),
		KeepAlive:    func(part) bool { return false }, // a part carries a token
		Last:         func(p part) bool { return p.last },
		Whole:        g.whole[route],
		Call:         []registry.CallOption{registry.Caller(client)},
	})
	if err != nil {
		out.refuse(ctx, err)
		return err
	}
	defer func() { _ = parts.Close() }()
	g.failedOver(parts.Attempts())
	for p, err := range parts.All() {
		if err != nil { // too late for a status
			_ = out.send(sse(errorBody("stream_interrupted", "the upstream's answer was interrupted")))
			return err
		}
		out.head(func() { served(w, upstream, p.model, len(parts.Attempts())+1) })
		if err := out.send(p.data); err != nil {
			return err
		}
	}
	return out.send(sse([]byte(endOfStream)))
}

// failedOver logs the upstreams that failed before another one answered.
func (g *gateway) failedOver(attempts []registry.Attempt) {
	for _, attempt := range attempts {
		if attempt.Err != nil {
			g.log.Printf("%s: %v: another upstream answers", attempt.Provider, attempt.Class)
		}
	}
}

// served names the answering upstream in the headers.
func served(w http.ResponseWriter, upstream, model string, attempts int) {
	w.Header().Set("X-Served-By", upstream)
	w.Header().Set("X-Served-Model", model)
	w.Header().Set("X-Attempts", strconv.Itoa(attempts))
}

// explain answers with the error that the client should see.
func explain(ctx context.Context, w http.ResponseWriter, err error) {
	var call *registry.CallError
	var unavailable *registry.UnavailableError
	var refusal *upstreamError
	retryIn := time.Duration(0)
	message := "no upstream can answer now"
	status, code := http.StatusServiceUnavailable, "no_upstream"
	switch {
	case errors.As(err, &call):
		retryIn = call.RetryIn
		var tries []string
		late, keys := true, true
		for i, attempt := range call.Attempts {
			if i == len(call.Attempts)-1 && errors.As(attempt.Err, &refusal) && callersOwn(attempt.Class) {
				write(w, refusal.status, refusal.said)
				return
			}
			tries = append(tries, fmt.Sprintf("%s: %v", attempt.Provider, attempt.Class))
			keys = keys && (attempt.Class == verdict.ClassFatal || attempt.Class == verdict.ClassUnauthenticated)
			late = late && (attempt.Class == verdict.ClassAttemptTimeout || attempt.Class == verdict.ClassCut || attempt.Class == verdict.ClassStalled)
		}
		status, code, message = http.StatusBadGateway, "upstream_error", "all upstreams failed: "+strings.Join(tries, "; ")
		switch {
		case late:
			status, code = http.StatusGatewayTimeout, "timeout"
		case keys:
			code, message = "upstream_credentials", "the upstreams refuse the gateway's keys"
		}
	case errors.As(err, &unavailable):
		retryIn = unavailable.RetryIn
	}
	switch {
	case ctx.Err() != nil:
		status, code, message = http.StatusGatewayTimeout, "timeout", "no upstream answered in time"
	case errors.Is(err, registry.ErrCredentials):
		status, code, message = http.StatusBadGateway, "upstream_credentials", "the upstreams refuse the gateway's keys"
	case retryIn > 0:
		status, code = http.StatusServiceUnavailable, "no_upstream"
	}
	if retryIn > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(retryIn.Seconds()))))
	}
	refuse(w, status, code, message)
}

// callersOwn reports whether the client gets the upstream's error, because it is
// about its request.
func callersOwn(class verdict.Class) bool {
	switch class {
	case verdict.ClassBadRequest, verdict.ClassTooLong, verdict.ClassRefused, verdict.ClassNotFound,
		verdict.ClassNotForMe, verdict.ClassResource, verdict.ClassUnsupported:
		return true
	default:
		return false
	}
}

func refuse(w http.ResponseWriter, status int, code, message string) {
	kind := "invalid_request_error"
	if status >= http.StatusInternalServerError {
		kind = "server_error"
	}
	write(w, status, errorObject{Message: message, Type: kind, Code: code})
}

func write(w http.ResponseWriter, status int, said errorObject) {
	said.Type = cmp.Or(said.Type, "invalid_request_error")
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]errorObject{"error": said}) // the client may be gone
}

func errorBody(code, message string) []byte {
	body, _ := json.Marshal(map[string]errorObject{"error": {Message: message, Type: "server_error", Code: code}})
	return body
}

// models lists the models that clients can name.
func (g *gateway) models(w http.ResponseWriter, _ *http.Request, _ string) {
	type model struct {
		ID      string `json:"id"`
		Object  string `json:"object"`
		Created int64  `json:"created"`
		OwnedBy string `json:"owned_by"`
	}
	list := []model{}
	for _, name := range slices.Sorted(maps.Keys(g.routes)) {
		if !strings.HasSuffix(name, "*") {
			list = append(list, model{ID: name, Object: "model", Created: g.started.Unix(), OwnedBy: "gateway"})
		}
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"object": "list", "data": list})
}

// status reports the next upstream of each route, and why others are not eligible.
func (g *gateway) status(w http.ResponseWriter, _ *http.Request, _ string) {
	var text bytes.Buffer
	for _, name := range slices.Sorted(maps.Keys(g.routes)) {
		fmt.Fprintf(&text, "%v\n", g.routes[name].Explain())
	}
	_, _ = w.Write(text.Bytes())
}
