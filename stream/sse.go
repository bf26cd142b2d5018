package stream

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
	"strconv"
	"strings"
	"time"

	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/verdict"
)

// ErrEventTooLarge reports a server-sent event of more bytes than allowed.
var ErrEventTooLarge = errors.New("server-sent event too large")

const defaultMostEventBytes = 16 << 20

// Event is one event of a stream of server-sent events, read by [SSE].
type Event struct {
	// Name is the type of the event, such as "error" or "content_block_delta". Empty: a message.
	Name string
	// Data holds the lines of data, joined by line feeds. No later read changes it, but with [ReuseData].
	Data []byte
	// ID is the last identifier that the server has given, with this event or before it.
	ID string
	// Retry is the last time until a reconnection that the server has asked for. Zero: none.
	Retry time.Duration
	// Partial reports that the body ended before the empty line which ends an event. Many servers leave that line out
	// behind the end mark; any other partial event has to be taken for one that was cut.
	Partial bool
}

// Is reports whether the event carries exactly this text, such as the end mark "[DONE]".
func (e Event) Is(data string) bool { return string(e.Data) == data }

// SSEOption changes how [SSE] reads.
type SSEOption func(*eventReader)

// MaxEventBytes bounds the bytes of one event, and of one line that belongs to none, such as a comment. Default: 16 MiB.
func MaxEventBytes(n int) SSEOption { return func(r *eventReader) { r.most = n } }

// ReuseData makes the Data of an event valid until the next one is read only, for code that keeps none: it saves an
// allocation for each event. Default: no later read changes it.
func ReuseData() SSEOption { return func(r *eventReader) { r.reuses = true } }

// SSE reads server-sent events from body, such as that of an http.Response, for [Open]:
//
//	stream.Open(ctx, models, func(ctx context.Context, m Model) (iter.Seq2[stream.Event, error], error) {
//		response, err := m.ask(ctx)
//		if err != nil {
//			return nil, err
//		}
//		return stream.SSE(response.Body), nil
//	}, stream.Options[stream.Event]{Last: func(e stream.Event) bool { return e.Is("[DONE]") }})
//
// Lines may end in CRLF, LF or CR, in any mixture, a byte-order mark in front is skipped, and an event is yielded as soon as
// the line that ends it was read. Comments and events without a line of data are skipped: they end no wait for an item. An end of
// the body in the middle of an event yields that event, marked as [Event.Partial]; whether the stream is complete is
// for [Options.Last] to say. An error of the body is yielded behind the complete events that were read before it, and is the
// last item. So is one that matches [ErrEventTooLarge], or [io.ErrNoProgress] for a body whose reads give nothing.
//
// It reads and blocks in the goroutine of the loop, and starts none. The result is for one loop, whose end closes a body
// that is an io.Closer.
func SSE(body io.Reader, options ...SSEOption) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		events := NewEventReader(body, options...)
		if closer, ok := body.(io.Closer); ok && events.ended == nil {
			defer func() { _ = closer.Close() }()
		}
		for {
			event, err := events.Next()
			if err == io.EOF || !yield(event, err) || err != nil { //nolint:errorlint // Next returns no error around it
				return
			}
		}
	}
}

// refusal is the error of arguments that are wrong.
func (r *eventReader) refusal() error {
	if r.body == nil {
		return refuse("body", "nil", "a reader")
	}
	return refuse("MaxEventBytes", r.most, "more than 0")
}

// eventReader reads the lines of a body, and makes events of them.
type eventReader struct {
	body io.Reader
	most int

	space   []byte // what buffer is a part of
	buffer  []byte // read and not yet used
	scanned int    // how many bytes of buffer hold no line end
	filled  bool   // the last read has left no room
	empty   int    // reads in a row that gave nothing
	ended   error  // of the body
	begun   bool   // the first line was read
	afterCR bool   // the line before ended in CR: a line feed still belongs to it

	reuses bool   // the data of events
	data   []byte // to be used again

	event   Event // its name and its data so far; each line of data ends in a line feed
	size    int   // of its lines
	carries bool  // it has a line of data
}

// short returns the next event where it is one line of data, as most are, and was read whole: then it is not read line by line.
func (r *eventReader) short() (event Event, ok bool) {
	if !r.begun || r.scanned > 0 || r.afterCR || r.size > 0 || r.carries || r.event.Name != "" {
		return Event{}, false
	}
	if len(r.buffer) == 0 && r.ended == nil {
		r.read()
	}
	value, ok := bytes.CutPrefix(r.buffer, []byte(dataField))
	end := bytes.IndexByte(value, '\n')
	if !ok || end < 0 || end+1 == len(value) || value[end+1] != '\n' || len(dataField)+end > r.most || bytes.IndexByte(value[:end], '\r') >= 0 {
		return Event{}, false
	}
	r.buffer = value[end+2:]
	data := bytes.TrimPrefix(value[:end:end], []byte(" "))
	if !r.reuses {
		data = bytes.Clone(data)
	}
	return Event{Data: data, ID: r.event.ID, Retry: r.event.Retry}, true
}

// long reads a line, and returns the event that it ends.
func (r *eventReader) long() (event Event, ok bool, err error) {
	line, whole, err := r.line()
	switch {
	case err != nil:
	case len(line) > 0:
		err = r.field(line)
	case whole:
		event, ok = r.take()
	}
	return event, ok, err
}

// dataField begins a line of data.
const dataField = "data:"

// line returns the next line, without what ends it; whole is false of one that the body's end has ended. It is valid until the next read.
func (r *eventReader) line() (line []byte, whole bool, err error) {
	for {
		if r.afterCR && len(r.buffer) > 0 {
			r.afterCR = false
			if r.buffer[0] == '\n' {
				r.buffer = r.buffer[1:]
			}
		}
		if at := lineEnd(r.buffer[r.scanned:]); at >= 0 {
			if at += r.scanned; at > r.most {
				return nil, false, r.tooLarge()
			}
			line, r.afterCR = r.buffer[:at], r.buffer[at] == '\r'
			r.buffer, r.scanned = r.buffer[at+1:], 0
			return r.first(line), true, nil
		}
		r.scanned = len(r.buffer)
		switch {
		case r.scanned > r.most:
			return nil, false, r.tooLarge()
		case r.ended == nil:
			r.read()
		case errors.Is(r.ended, io.EOF) && r.scanned > 0:
			line, r.buffer, r.scanned = r.buffer, r.space[:0], 0
			return r.first(line), false, nil
		default:
			return nil, false, r.ended
		}
	}
}

// lineEnd returns the place of the first CR or LF; below 0: there is none. It looks at one piece after the other: a search for
// the one of them would go on far behind the other, again for each line.
func lineEnd(text []byte) int {
	const piece = 1 << 10
	for from := 0; from < len(text); from += piece {
		part := text[from:min(from+piece, len(text))]
		at := bytes.IndexByte(part, '\n')
		if at >= 0 {
			part = part[:at]
		}
		if cr := bytes.IndexByte(part, '\r'); cr >= 0 {
			at = cr
		}
		if at >= 0 {
			return from + at
		}
	}
	return -1
}

// holds reports whether what was read holds the end of an event that has data.
func (r *eventReader) holds() bool {
	rest, afterCR, carries := r.buffer, r.afterCR, r.carries
	for {
		if afterCR {
			rest = bytes.TrimPrefix(rest, []byte("\n"))
		}
		at := lineEnd(rest)
		switch {
		case at < 0:
			return false
		case at > 0:
			name, _, _ := bytes.Cut(rest[:at], []byte(":"))
			carries = carries || string(name) == "data"
		case carries:
			return true
		}
		rest, afterCR = rest[at+1:], rest[at] == '\r'
	}
}

// first removes the byte-order mark of the first line.
func (r *eventReader) first(line []byte) []byte {
	if !r.begun {
		r.begun = true
		line = bytes.TrimPrefix(line, []byte("\ufeff"))
	}
	return line
}

// read reads more of the body.
func (r *eventReader) read() {
	if len(r.buffer) == 0 {
		r.buffer = r.space[:0]
	}
	if cap(r.buffer)-len(r.buffer) < smallChunk/2 {
		if size := cap(r.space); 2*len(r.buffer) > size || r.filled && size < chunkSize || r.space == nil {
			r.space = make([]byte, 0, max(smallChunk, min(4*size, chunkSize), 2*len(r.buffer)))
		}
		r.buffer = append(r.space[:0], r.buffer...)
	}
	free := r.buffer[len(r.buffer):cap(r.buffer)]
	n, err := r.body.Read(free)
	if n < 0 || n > len(free) {
		n, err = 0, fmt.Errorf("the body has read %d of at most %d bytes", n, len(free))
	}
	r.buffer, r.filled = r.buffer[:len(r.buffer)+n], n == len(free)
	if r.empty++; n > 0 {
		r.empty = 0
	}
	if err == nil && r.empty >= mostEmptyReads {
		err = io.ErrNoProgress
	}
	r.ended = fault.Bound(err)
}

func (r *eventReader) tooLarge() error {
	return verdict.As(fmt.Errorf("%w: more than %d bytes", ErrEventTooLarge, r.most), verdict.Verdict{Class: verdict.ClassMalformed})
}

// field notes what a line says.
func (r *eventReader) field(line []byte) error {
	if line[0] == ':' { // a comment, which belongs to no event
		return nil
	}
	if r.size += len(line); r.size > r.most {
		return r.tooLarge()
	}
	name, value, _ := bytes.Cut(line, []byte(":"))
	value = bytes.TrimPrefix(value, []byte(" "))
	switch string(name) {
	case "data":
		if r.event.Data == nil && cap(r.data) > len(value) {
			r.event.Data = r.data
		} else if r.event.Data == nil {
			r.event.Data = make([]byte, 0, len(value)+1) // most events have one line
		}
		r.event.Data = append(append(r.event.Data, value...), '\n')
		r.carries = true
	case "event":
		r.event.Name = string(value)
	case "id":
		if !bytes.ContainsRune(value, 0) {
			r.event.ID = string(value)
		}
	case "retry":
		if after, ok := milliseconds(string(value)); ok {
			r.event.Retry = after
		}
	}
	return nil
}

// milliseconds reads digits alone; what is longer than a Duration can be is cut to that.
func milliseconds(text string) (time.Duration, bool) {
	if text == "" || strings.Trim(text, "0123456789") != "" {
		return 0, false
	}
	const most = uint64(1<<63-1) / uint64(time.Millisecond)
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		n = most
	}
	return time.Duration(min(n, most)) * time.Millisecond, true
}

// take returns the event that was read, if it carries anything, and begins the next one.
func (r *eventReader) take() (event Event, ok bool) {
	event, ok = r.event, r.carries
	if r.reuses && event.Data != nil && cap(event.Data) <= chunkSize {
		r.data = event.Data[:0]
	}
	event.Data = bytes.TrimSuffix(event.Data, []byte("\n"))
	r.event = Event{ID: r.event.ID, Retry: r.event.Retry}
	r.size, r.carries = 0, false
	return event, ok
}
