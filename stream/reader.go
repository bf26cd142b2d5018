package stream

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"iter"
	"regexp"
	"slices"
	"unicode/utf8"

	"github.com/capreg/registry"
	"github.com/capreg/registry/internal/fault"
)

const chunkSize = 32 << 10

// smallChunk is the size of the first buffer of an event reader: many streams are slow.
const smallChunk = 1 << 10

// ReaderOptions configure a stream of bytes. The zero value of each field is its default.
type ReaderOptions struct {
	// Options are those of a stream whose items are chunks of bytes as they arrive; KeepAlive
	// and Last get one chunk.
	Options[[]byte]

	// End is the end mark of a complete stream, such as "data: [DONE]\n\n". It is found across
	// chunks and handed over; nothing behind it is read. One that begins with "data:" is a line of
	// server-sent events: it is found with lines that end in CRLF or LF, with a space behind the
	// colon or without, and as the last line also without what ends it. Default: every stream that
	// ends without an error is complete, unless Last is set.
	End []byte
}

// chunk holds some bytes, the last ones of the stream when they end with the end mark.
type chunk struct {
	data []byte
	last bool
}

// Reader is [Open] for providers that answer with an io.ReadCloser, such as the body of an HTTP
// response. Its Read returns io.EOF only behind a complete stream, and its Close releases the
// provider, read to the end or not. The result is for one reader.
//
// open must tie its result to its context, as net/http does: a body that ignores it cannot be
// cancelled.
func Reader[T any](
	ctx context.Context, resolver *registry.Resolver[T],
	open func(ctx context.Context, provider T) (io.ReadCloser, error), options ReaderOptions,
) (io.ReadCloser, error) {
	if open == nil {
		return nil, refuse("open", "nil", "a function")
	}
	if len(options.End) > 0 && options.Last != nil {
		return nil, refuse("ReaderOptions.End", options.End, "nothing together with Last")
	}
	settings := Options[chunk]{
		FirstTimeout: options.FirstTimeout, StallTimeout: options.StallTimeout, Timeout: options.Timeout,
		Whole: options.Whole, MaxItems: options.MaxItems, Call: options.Call,
	}
	if options.KeepAlive != nil {
		settings.KeepAlive = func(c chunk) bool { return !c.last && options.KeepAlive(c.data) }
	}
	if options.Last != nil || len(options.End) > 0 {
		settings.Last = func(c chunk) bool { return c.last || options.Last != nil && options.Last(c.data) }
	}
	s, err := Open(ctx, resolver, func(ctx context.Context, provider T) (iter.Seq2[chunk, error], error) {
		body, err := open(ctx, provider)
		if err != nil || body == nil {
			return nil, err
		}
		return chunks(body, newEndMark(options.End)), nil
	}, settings)
	if err != nil {
		return nil, err
	}
	s.begin()
	return &reader{stream: s}, nil
}

// chunks yields the bytes of body, and closes it at the end.
func chunks(body io.ReadCloser, end *endMark) iter.Seq2[chunk, error] {
	return func(yield func(chunk, error) bool) {
		defer func() { _ = body.Close() }()
		yieldChunks(body, end, yield)
	}
}

// yieldChunks reads body until it ends or fails, the end mark is complete, or no more chunks are wanted.
func yieldChunks(body io.Reader, end *endMark, yield func(chunk, error) bool) {
	buffer := make([]byte, chunkSize)
	for empty := 0; ; {
		n, err := body.Read(buffer)
		if empty++; n > 0 {
			empty = 0
			c := end.cut(chunk{data: bytes.Clone(buffer[:n])})
			if !yield(c, nil) || c.last {
				return
			}
		}
		if err == nil && empty >= mostEmptyReads {
			err = io.ErrNoProgress
		}
		if err != nil {
			yieldEnd(fault.Bound(err), end, yield)
			return
		}
	}
}

// yieldEnd yields what follows from the end of the body: its error, or the last chunk when the end mark is complete.
func yieldEnd(err error, end *endMark, yield func(chunk, error) bool) {
	switch {
	case !errors.Is(err, io.EOF):
		yield(chunk{}, err)
	case end.reached():
		yield(chunk{last: true}, nil)
	}
}

// mostEmptyReads bounds the reads in a row that return neither bytes nor an error.
const mostEmptyReads = 100

// endMark finds the end mark in chunks. It is for one stream.
type endMark struct {
	exact  []byte
	line   *regexp.Regexp // of server-sent events: the mark and the empty line behind it; nil: none
	last   *regexp.Regexp // the mark as the last line
	margin int            // by how much a match may be longer than exact
	tail   []byte         // of the bytes read so far: the mark may have begun there
}

// newEndMark returns nil for no mark.
func newEndMark(end []byte) *endMark {
	if len(end) == 0 {
		return nil
	}
	m := &endMark{exact: end}
	if data, ok := bytes.CutPrefix(end, []byte("data:")); ok && len(bytes.TrimSpace(data)) > 0 && utf8.Valid(end) {
		text := `(?:^|\n)data: ?` + regexp.QuoteMeta(string(bytes.TrimSpace(data)))
		m.line, m.last, m.margin = regexp.MustCompile(text+`\r?\n\r?\n`), regexp.MustCompile(text+`[\r\n]*$`), len("\n \r\n\r\n")
	}
	return m
}

// cut cuts the chunk behind the end mark, if the mark is complete in it.
func (m *endMark) cut(c chunk) chunk {
	if m == nil {
		return c
	}
	seen := slices.Concat(m.tail, c.data)
	if behind := m.find(seen); behind > 0 {
		c.data, c.last = c.data[:behind-len(m.tail)], true
		return c
	}
	m.tail = bytes.Clone(seen[max(len(seen)-len(m.exact)-m.margin+1, 0):])
	return c
}

// find returns the place behind the first end mark; 0: there is none.
func (m *endMark) find(seen []byte) (behind int) {
	if at := bytes.Index(seen, m.exact); at >= 0 {
		behind = at + len(m.exact)
	}
	if m.line != nil {
		if match := m.line.FindIndex(seen); match != nil && (behind == 0 || match[1] < behind) {
			behind = match[1]
		}
	}
	return behind
}

// reached reports whether the stream, which has ended, has the end mark as its last line.
func (m *endMark) reached() bool { return m != nil && m.last != nil && m.last.Match(m.tail) }

// reader reads a stream of chunks.
type reader struct {
	stream *Stream[chunk]
	rest   []byte
	err    error
}

func (r *reader) Read(p []byte) (int, error) {
	for len(r.rest) == 0 && r.err == nil && len(p) > 0 {
		c, err, more := r.stream.next()
		switch {
		case err != nil:
			r.err = err
		case !more:
			r.err = io.EOF
		default:
			r.rest = c.data
		}
	}
	if r.stream.isClosed() {
		r.rest, r.err = nil, cmp.Or(r.err, ErrClosed)
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	if n > 0 || len(p) == 0 {
		return n, nil
	}
	return 0, r.err
}

func (r *reader) Close() error {
	return r.stream.Close()
}
