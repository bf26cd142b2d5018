package admin

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/capreg/registry"
	"github.com/capreg/registry/admin/internal/console"
	"github.com/capreg/registry/admin/internal/control"
)

// Handler serves the control API and the console of one registry. Use New to create one. It is safe for concurrent use.
type Handler struct {
	options     Options
	control     *control.Control
	mux         *http.ServeMux
	api         huma.API
	console     *console.Console
	crossOrigin *http.CrossOriginProtection

	streams chan struct{} // holds those that are open
	closed  chan struct{} // closed by Close
	close   func()

	mu      sync.Mutex                     // guards servers; nothing waits under it
	servers map[*http.Server]chan struct{} // each closed when its server begins to shut down
}

// New returns the handler of a registry. It serves under the root of what it is mounted at; strip a prefix with
// [http.StripPrefix]. It starts one goroutine, which ends with [Handler.Close] or with the registry.
//
// The error is a [registry.FieldError] that names what is out of bounds, and matches [registry.ErrInvalid].
func New(reg *registry.Registry, options Options) (*Handler, error) {
	if reg == nil {
		return nil, &registry.FieldError{Field: "Registry", Value: "nil", Bound: "a registry made by New", Err: registry.ErrInvalid}
	}
	options, err := options.withDefaults()
	if err != nil {
		return nil, err
	}
	protection := http.NewCrossOriginProtection()
	for i, origin := range options.TrustedOrigins {
		if err := protection.AddTrustedOrigin(origin); err != nil {
			return nil, &registry.FieldError{
				Field: fmt.Sprintf("Options.TrustedOrigins[%d]", i), Value: origin, Bound: "an origin such as https://ops.example", Err: registry.ErrInvalid,
			}
		}
	}
	h := &Handler{
		options: options, crossOrigin: protection, mux: http.NewServeMux(),
		streams: make(chan struct{}, options.Streams), closed: make(chan struct{}),
		servers: make(map[*http.Server]chan struct{}),
	}
	h.close = sync.OnceFunc(func() { close(h.closed) })
	h.addRoutes()
	h.control = control.New(reg, control.Options{
		Audit: options.Audit, Logger: options.Logger, Orchestrator: options.Orchestrator, Configuration: options.Configuration, Fleet: options.Fleet,
		Events: options.Events, ChangesPerSecond: options.ChangesPerSecond, ChangesAtOnce: options.ChangesAtOnce,
	})
	h.addConsole()
	return h, nil
}

// Close ends all streams and what New has started, and waits for the latter. Requests are still answered, without new
// events. It may be called any number of times, and of nil does nothing.
func (h *Handler) Close() {
	if h == nil {
		return
	}
	h.close()
	h.control.Close()
}

// ServeHTTP answers one request.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	setHeaders(w.Header())
	tracked := &answer{ResponseWriter: w, request: r}
	defer func() {
		if p := recover(); p != nil {
			if p == http.ErrAbortHandler || tracked.begun { //nolint:errorlint // the value itself, as net/http compares it
				panic(p) // the server ends the connection
			}
			newProblem(http.StatusInternalServerError, "the request could not be processed").ServeHTTP(tracked, r)
		}
	}()
	for _, check := range []func() *problem{
		func() *problem { return h.guarded(w, r) },
		func() *problem { return h.route(r) },
	} {
		if p := check(); p != nil {
			h.refuse(p, tracked, r)
			return
		}
	}
	inner := r.WithContext(context.WithValue(r.Context(), requestKey{}, r))
	if !isRead(r.Method) {
		inner.Body = &timedBody{r.Body, http.NewResponseController(w)} // of the copy: the server looks at its own
	}
	h.mux.ServeHTTP(tracked, inner)
}

// requestKey is the key of the request in its own context, for operations.
type requestKey struct{}

func requestOf(ctx context.Context) *http.Request {
	r, _ := ctx.Value(requestKey{}).(*http.Request)
	return r
}

// answer notes whether an answer has begun, and bounds the time that a client has to take it.
type answer struct {
	http.ResponseWriter

	request *http.Request
	begun   bool
}

// answerTime is that time, where the server has none of its own.
const answerTime = 30 * time.Second

func (a *answer) begin() {
	if a.begun {
		return
	}
	a.begun = true
	if server, ok := a.request.Context().Value(http.ServerContextKey).(*http.Server); ok && server.WriteTimeout > 0 {
		return
	}
	_ = http.NewResponseController(a.ResponseWriter).SetWriteDeadline(time.Now().Add(answerTime)) // where the server can
}

// Unwrap returns the writer below, for what only servers can do.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// WriteHeader begins the answer.
func (a *answer) WriteHeader(status int) {
	a.begin()
	a.ResponseWriter.WriteHeader(status)
}

// Write begins the answer.
func (a *answer) Write(p []byte) (int, error) {
	a.begin()
	return a.ResponseWriter.Write(p)
}
