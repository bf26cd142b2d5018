package llm

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"math"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/capreg/registry/internal/jsontext"
	"github.com/capreg/registry/registryhttp"
	"github.com/capreg/registry/stream"
	"github.com/capreg/registry/verdict"
)

// answer is the body of an answer. It is for one reader; Close may be called from any goroutine.
type answer struct {
	// What each event needs stands together: the memory of a slow stream is not near the processor any more when its next
	// event arrives.

	transport *Transport
	events    *stream.EventReader
	reading   heldReader    // of the body
	out       []byte        // to hand over
	whole     []byte        // out before a part of it was handed over; nil: nothing was
	err       error         // behind out
	left      time.Duration // when the last of it was read, by the clock; 0: it is being read
	passing   bool          // it is handed over as it is
	begun     bool          // there was a token
	stalls    bool          // the clock waits for more of it
	finished  bool          // it is complete, whether an end mark follows or not
	marked    bool          // the end mark was there
	known     bool          // its end can be told
	pieces    bool          // it consists of choices, whose end has a mark
	asked     bool          // what the request asks for is known
	streamed  bool          // it asks for a stream
	pattern   pattern
	report    *Report
	tokens    *Tokens // of the transport, where the request is one for a model
	clock     clock
	held      held

	ctx     context.Context         //nolint:containedctx // of the request
	cancel  context.CancelCauseFunc // of ctx, which the clock ends; nil: ctx has its own limit, and the clock none
	path    string                  // the method of the API that was asked for
	body    io.ReadCloser
	choices int          // that are yet to end
	taken   int          // of the tokens
	used    atomic.Int64 // of them, as the server says it; else an estimate
	input   int          // tokens, as the server says it
	output  int
	closing sync.Once
}

// clock ends a context when a wait is too long. Most waits are short, so its timer stays as it is when one ends or another
// begins, and looks at the time when it goes off; and no mutex is locked for most of them.
type clock struct {
	epoch time.Time    // fixed
	due   atomic.Int64 // when the wait is too long, since the epoch; 0: there is no limit
	rings atomic.Int64 // when the timer goes off; 0: it does not. It is set with mu held

	mu     sync.Mutex // guards the fields below, as a request may still be sent while its answer is read
	timer  *time.Timer
	cause  error
	cancel context.CancelCauseFunc
	over   bool // the request is answered
}

// now returns the time since the epoch, which is never 0. It asks for half of what [time.Now] asks for.
func (c *clock) now() time.Duration { return time.Since(c.epoch) + 1 }

// start has the clock end a context, for a cause, when a wait that begins now is too long; a limit of zero is none.
func (c *clock) start(now, limit time.Duration, cause error, cancel context.CancelCauseFunc) {
	c.mu.Lock()
	c.due.Store(0)
	c.cause, c.cancel = cause, cancel
	c.mu.Unlock()
	c.wait(now, limit)
}

// wait limits a wait that begins now; a limit of zero is none.
func (c *clock) wait(now, limit time.Duration) {
	if limit <= 0 {
		c.due.Store(0)
		return
	}
	due := now + min(limit, math.MaxInt64-now)
	c.due.Store(int64(due)) // before rings is asked: the timer, which goes off, asks in the other order
	if rings := c.rings.Load(); rings == 0 || rings > int64(due) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.set(now, due)
	}
}

// set has the timer go off at a time, unless it does so before. It is called with mu held.
func (c *clock) set(now, due time.Duration) {
	switch rings := time.Duration(c.rings.Load()); {
	case c.timer == nil:
		c.timer = time.AfterFunc(due-now, c.ring)
	case rings == 0 || rings > due:
		c.timer.Reset(due - now)
	default:
		return
	}
	c.rings.Store(int64(due))
}

// ring ends the context if the timer went off in time.
func (c *clock) ring() {
	if cancel, cause := c.overdue(); cancel != nil {
		cancel(cause)
	}
}

// overdue returns what ends the context, and why, if the wait is too long. If it is not yet, the timer goes on.
func (c *clock) overdue() (cancel context.CancelCauseFunc, cause error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rings.Store(0)
	now := c.now() // before the wait is asked for: it is not over by then
	due := time.Duration(c.due.Load())
	if due == 0 {
		return nil, nil
	}
	if now < due {
		c.set(now, due)
		return nil, nil
	}
	return c.cancel, c.cause
}

// again starts the wait for the answer again.
func (c *clock) again(limit time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.due.Load() != 0 && !c.over {
		now := c.now()
		due := now + min(limit, math.MaxInt64-now)
		c.due.Store(int64(due))
		c.set(now, due)
	}
}

// pause ends a wait, which another one may follow.
func (c *clock) pause() { c.due.Store(0) }

// stop ends the last wait.
func (c *clock) stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.due.Store(0); c.timer != nil {
		c.timer.Stop()
		c.rings.Store(0)
	}
}

func (c *clock) answered() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.over = true
}

const endMark = "[DONE]"

func (a *answer) release() {
	if a.cancel != nil {
		a.clock.stop()
		a.cancel(context.Canceled)
	}
	a.tokens.Spend(int(a.used.Load()) - a.taken)
}

// Close releases the answer. It always returns nil.
func (a *answer) Close() error {
	a.closing.Do(func() {
		defer a.held.end()
		a.release()
		if a.body != nil {
			_ = a.body.Close()
		}
	})
	return nil
}

// Read reads the answer: of a stream, as many events as are there.
func (a *answer) Read(p []byte) (int, error) {
	if a.passing {
		return a.body.Read(p)
	}
	for len(a.out) == 0 {
		if a.err != nil {
			return 0, a.err
		}
		a.next()
		for a.err == nil && len(a.out) < batch && a.events.Buffered() {
			a.next()
		}
		a.left = a.clock.now()
	}
	if a.whole == nil {
		a.whole = a.out
	}
	n := copy(p, a.out)
	if a.out = a.out[n:]; len(a.out) == 0 {
		if a.out, a.whole = a.whole[:0], nil; cap(a.out) > batch {
			a.out = nil
		}
		if a.events != nil {
			a.held.free()
		}
		if a.err == io.EOF { //nolint:errorlint // an error around it is none; with its last bytes, an answer is over for those above
			return n, io.EOF
		}
	}
	return n, nil
}

// next reads an event. What is to be handed over is in out, and the end in err.
func (a *answer) next() {
	now, unread := a.clock.now(), time.Duration(0)
	if a.left != 0 {
		unread = now - a.left
		a.left = 0
	}
	event, err := a.wait(now)
	if err == nil {
		err = a.take(event)
	}
	if err == nil {
		return
	}
	a.clock.stop()
	switch {
	case a.finished || a.marked:
		a.end()
	case errors.Is(err, io.EOF) && (a.known || !a.begun):
		a.err = verdict.As(stream.ErrTruncated, verdict.Verdict{Class: verdict.ClassMalformed})
	case errors.Is(err, io.EOF):
		a.err = io.EOF
	default:
		a.err = a.caused(err)
	}
	if limit := a.transport.StallTimeout; limit > 0 && unread >= limit && isCut(a.err) {
		a.err = verdict.Ignore(a.err) // servers hang up on readers that leave their answer unread
	}
}

func isCut(err error) bool {
	return verdict.Of(err).Class == verdict.ClassTransport || errors.Is(err, stream.ErrTruncated)
}

// wait reads the next event within the limit, from now on. Before the first token the clock goes on.
func (a *answer) wait(now time.Duration) (stream.Event, error) {
	if !a.begun {
		return a.events.Next()
	}
	limit := a.transport.StallTimeout
	if a.finished || a.marked {
		limit = tail
	}
	if a.stalls {
		a.clock.wait(now, limit)
	} else {
		a.stalls = true
		a.clock.start(now, limit, registryhttp.ErrStalled, a.cancel)
	}
	event, err := a.events.Next()
	a.clock.pause()
	return event, err
}

// end hands over the end mark, which some servers leave out.
func (a *answer) end() {
	if a.marked || a.pieces {
		a.out = append(a.out, "data: "+endMark+"\n\n"...)
	}
	a.err = io.EOF
}

// take adds an event to what is handed over.
func (a *answer) take(event stream.Event) error {
	data := bytes.TrimSpace(event.Data)
	switch {
	case len(data) == 0:
		return nil
	case string(data) == endMark && !a.begun:
		return malformed("no answer before its end mark")
	case string(data) == endMark:
		a.marked = true
		return nil
	}
	if a.begun && event.Name == "" && a.pattern.fits(data) {
		a.count()
		a.out = registryhttp.AppendEvent(a.out, "", data)
		return nil
	}
	valid := jsontext.Valid(data)
	switch {
	case a.marked && !valid:
		return nil
	case event.Name == "error":
		return a.failure(data)
	case !valid && event.Partial:
		return io.ErrUnexpectedEOF
	case !valid || data[0] != '{':
		return malformed("an event that is no JSON object")
	}
	quiet, err := a.read(event, data)
	if err != nil {
		return err
	}
	if quiet && event.Name == "" {
		a.pattern.note(data)
	}
	a.begun = a.begun || addsText(event.Name, data) || !stream.IsPreamble(event)
	a.count()
	a.out = registryhttp.AppendEvent(a.out, event.Name, data)
	return nil
}

// count counts an event as a token, unless the server says how many there are.
func (a *answer) count() {
	if a.report != nil {
		a.report.events++
	}
	if a.tokens != nil && a.input+a.output == 0 && !a.used.CompareAndSwap(0, int64(a.taken)+1) {
		a.used.Add(1)
	}
}

// failure returns the error that an event of this name is.
func (a *answer) failure(data []byte) error {
	e, ok := errorIn(data)
	if !ok {
		e = &Error{}
		e.read(data)
	}
	return e
}

// read notes what an event says about the end. Most say nothing, which is seen without reading them as JSON. A quiet one is
// a piece with nothing to note.
func (a *answer) read(event stream.Event, data []byte) (quiet bool, err error) {
	if behind(data, "error") != nil {
		if e, ok := errorIn(data); ok {
			return false, e
		}
	}
	quiet = true
	for rest := behind(data, "usage"); rest != nil && quiet; rest = behind(rest, "usage") {
		if bytes.HasPrefix(rest, []byte(":{")) || bytes.HasPrefix(rest, []byte(": {")) {
			a.note(data)
			quiet = false
		}
	}
	if behind(data, "choices") != nil {
		ended := finishes(data)
		a.known, a.pieces = true, true
		a.choices -= ended
		a.finished = a.finished || a.choices <= 0
		return quiet && ended == 0, nil
	}
	switch kind := kindOf(event, data); {
	case kind == "response.completed", kind == "response.incomplete", kind == "message_stop":
		a.known, a.finished = true, true
	case kind == "response.created":
		a.note(data)
		a.known = true
	case kind == "response.failed":
		return false, a.failure(data)
	case strings.HasPrefix(kind, "response."), strings.HasPrefix(kind, "message_"):
		a.known = true
	}
	return false, nil
}

// kindOf returns the kind of an event that has one.
func kindOf(event stream.Event, data []byte) string {
	if event.Name != "" {
		return event.Name
	}
	var said struct {
		Type string `json:"type"`
	}
	_ = json.Unmarshal(data, &said) // what fits
	return said.Type
}

// behind returns what stands behind the first place where a name is quoted; nil: there is none. It looks for a letter, since
// a search for a quotation mark would stop at each of them.
func behind(data []byte, name string) []byte {
	for {
		at := bytes.Index(data, []byte(name))
		end := at + len(name)
		if at < 0 || end == len(data) {
			return nil
		}
		if at > 0 && data[at-1] == '"' && data[end] == '"' {
			return data[end+1:]
		}
		data = data[end:]
	}
}

// finishes returns how many choices a piece ends. It is read where it looks as if it did, and without encoding/json: the
// stack of every stream would have to grow for that.
func finishes(data []byte) (n int) {
	for rest := data; ; {
		if rest = behind(rest, "finish_reason"); rest == nil {
			return 0
		}
		rest = bytes.TrimLeft(rest, ": \t\r\n")
		if !bytes.HasPrefix(rest, []byte("null")) && !bytes.HasPrefix(rest, []byte(`""`)) {
			break
		}
	}
	jsontext.Object(data, func(key []byte, from, to int) {
		if string(key) != "choices" {
			return
		}
		list := data[from:to]
		jsontext.List(list, func(from, to int) {
			if ends(list[from:to]) {
				n++
			}
		})
	})
	return n
}

// ends reports whether a choice has a reason of its end.
func ends(choice []byte) (has bool) {
	jsontext.Object(choice, func(key []byte, from, to int) {
		if string(key) == "finish_reason" {
			has = choice[from] == '"' && to-from > len(`""`)
		}
	})
	return has
}

// usage holds the tokens of an answer.
type usage struct {
	Prompt     int `json:"prompt_tokens"`
	Completion int `json:"completion_tokens"`
	Input      int `json:"input_tokens"`
	Output     int `json:"output_tokens"`
}

// usageOf reads the usage of a plain answer: what fits.
func usageOf(value []byte) (u usage) {
	jsontext.Object(value, func(key []byte, from, to int) {
		if field := u.field(string(key)); field != nil {
			if n, err := strconv.Atoi(string(value[from:to])); err == nil {
				*field = n
			}
		}
	})
	return u
}

// field returns the place of a field; nil: there is none of that name.
func (u *usage) field(name string) *int {
	switch name {
	case "prompt_tokens":
		return &u.Prompt
	case "completion_tokens":
		return &u.Completion
	case "input_tokens":
		return &u.Input
	case "output_tokens":
		return &u.Output
	}
	return nil
}

// note notes what the report says of an event.
func (a *answer) note(event []byte) {
	type said struct {
		ID    string `json:"id"`
		Usage usage  `json:"usage"`
	}
	var all struct {
		said

		Response said `json:"response"`
		Message  said `json:"message"`
	}
	_ = json.Unmarshal(event, &all) // what fits
	for _, one := range []said{all.said, all.Response, all.Message} {
		a.noteID(one.ID)
		a.noteUsage(one.Usage)
	}
}

func (a *answer) noteID(id string) {
	if a.report != nil && a.path == "/responses" && id != "" {
		a.report.ID = id
	}
}

func (a *answer) noteUsage(u usage) {
	a.input, a.output = max(a.input, u.Prompt, u.Input), max(a.output, u.Completion, u.Output)
	if a.input+a.output > 0 {
		a.used.Store(int64(cmp.Or(a.input, a.taken) + a.output))
	}
	if a.report != nil {
		a.report.InputTokens = max(a.report.InputTokens, u.Prompt, u.Input)
		a.report.OutputTokens = max(a.report.OutputTokens, u.Completion, u.Output)
	}
}

// readObject reads what a plain answer says about itself. An error is what keeps the text from being one.
func (a *answer) readObject(text []byte) error {
	content := contentOf(a.path)
	found, failed, id := content == "", false, ""
	var used usage
	object := jsontext.Object(text, func(key []byte, from, to int) {
		value := text[from:to]
		switch string(key) {
		case content:
			found = found || isList(value)
		case "error":
			failed = true
		case "object", "type":
			failed = failed || string(value) == `"error"`
		case "response":
			failed = failed || behind(value, "error") != nil
		case "id":
			if a.path == "/responses" {
				id = identifier(value)
			}
		case "usage":
			used = usageOf(value)
		}
	})
	if !object {
		return malformed("no JSON object")
	}
	a.noteID(id)
	a.noteUsage(used)
	if failed {
		if e, ok := errorIn(text); ok {
			return e
		}
	}
	if !found {
		return malformed("an answer without " + content)
	}
	return nil
}

// contentOf returns the field without which a plain answer of a method is none; empty: there is no such.
func contentOf(path string) string {
	switch path {
	case "/chat/completions", "/completions":
		return "choices"
	case "/embeddings":
		return "data"
	}
	return ""
}

// isList reports whether a valid value is a list that begins with something.
func isList(value []byte) bool {
	if value[0] != '[' {
		return false
	}
	first := bytes.TrimLeft(value[1:], " \t\r\n")
	return first[0] != ']' && !bytes.HasPrefix(first, []byte("null"))
}
