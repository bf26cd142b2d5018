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
			s := &stream{handler: h, w: w, control: http.NewResponseController(w), service: in.Service, cursor: h.control.Follow(after), ending: ending}
			s.serve(r)
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
	ending  <-chan struct{}
	text    strings.Builder
}

// serve writes events until the client leaves, does not keep up, or the program stops.
func (s *stream) serve(r *http.Request) {
	header := s.w.Header()
	header.Set("Content-Type", "text/event-stream")
	header.Set("X-Accel-Buffering", "no")
	s.text.WriteString("retry: 2000\n\n")
	for first := true; ; first = false {
		entries, lost, more, ended := s.cursor.Read()
		s.format(entries, lost)
		if first {
			if err := s.begin(r); err != nil {
				return
			}
		} else if s.text.Len() > 0 && s.write() != nil {
			return
		}
		if ended || !s.await(r, more) {
			return
		}
	}
}

// begin writes the first part, and answers where the server cannot stream.
func (s *stream) begin(r *http.Request) error {
	if err := s.control.SetWriteDeadline(time.Now().Add(patience)); err != nil {
		newProblem(http.StatusNotImplemented, "this server cannot stream; poll events/latest or snapshot").ServeHTTP(s.w, r)
		return err
	}
	return s.write()
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
	case <-s.ending:
		return false
	case <-s.handler.closed:
		return false
	}
	pause := time.NewTimer(together)
	defer pause.Stop()
	select {
	case <-pause.C:
		return true
	case <-r.Context().Done():
		return false
	case <-s.ending:
		return false
	case <-s.handler.closed:
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
	err := s.control.SetWriteDeadline(time.Now().Add(patience))
	if err == nil {
		_, err = s.w.Write([]byte(s.text.String()))
	}
	s.text.Reset()
	if err != nil {
		return err
	}
	return s.control.Flush()
}
