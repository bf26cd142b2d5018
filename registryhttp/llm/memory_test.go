package llm_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/registryhttp/llm"
	"github.com/capreg/registry/stream"
	"github.com/capreg/registry/verdict"
)

// endless is a body of events that goes on until it is closed.
type endless struct{ closing }

func (e *endless) Read(p []byte) (int, error) {
	if e.closed.Load() {
		return 0, http.ErrBodyReadAfterClose
	}
	return copy(p, token), nil
}

func TestTransport_GivesBackWhatAnAnswerHoldsThatIsClosedWhileItIsRead(t *testing.T) {
	t.Parallel()
	for range 50 {
		const most = 1 << 20
		memory := llm.NewMemory(most)
		response, err := send(t, &llm.Transport{Memory: memory, Base: roundTrip(func(r *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {events}}, ContentLength: -1, Request: r, Body: &endless{}}, nil
		})}, "/chat/completions", streamed)
		require.NoError(t, err)
		var readers sync.WaitGroup
		begun := make(chan struct{})
		readers.Go(func() {
			var piece [512]byte
			for n := 0; err == nil; n++ {
				if _, err = response.Body.Read(piece[:]); n == 3 {
					close(begun)
				}
			}
		})
		<-begun
		require.NoError(t, response.Body.Close())
		readers.Wait()
		require.NoError(t, memory.Take(most), "all of it is there again")
	}
}

func TestTransport_BoundsWhatItHolds(t *testing.T) {
	t.Parallel()
	memory := llm.NewMemory(1000)
	long := `{"choices":[{"message":{"content":"` + strings.Repeat("x", 600) + `"}}]}`
	for range 3 { // all of it is given back
		_, err := ask(t, llm.Transport{Memory: memory}, says(200, plainJSON, long), "/chat/completions", plain)
		require.NoError(t, err)
		_, err = ask(t, llm.Transport{Memory: memory, Whole: true}, says(200, events, strings.Repeat(token, 100)+marked), "/chat/completions", streamed)
		require.ErrorIs(t, err, llm.ErrMemory)
		require.Equal(t, verdict.ClassIgnored, verdict.Of(err).Class)
		bubble(t, func(t *testing.T) {
			_, err := ask(t, llm.Transport{Memory: memory}, says(200, events, strings.Repeat(token+"|", 100)+marked), "/chat/completions", streamed)
			require.NoError(t, err, "a stream that is handed over is not held")
		})
		_, err = ask(t, llm.Transport{Memory: memory}, says(200, events, strings.Repeat(role, 100)), "/chat/completions", streamed)
		require.ErrorIs(t, err, llm.ErrMemory)
		_, err = ask(t, llm.Transport{MaxAnswer: 100, Memory: memory}, says(200, plainJSON, long), "/chat/completions", plain)
		require.Equal(t, verdict.ClassMalformed, verdict.Of(err).Class)
		_, err = ask(t, llm.Transport{MaxEvent: 10, Memory: memory}, says(200, events, token), "/chat/completions", streamed)
		require.ErrorIs(t, err, stream.ErrEventTooLarge)
	}
	require.NoError(t, memory.Take(1000))
}

// exploding is a body that panics at its end, or when it is closed.
type exploding struct {
	io.Reader

	closes bool
}

func (e *exploding) Read(p []byte) (int, error) {
	n, err := e.Reader.Read(p)
	if err != nil && e.closes {
		panic("read")
	}
	return n, err
}

func (e *exploding) Close() error {
	if !e.closes {
		panic("close")
	}
	return nil
}

// Variants: while a plain answer is read, before the first token of a stream, and when the body is closed.
func TestTransport_PanicOfABodyKeepsNothing(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ kind, text, body string }{{plainJSON, "{", plain}, {events, role, streamed}, {plainJSON, whole, plain}} {
		memory, own, complete := llm.NewMemory(1000), tokens(60), c.text == whole
		var sent context.Context
		transport := llm.Transport{Memory: memory, Tokens: own, Base: roundTrip(func(r *http.Request) (*http.Response, error) {
			sent = r.Context() //nolint:fatcontext // the test looks at it from outside
			return &http.Response{
				StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {c.kind}}, ContentLength: -1, Request: r, Body: &exploding{reader(c.text), !complete},
			}, nil
		})}
		require.Panics(t, func() {
			response, err := send(t, &transport, "/chat/completions", c.body)
			require.NoError(t, err)
			_ = response.Body.Close()
		})
		require.NoError(t, memory.Take(1000), "all of it is there again")
		if c.body == streamed {
			require.Error(t, sent.Err())
		}
		if c.text == "{" { // nothing was used
			header := make(http.Header)
			own.Head(header)
			require.Equal(t, "60", header.Get("X-Ratelimit-Remaining-Tokens"))
		}
	}
}

// What is refused is at no time missing for those that ask for less.
func TestMemory_RefusalKeepsNoOtherOut(t *testing.T) {
	t.Parallel()
	memory := llm.NewMemory(100)
	over := make(chan struct{})
	go func() {
		defer close(over)
		for range 500_000 {
			_ = memory.Take(1000)
		}
	}()
	for {
		require.NoError(t, memory.Take(100))
		memory.Free(100)
		select {
		case <-over:
			return
		default:
		}
	}
}
