package registryhttp

import (
	"bytes"
	"cmp"
	"errors"
	"net/http"
	"sync"
	"time"
)

const (
	defaultCommentEvery = 15 * time.Second
	defaultWriteTimeout = 30 * time.Second
)

// ErrEventsClosed reports a write to an [EventWriter] that is closed.
var ErrEventsClosed = errors.New("registryhttp: the events are closed")

// EventOptions configure an [EventWriter]. The zero value of each field is its default.
type EventOptions struct {
	// CommentEvery is the time without an event after which a comment is written: proxies on the way cut connections that
	// are silent. Default: 15 s; negative: none.
	CommentEvery time.Duration
	// WriteTimeout bounds a write to a client that does not read. It has no effect where the server has no deadlines.
	// Default: 30 s.
	WriteTimeout time.Duration
}

// EventWriter writes server-sent events to a client, as an [io.Writer] that is given one or more whole events at a time, and
// comments while there are none. Use [NewEventWriter] to create one, and close it before the handler returns. It is safe for
// concurrent use. A write blocks for at most the WriteTimeout; a goroutine exists only while a comment is written.
type EventWriter struct {
	options EventOptions

	mu       sync.Mutex // guards the writer and the fields below
	w        http.ResponseWriter
	out      *http.ResponseController
	timer    *time.Timer
	made     time.Time     // when it was; times are since then, which takes half as long as to ask for the time of day
	last     time.Duration // when something was written
	deadline time.Duration // of writes; 0: none
	begun    bool
	closed   bool
}

// NewEventWriter returns a writer of events to a client. The status is sent with the first event or comment; until then the
// handler can answer in another way. See [EventWriter.Answer].
func NewEventWriter(w http.ResponseWriter, options EventOptions) *EventWriter {
	options.CommentEvery = cmp.Or(options.CommentEvery, defaultCommentEvery)
	options.WriteTimeout = cmp.Or(options.WriteTimeout, defaultWriteTimeout)
	e := &EventWriter{options: options, w: w, out: http.NewResponseController(w), made: time.Now()}
	if options.CommentEvery > 0 {
		e.mu.Lock() // for the function, which may run at once
		defer e.mu.Unlock()
		e.timer = time.AfterFunc(options.CommentEvery, e.comment)
	}
	return e
}

// comment says that more is to come. From the first one on, the status is that of an answer. The timer goes on as it is
// when something is written, and looks here whether it is time.
func (e *EventWriter) comment() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return
	}
	left := after(e.last, e.options.CommentEvery) - time.Since(e.made)
	if left <= 0 {
		_ = e.write([]byte(": more is to come\n\n")) // the next write says so too
		left = e.options.CommentEvery
	}
	e.timer.Reset(left)
}

// Write writes whole events and sends them. The error is that of the client's connection, or matches [ErrEventsClosed].
func (e *EventWriter) Write(events []byte) (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.closed:
		return 0, ErrEventsClosed
	case len(events) == 0:
		return 0, nil
	}
	if err := e.write(events); err != nil {
		return 0, err
	}
	return len(events), nil
}

// write writes and flushes. It is called with mu held.
func (e *EventWriter) write(events []byte) error {
	if !e.begun {
		e.begun = true
		header := e.w.Header()
		header.Del("Content-Length")
		header.Set("Content-Type", "text/event-stream")
		header.Set("Cache-Control", "no-cache")
		header.Set("X-Accel-Buffering", "no") // else nginx holds events back
	}
	now := time.Since(e.made)
	if e.deadline-now < e.options.WriteTimeout/2 { // not for each event
		e.deadline = after(now, e.options.WriteTimeout)
		_ = e.out.SetWriteDeadline(e.made.Add(e.deadline)) // not every writer has one
	}
	e.last = now
	if _, err := e.w.Write(events); err != nil {
		return err
	}
	return e.out.Flush()
}

// Header calls the function with the headers of the answer, unless they were sent, and reports whether it did.
func (e *EventWriter) Header(set func(header http.Header)) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.begun {
		set(e.w.Header())
	}
	return !e.begun
}

// Answer calls the function with the writer of the handler, where neither an event nor a comment was sent, and closes the
// events. It reports false where it is too late for that: then the rest is to be an event.
func (e *EventWriter) Answer(with func(w http.ResponseWriter)) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.begun || e.closed {
		return false
	}
	e.close()
	with(e.w)
	return true
}

// Close ends the events: nothing is written after it. It always returns nil, and may be called any number of times.
func (e *EventWriter) Close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.close()
	return nil
}

// close is called with mu held.
func (e *EventWriter) close() {
	if e.closed {
		return
	}
	e.closed = true
	if e.timer != nil {
		e.timer.Stop()
	}
	if e.deadline > 0 {
		_ = e.out.SetWriteDeadline(time.Now().Add(e.options.WriteTimeout)) // for the end of the answer
	}
}

// AppendEvent appends an event to a buffer; data that holds line breaks has a field for each line. Without a name it is a
// message.
func AppendEvent(buffer []byte, name string, data []byte) []byte {
	if name != "" {
		buffer = append(append(append(buffer, "event: "...), name...), '\n')
	}
	for more := true; more; {
		var line []byte
		line, data, more = bytes.Cut(data, []byte("\n"))
		buffer = append(append(append(buffer, "data: "...), line...), '\n')
	}
	return append(buffer, '\n')
}
