package main

import (
	"bytes"
	"context"
	"net/http"
	"sync"
	"time"
)

// events writes server-sent events to a client, and comments while there are none: proxies on the way cut connections
// that are silent.
type events struct {
	every time.Duration

	mu    sync.Mutex // guards the writer and the fields below
	w     http.ResponseWriter
	out   *http.ResponseController
	timer *time.Timer
	begun bool // the status was sent
	over  bool
}

// newEvents returns the events of a response. A client that does not read them holds its request up until ctx ends,
// and little longer.
func newEvents(ctx context.Context, w http.ResponseWriter, every time.Duration) *events {
	e := &events{every: every, w: w, out: http.NewResponseController(w)}
	if deadline, ok := ctx.Deadline(); ok {
		_ = e.out.SetWriteDeadline(deadline.Add(time.Second)) // not every writer has one
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.timer = time.AfterFunc(every, e.comment)
	return e
}

// comment says that the answer is still to come. From the first one on, the status is that of an answer, and what
// goes wrong is an event.
func (e *events) comment() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.over {
		_ = e.write([]byte(": the answer is still to come\n\n")) // the next write says so too
	}
}

// head sets headers, unless the status was sent.
func (e *events) head(set func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.begun {
		set()
	}
}

// send sends complete events.
func (e *events) send(data []byte) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(data) == 0 {
		return nil
	}
	return e.write(data)
}

// write writes and flushes. Caller holds mu.
func (e *events) write(data []byte) error {
	if !e.begun {
		e.begun = true
		e.w.Header().Set("Content-Type", "text/event-stream")
		e.w.Header().Set("Cache-Control", "no-cache")
		e.w.Header().Set("X-Accel-Buffering", "no") // else nginx holds events back
	}
	e.timer.Reset(e.every)
	if _, err := e.w.Write(data); err != nil {
		return err
	}
	return e.out.Flush()
}

// refuse answers with the error that the client should see, as an event where the status was sent already.
func (e *events) refuse(ctx context.Context, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.over = true
	if !e.begun {
		explain(ctx, e.w, err)
		return
	}
	explain(ctx, inEvent{e}, err)
}

// close ends the comments: nothing is written after it.
func (e *events) close() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.over = true
	e.timer.Stop()
}

// inEvent writes the body of an answer as an event. The lock of the events is held.
type inEvent struct{ events *events }

func (inEvent) Header() http.Header { return http.Header{} }

func (inEvent) WriteHeader(int) {}

func (i inEvent) Write(body []byte) (int, error) {
	return len(body), i.events.write(sse(bytes.TrimSpace(body)))
}
