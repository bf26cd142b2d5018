package admin

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/capreg/registry/admin/internal/control"
)

const (
	// beat is the time between two signs of life of a stream without events.
	beat = 15 * time.Second
	// together is the time for which events are collected before they are written.
	together = 100 * time.Millisecond
	// patience is the time that a client has to take what is written; then it is dropped.
	patience = 10 * time.Second
	// lastPatience is that time when the program stops.
	lastPatience = time.Second
)

type latestInput struct {
	Service string `query:"service" maxLength:"1024"`
	Audits  bool   `query:"audits" doc:"Only records of changes"`
	Limit   int    `query:"limit" minimum:"1" maximum:"1000" default:"100"`
}

type latestAnswer struct {
	Events []*control.Entry `json:"events"`
}

type streamInput struct {
	Service     string `query:"service" maxLength:"1024" doc:"Only those of that service"`
	Since       string `query:"last_event_id" maxLength:"256" doc:"As the header Last-Event-ID, for clients that cannot send it"`
	LastEventID string `header:"Last-Event-ID" maxLength:"256" doc:"Identifier of the last event that was read; what came after it is sent first"`
}

func (h *Handler) addEventRoutes() {
	huma.Register(h.api, h.operation("events-latest", http.MethodGet, base+"/events/latest", "The latest events and changes, newest first"),
		func(_ context.Context, in *latestInput) (*body[latestAnswer], error) {
			return &body[latestAnswer]{latestAnswer{h.control.Latest(in.Service, in.Audits, in.Limit)}}, nil
		})
	op := h.operation("events", http.MethodGet, base+"/events", "The events and changes from now on, or after Last-Event-ID, as a stream")
	op.Description = "Server-sent events named registry or audit, whose data is an Entry as in events-latest. An event named lost says how many were missed. A comment is sent each 15 s."
	op.Responses["200"] = &huma.Response{Description: "OK", Content: map[string]*huma.MediaType{"text/event-stream": {Schema: &huma.Schema{Type: huma.TypeString}}}}
	h.addProblem(&op, http.StatusServiceUnavailable)
	h.addProblem(&op, http.StatusNotImplemented)
	huma.Register(h.api, op, func(ctx context.Context, in *streamInput) (*huma.StreamResponse, error) {
		if requestOf(ctx).Method == http.MethodHead { // it would hold a stream, and read nothing
			return &huma.StreamResponse{Body: func(ctx huma.Context) { ctx.SetHeader("Content-Type", "text/event-stream") }}, nil
		}
		ending, p := h.serverEnding(requestOf(ctx))
		if p != nil {
			return nil, p
		}
		select {
		case h.streams <- struct{}{}:
		default:
			return nil, tooManyStreams()
		}
		after := in.LastEventID
		if after == "" {
			after = in.Since
		}
		return &huma.StreamResponse{Body: func(ctx huma.Context) {
			defer func() { <-h.streams }()
			r, w := humago.Unwrap(ctx)
			s := &stream{handler: h, w: w, control: http.NewResponseController(w), service: in.Service, cursor: h.control.Follow(after)}
			s.serve(r, ending)
		}}, nil
	})
}

func tooManyStreams() *problem {
	p := newProblem(http.StatusServiceUnavailable, "too many streams are open; poll events/latest or snapshot")
	p.headers.Set("Retry-After", "10")
	return p
}

// serverEnding returns a channel that is closed when the server of the request begins to shut down: a stream that went on
// would hold that up. It is nil where the server is not known.
func (h *Handler) serverEnding(r *http.Request) (<-chan struct{}, *problem) {
	select {
	case <-h.closed:
		return nil, newProblem(http.StatusServiceUnavailable, "the program is stopping")
	default:
	}
	server, ok := r.Context().Value(http.ServerContextKey).(*http.Server)
	if !ok {
		return nil, nil
	}
	h.mu.Lock()
	ending, known := h.servers[server]
	if !known {
		ending = make(chan struct{})
		h.servers[server] = ending
	}
	h.mu.Unlock()
	if !known {
		server.RegisterOnShutdown(sync.OnceFunc(func() { close(ending) }))
	}
	select {
	case <-ending:
		return nil, newProblem(http.StatusServiceUnavailable, "the program is stopping")
	default:
		return ending, nil
	}
}

// stream is one client that reads events.
type stream struct {
	handler *Handler
	w       http.ResponseWriter
	control *http.ResponseController
	service string
	cursor  *control.Cursor
	text    strings.Builder

	mu   sync.Mutex    // makes the choice of a deadline and the end one step
	over bool          // guarded by mu
	end  chan struct{} // closed when the program stops
}

// serve writes events until the client leaves, does not keep up, or the program stops.
func (s *stream) serve(r *http.Request, ending <-chan struct{}) {
	s.end = make(chan struct{})
	left := make(chan struct{})
	var watch sync.WaitGroup
	watch.Go(func() { s.watch(ending, left) })
	defer func() {
		close(left)
		watch.Wait() // nothing touches the connection after that
	}()
	header := s.w.Header()
	header.Set("Content-Type", "text/event-stream")
	header.Set("X-Accel-Buffering", "no")
	if err := s.deadline(); err != nil {
		newProblem(http.StatusNotImplemented, "this server cannot stream; poll events/latest or snapshot").ServeHTTP(s.w, r)
		return
	}
	s.w.WriteHeader(http.StatusOK)
	s.text.WriteString("retry: 2000\n\n")
	for {
		entries, lost, more, ended := s.cursor.Read()
		s.format(entries, lost)
		if s.write() != nil || ended || !s.await(r, more) {
			return
		}
	}
}

// watch bounds what is being written when the program stops, so that a client that takes nothing does not hold that up.
func (s *stream) watch(ending, left <-chan struct{}) {
	select {
	case <-ending:
	case <-s.handler.closed:
	case <-left:
		return
	}
	close(s.end)
	s.mu.Lock()
	s.over = true
	s.mu.Unlock()
	_ = s.deadline()
}

// deadline sets the time until which a client has to take what is written.
func (s *stream) deadline() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	limit := patience
	if s.over {
		limit = lastPatience
	}
	return s.control.SetWriteDeadline(time.Now().Add(limit))
}

// await waits for more; false: the stream is over.
func (s *stream) await(r *http.Request, more <-chan struct{}) bool {
	life := time.NewTimer(beat)
	defer life.Stop()
	select {
	case <-more:
	case <-life.C:
		s.text.WriteString(": still here\n\n")
		return true
	case <-r.Context().Done():
		return false
	case <-s.end:
		return false
	}
	pause := time.NewTimer(together)
	defer pause.Stop()
	select {
	case <-pause.C:
		return true
	case <-r.Context().Done():
		return false
	case <-s.end:
		return false
	}
}

// format adds entries to what is to be written.
func (s *stream) format(entries []*control.Entry, lost uint64) {
	if lost > 0 {
		fmt.Fprintf(&s.text, "event: lost\ndata: %d\n\n", lost)
	}
	for _, e := range entries {
		if e.Of(s.service) {
			fmt.Fprintf(&s.text, "id: %s\nevent: %s\ndata: %s\n\n", e.ID, e.Kind(), e.Text())
		}
	}
}

// write writes what was collected to a client that takes it in time.
func (s *stream) write() error {
	if s.text.Len() == 0 {
		return nil
	}
	err := s.deadline()
	if err == nil {
		_, err = s.w.Write([]byte(s.text.String()))
	}
	s.text.Reset()
	if err != nil {
		return err
	}
	return s.control.Flush()
}
