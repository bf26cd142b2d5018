package registryhttp

import (
	"errors"
	"io"
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/verdict"
)

// longUpload is the length from which the time of an upload does not count as the provider's.
const longUpload = 1 << 20

// errDetached ends the reading of a body by an attempt that is over.
var errDetached = errors.New("registryhttp: the attempt is over")

// requestBody is the body of a request as its attempts send it: by GetBody, or kept while it is sent.
type requestBody struct {
	request *http.Request
	kept    *keptBody
	taken   bool // the first attempt has the body itself
	none    bool
}

func (b *requestBody) init(request *http.Request, most int64) {
	b.request = request
	switch {
	case request.Body == nil || request.Body == http.NoBody:
		b.none = true
	case request.GetBody == nil:
		b.kept = &keptBody{source: request.Body, most: most}
	}
}

// give sets the body of an attempt's request.
func (b *requestBody) give(x *exchange) error {
	out := &x.sent
	switch {
	case b.none:
	case b.kept != nil:
		out.Body = &pacedBody{ReadCloser: b.kept.open(), exchange: x}
		out.GetBody = func() (io.ReadCloser, error) {
			if b.kept.lost.Load() {
				return nil, ErrBodySpent
			}
			return &pacedBody{ReadCloser: b.kept.open(), exchange: x}, nil
		}
	default:
		body := out.Body
		if b.taken {
			if err := fault.Run(func() (err error) { body, err = b.request.GetBody(); return err }); err != nil {
				return verdict.Ignore(err) // it says nothing about the provider
			}
		}
		b.taken = true
		if out.Body = body; out.ContentLength < 0 || out.ContentLength >= longUpload {
			out.Body = &pacedBody{ReadCloser: body, exchange: x}
		}
	}
	return nil
}

// repeatable reports whether another attempt could send the body.
func (b *requestBody) repeatable() bool { return b.kept == nil || !b.kept.lost.Load() }

// mayGetLost reports whether the body could be longer than what is kept of it: an attempt that is cut could be the last.
func (b *requestBody) mayGetLost() bool {
	return b.kept != nil && (b.request.ContentLength < 0 || b.request.ContentLength > b.kept.most)
}

// commit leaves the body to the last attempt, which may still be sending it.
func (b *requestBody) commit() {
	if b.kept != nil {
		b.kept.commit()
	}
}

// release closes the body unless an attempt has it, or had it.
func (b *requestBody) release() {
	switch {
	case b.none:
	case b.kept != nil:
		b.kept.release()
	case !b.taken:
		closeBody(b.request)
	}
}

// keptBody is a body that can be read once, and what was read of it so far. Attempts read it through cursors, the
// newest of which alone goes on. It closes the source when the request is over, or with the last cursor of a
// request that is committed.
type keptBody struct {
	most    int64
	lost    atomic.Bool // it is longer than most
	current atomic.Pointer[cursor]

	// reading is held while the source is read, which may take as long as it likes.
	reading sync.Mutex
	source  io.ReadCloser
	start   []byte // nil once it is lost
	err     error  // of the source

	committed atomic.Bool
	closed    atomic.Bool
}

// cursor is the place of one attempt in a body.
type cursor struct {
	body *keptBody
	at   int
}

func (k *keptBody) open() *cursor {
	c := &cursor{body: k}
	k.current.Store(c)
	return c
}

func (k *keptBody) commit() {
	k.committed.Store(true)
	if k.current.Load() == nil {
		k.close()
	}
}

// release closes the source, unless the request is committed and its attempt may still send it.
func (k *keptBody) release() {
	if !k.committed.Load() {
		k.current.Store(nil)
		k.close()
	}
}

func (k *keptBody) close() {
	if k.closed.CompareAndSwap(false, true) {
		_ = k.source.Close()
	}
}

// Read reads what was kept, then the source.
func (c *cursor) Read(p []byte) (int, error) {
	k := c.body
	k.reading.Lock()
	defer k.reading.Unlock()
	if k.current.Load() != c {
		return 0, errDetached
	}
	if n := copy(p, k.start[min(c.at, len(k.start)):]); n > 0 {
		c.at += n
		return n, nil
	}
	if k.err != nil || len(p) == 0 {
		return 0, k.err
	}
	n, err := k.source.Read(p)
	k.err = err
	if n > 0 && !k.lost.Load() {
		if int64(len(k.start)+n) > k.most {
			k.start = nil
			k.lost.Store(true)
		} else {
			k.start = append(k.start, p[:n]...)
		}
	}
	c.at += n
	return n, err
}

// Close ends the cursor. The source stays open for other attempts.
func (c *cursor) Close() error {
	if c.body.current.CompareAndSwap(c, nil) && c.body.committed.Load() {
		c.body.close()
	}
	return nil
}

// pacedBody is a body whose reads stop the clock of the attempt: the time in which the client produces it, or
// the network takes it, is not the provider's.
type pacedBody struct {
	io.ReadCloser

	exchange *exchange
}

func (b *pacedBody) Read(p []byte) (int, error) {
	b.exchange.pause()
	defer b.exchange.resume()
	return b.ReadCloser.Read(p)
}
