package stream

import (
	"errors"
	"io"
)

// EventReader reads server-sent events one at a time, as [SSE] does, for code that is asked for the next piece rather
// than having a loop, such as an [io.Reader]. Use [NewEventReader] to create one. It is for one goroutine, and starts
// none.
type EventReader struct {
	reader eventReader
	ended  error
}

// NewEventReader returns a reader of the events of body. It does not close the body. What is wrong with the arguments is
// the error of the first [EventReader.Next].
func NewEventReader(body io.Reader, options ...SSEOption) *EventReader {
	e := &EventReader{reader: eventReader{body: body, most: defaultMostEventBytes}}
	for _, option := range options {
		if option != nil {
			option(&e.reader)
		}
	}
	if body == nil || e.reader.most <= 0 {
		e.ended = e.reader.refusal()
	}
	return e
}

// Next returns the next event. It blocks while the body does. The error is [io.EOF] at the end of the body, else as that
// of [SSE], and final.
func (e *EventReader) Next() (Event, error) {
	for e.ended == nil {
		if event, ok := e.reader.short(); ok {
			return event, nil
		}
		event, ok, err := e.reader.long()
		if e.ended = err; ok {
			return event, nil
		}
	}
	if errors.Is(e.ended, io.EOF) {
		if event, ok := e.reader.take(); ok {
			event.Partial = true
			return event, nil
		}
		return Event{}, io.EOF
	}
	return Event{}, e.ended
}

// Buffered reports whether what was read of the body holds the end of another event, so that [EventReader.Next] does
// not wait for more. A comment is no event.
func (e *EventReader) Buffered() bool { return e.ended == nil && e.reader.holds() }

// IsPreamble reports whether an event is one that servers of language models send before the answer: a ping, the role,
// the start of a message, a piece of text of no length. [Options.KeepAlive] is this function by default.
func IsPreamble(e Event) bool { return saysNothing(e) }
