package stream

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"iter"

	"github.com/capreg/registry"
)

const chunkSize = 32 << 10

// ReaderOptions configure a stream of bytes. The zero value of each field is its default.
type ReaderOptions struct {
	// Options are those of a stream whose items are chunks of bytes as they arrive; KeepAlive
	// and Last get one chunk.
	Options[[]byte]

	// End is the end mark of a complete stream, such as "data: [DONE]\n\n". It is found across
	// chunks and handed over; nothing behind it is read. Default: every stream that ends
	// without an error is complete, unless Last is set.
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
		Whole: options.Whole, MostItems: options.MostItems, Call: options.Call,
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
		return chunks(body, options.End), nil
	}, settings)
	if err != nil {
		return nil, err
	}
	s.begin()
	return &reader{stream: s}, nil
}

// chunks yields the bytes of body, and closes it at the end.
func chunks(body io.ReadCloser, end []byte) iter.Seq2[chunk, error] {
	return func(yield func(chunk, error) bool) {
		defer func() { _ = body.Close() }()
		yieldChunks(body, end, yield)
	}
}

// yieldChunks reads body until it ends or fails, the end mark is complete, or no more chunks are wanted.
func yieldChunks(body io.Reader, end []byte, yield func(chunk, error) bool) {
	buffer := make([]byte, chunkSize)
	var tail []byte // of the bytes read so far: the end mark may have begun there
	for {
		n, err := body.Read(buffer)
		if n > 0 {
			c := chunk{data: bytes.Clone(buffer[:n])}
			if len(end) > 0 {
				tail, c = findEnd(tail, c, end)
			}
			if !yield(c, nil) || c.last {
				return
			}
		}
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			yield(chunk{}, err)
			return
		}
	}
}

// findEnd cuts the chunk behind the end mark, if the mark is complete in it, and returns the
// tail in which the mark may have begun.
func findEnd(tail []byte, c chunk, end []byte) ([]byte, chunk) {
	seen := append(tail, c.data...) //nolint:gocritic // tail is not used again
	if at := bytes.Index(seen, end); at >= 0 {
		c.data = c.data[:at+len(end)-len(tail)]
		c.last = true
		return nil, c
	}
	return bytes.Clone(seen[max(len(seen)-len(end)+1, 0):]), c
}

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
