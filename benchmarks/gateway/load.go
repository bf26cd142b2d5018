package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// load describes the requests of the clients.
type load struct {
	connections int
	stream      bool
}

const (
	plainQuestion  = `{"model":"bench","messages":[{"role":"user","content":"How many words are in this sentence, and which of them is the longest?"}]}`
	streamQuestion = `{"model":"bench","stream":true,"messages":[{"role":"user","content":"Count to a hundred."}]}`
)

// bytes returns the request to a server; headers are lines of their own.
func (l load) bytes(address, headers string) []byte {
	body := plainQuestion
	if l.stream {
		body = streamQuestion
	}
	return fmt.Appendf(nil, "POST /v1/chat/completions HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\n"+
		"Authorization: Bearer key\r\n%sContent-Length: %d\r\n\r\n%s", address, headers, len(body), body)
}

// play sends requests on each connection until the time is over, and returns the number of the answered ones and the time
// that it took.
func (l load) play(ctx context.Context, to *contestant, turn time.Duration) (answered int64, took time.Duration, err error) {
	question := l.bytes(to.address, to.headers)
	began := time.Now()
	answered, err = l.repeat(ctx, to.address, question, func() bool { return time.Since(began) < turn })
	return answered, time.Since(began), err
}

// repeat sends a request on each connection as long as more says so. A stream that is cut is not counted, and its
// connection opened again.
func (l load) repeat(ctx context.Context, address string, question []byte, more func() bool) (int64, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var answered atomic.Int64
	var clients sync.WaitGroup
	goOn := func() bool { return ctx.Err() == nil && more() }
	for range l.connections {
		clients.Go(func() {
			err := io.ErrUnexpectedEOF
			for errors.Is(err, io.ErrUnexpectedEOF) && ctx.Err() == nil {
				err = l.converse(ctx, address, question, goOn, &answered)
			}
			if err != nil {
				cancel(err)
			}
		})
	}
	clients.Wait()
	return answered.Load(), context.Cause(ctx)
}

// converse is one connection.
func (l load) converse(ctx context.Context, address string, question []byte, more func() bool, answered *atomic.Int64) (err error) {
	var dialer net.Dialer
	connection, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, connection.Close()) }()
	defer context.AfterFunc(ctx, func() { _ = connection.SetDeadline(time.Unix(1, 0)) })()
	from := bufio.NewReader(connection)
	for more() {
		if _, err := connection.Write(question); err != nil {
			return err
		}
		response, err := http.ReadResponse(from, nil)
		if err != nil {
			return err
		}
		var text strings.Builder
		body := io.Reader(response.Body)
		if response.StatusCode != http.StatusOK {
			body = io.TeeReader(body, &text)
		}
		_, err = io.Copy(io.Discard, body)
		if err = errors.Join(err, response.Body.Close()); err != nil {
			return err
		}
		if response.StatusCode != http.StatusOK {
			return fmt.Errorf("%s answers %s: %.300s", address, response.Status, &text)
		}
		answered.Add(1)
	}
	return nil
}

// mixed sends so many requests, of which one in ten is a stream, so many at once.
func mixed(ctx context.Context, address string, requests, atOnce int) error {
	var left atomic.Int64
	left.Store(int64(requests - requests/10))
	plain := load{connections: 64}
	if _, err := plain.repeat(ctx, address, plain.bytes(address, ""), func() bool { return left.Add(-1) >= 0 }); err != nil {
		return err
	}
	left.Store(int64(requests / 10))
	streams := load{connections: atOnce, stream: true}
	_, err := streams.repeat(ctx, address, streams.bytes(address, ""), func() bool { return left.Add(-1) >= 0 })
	return err
}
