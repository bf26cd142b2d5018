package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/config"
)

const (
	okHead  = "HTTP/1.1 200 OK\r\nConnection: close\r\n"
	sseHead = okHead + "Content-Type: text/event-stream\r\n\r\n"
	oneWord = "data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\n"
	roleOf  = "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\"}}]}\n\n"
)

// script is what a hostile upstream does with a connection whose request it has read; it ends with ctx.
type script func(ctx context.Context, c net.Conn)

func sends(text string) script {
	return func(_ context.Context, c net.Conn) { _, _ = io.WriteString(c, text) }
}

// thenSilent sends a text and says nothing more.
func thenSilent(text string) script {
	return func(ctx context.Context, c net.Conn) {
		_, _ = io.WriteString(c, text)
		<-ctx.Done()
	}
}

// without sends a text and then another one again and again, until the connection is cut.
func without(end, head, again string) script {
	return func(ctx context.Context, c net.Conn) {
		_, err := io.WriteString(c, head)
		for err == nil && ctx.Err() == nil {
			_, err = io.WriteString(c, again)
		}
		_, _ = io.WriteString(c, end)
	}
}

func zipped(text string) string {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, _ = io.WriteString(w, text)
	_ = w.Close()
	return out.String()
}

func hostileUpstreams() map[string]script {
	all := map[string]script{
		"silence": thenSilent(""), "head, then silence": thenSilent(okHead + "\r\n"), "half a head": thenSilent("HTTP/1.1 200 OK\r\nConte"),
		"role, then silence": thenSilent(sseHead + roleOf), "token, then silence": thenSilent(sseHead + oneWord), "comment, then silence": thenSilent(sseHead + ": x\n\n"),
		"half an object, then silence": thenSilent(okHead + "Content-Type: application/json\r\n\r\n{\"choi"), "half an event, then silence": thenSilent(sseHead + "data: {"),
		"endless head":           without("", "HTTP/1.1 200 OK\r\n", "X-Header: "+strings.Repeat("x", 1000)+"\r\n"),
		"endless line of a head": without("", "HTTP/1.1 200 OK\r\nX: ", strings.Repeat("x", 1000)),
		"endless status line":    without("", "HTTP/1.1 200 ", strings.Repeat("x", 1000)),
		"endless 1xx":            without("", "", "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"),
		"endless comments":       without("", sseHead, ": ping\n\n"), "endless roles": without("", sseHead, roleOf),
		"endless line": without("", sseHead+"data: ", strings.Repeat("x", 1<<16)), "endless empty lines": without("", sseHead, "\n"),
		"endless lines of one event": without("", sseHead, "data: x\n"), "endless plain body": without("", okHead+"Content-Type: application/json\r\n\r\n{\"x\":\"", strings.Repeat("x", 1<<16)),
		"endless spaces": without("", okHead+"\r\n", strings.Repeat(" ", 1<<16)), "endless error": without("", "HTTP/1.1 500 No\r\n\r\n", strings.Repeat("x", 1<<16)),
		"endless tokens": without("", sseHead, oneWord), "endless deep object": without("", okHead+"\r\n", strings.Repeat("[", 1<<16)),
		"endless chunk sizes": without("", okHead+"Transfer-Encoding: chunked\r\n\r\n", "0000000000"), "endless trailers": without("", okHead+"Transfer-Encoding: chunked\r\n\r\n0\r\n", "X: y\r\n"),
		"bomb":             sends(okHead + "Content-Type: application/json\r\nContent-Encoding: gzip\r\n\r\n" + zipped(strings.Repeat(" ", 40<<20))),
		"bomb in a stream": sends(okHead + "Content-Type: text/event-stream\r\nContent-Encoding: gzip\r\n\r\n" + zipped("data: "+strings.Repeat(" ", 40<<20))),
		"bomb in an error": sends("HTTP/1.1 400 No\r\nContent-Encoding: gzip\r\n\r\n" + zipped(strings.Repeat(" ", 40<<20))),
		"big event":        sends(sseHead + "data: {\"choices\":[{\"delta\":{\"content\":\"" + strings.Repeat("x", 9<<20) + "\"}}]}\n\n"),
		"deep object":      sends(okHead + "\r\n" + strings.Repeat(`{"a":`, 100_000)),
		"deep event":       sends(sseHead + "data: " + strings.Repeat(`[`, 100_000) + "\n\n"),
	}
	for i, text := range []string{
		"", "\x00\xff\xfe", "garbage\r\n\r\n", "HTTP/9.9 200 OK\r\n\r\n", "HTTP/1.1 999 ?\r\n\r\n", "HTTP/1.1 200\r\n\r\n", "HTTP/1.1 -1 x\r\n\r\n",
		"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n", "HTTP/1.1 201 Created\r\n\r\n{}", "HTTP/1.1 204 No Content\r\n\r\n", "HTTP/1.1 206 Partial\r\n\r\n{}",
		"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/steal\r\n\r\n", "HTTP/1.1 304 Not Modified\r\n\r\n", "HTTP/1.1 308 Moved\r\nLocation: /again\r\n\r\n",
		"HTTP/1.1 407 Proxy\r\nProxy-Authenticate: Basic\r\n\r\n", "HTTP/1.1 401 No\r\nWWW-Authenticate: Basic\r\n\r\n",
		"HTTP/1.1 429 Slow\r\nRetry-After: -5\r\n\r\n", "HTTP/1.1 429 Slow\r\nRetry-After: 99999999999999999999\r\n\r\n", "HTTP/1.1 503 Busy\r\nRetry-After: Mon, 01 Jan 9999 00:00:00 GMT\r\n\r\n",
		okHead + "Content-Length: 5\r\nContent-Length: 7\r\n\r\n{}", okHead + "Content-Length: 100\r\n\r\n{}", okHead + "Content-Length: -1\r\n\r\n{}", okHead + "Content-Length: 99999999999999999999\r\n\r\n{}",
		okHead + "Transfer-Encoding: chunked\r\n\r\nzz\r\n", okHead + "Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n{", okHead + "Content-Encoding: gzip\r\n\r\nnot gzip",
		okHead + "\r\n<html>", okHead + "\r\nnull", okHead + "\r\n[]", okHead + "\r\n\"x\"", okHead + "\r\n{\"choices\":null}", okHead + "\r\n{\"choices\":[null]}", okHead + "\r\n{\"error\":-7}",
		okHead + "\r\n{\"error\":{\"code\":\"\xff\"}}", okHead + "\r\n{\"a\":\"\x00\"}", "HTTP/1.1 400 No\r\n\r\n{\"error\":{\"message\":{\"a\":[1]},\"code\":-1}}",
		sseHead + "data: [DONE]\n\n", sseHead + "data: \n\ndata:\n\n", sseHead + "event: error\n\n", sseHead + "event: error\ndata: \xff\n\n", sseHead + roleOf + "data: [DONE]\n\n",
		sseHead + oneWord, sseHead + oneWord + "data: {\"error\":\"late\"}\n\n", sseHead + oneWord + "data: null\n\n", sseHead + oneWord + "data: {\"model\":5,\"choices\":7}\n\n",
		sseHead + "data: {\"choices\":[{\"delta\":{\"content\":\"" + strings.Repeat("\\u0000", 1000) + "\"}}]}\n\n",
	} {
		all[fmt.Sprintf("text %d: %.40q", i, text)] = sends(text)
	}
	return all
}

// hostile serves a script on each connection.
func hostile(t *testing.T, do script) (url string) {
	t.Helper()
	var settings net.ListenConfig
	listener, err := settings.Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			stop := context.AfterFunc(ctx, func() { _ = c.Close() })
			serving.Go(func() {
				defer func() { stop(); _ = c.Close() }()
				if r, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
					_, _ = io.Copy(io.Discard, r.Body)
					do(ctx, c)
				}
			})
		}
	})
	t.Cleanup(func() {
		cancel()
		require.NoError(t, listener.Close())
		serving.Wait()
	})
	return "http://" + listener.Addr().String()
}

// Each is asked for a plain answer and a stream: the client gets an answer or an error in time and in form, and a model beside it
// is served as ever.
func TestHostile_UpstreamsHurtOneRequestAtMost(t *testing.T) {
	t.Parallel()
	upstreams := hostileUpstreams()
	require.GreaterOrEqual(t, len(upstreams), 60)
	good := upstream(t, http.StatusOK, whole)
	for name, do := range upstreams {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			short := config.Duration(300 * time.Millisecond)
			times := Timeouts{FirstToken: short, Stall: short, Answer: short, Total: config.Duration(time.Second)}
			settings := Config{Memory: 64 << 20, Upstreams: map[string]Upstream{
				"hostile": {URL: hostile(t, do), Retry: &registry.RetryPolicy{}}, "good": {URL: good},
			}, Routes: []Route{
				{Model: "a", Groups: []Group{{Upstreams: []string{"hostile"}}}, Timeouts: times},
				{Model: "b", Groups: []Group{{Upstreams: []string{"good"}}}},
			}}
			url := start(t, settings)
			for _, body := range []string{askA, streamA} {
				begun := time.Now()
				r, text := post(t, url, body)
				require.Less(t, time.Since(begun), 20*time.Second)
				if r.StatusCode == http.StatusOK {
					requireForm(t, text, body == streamA)
				} else {
					require.True(t, isRefusal(text), "%d %.200s", r.StatusCode, text)
					require.NotContains(t, text, "127.0.0.1")
				}
				r, _ = post(t, url, askB)
				require.Equal(t, http.StatusOK, r.StatusCode)
			}
		})
	}
}

// requireForm checks the form of an answer: JSON, or events the last of which is the end mark or an error.
func requireForm(t *testing.T, text string, streamed bool) {
	t.Helper()
	if !streamed {
		require.Contains(t, text, "choices")
		return
	}
	text = strings.TrimSuffix(text, "\n\n")
	last := strings.TrimPrefix(text[strings.LastIndex(text, "data: "):], "data: ")
	require.True(t, last == endOfStream || isRefusal(last), "%.200s", last)
}

// Each sends bytes of its own and leaves or waits; the gateway serves others meanwhile, and nothing is left of it.
func TestHostile_ClientsHurtNoOther(t *testing.T) {
	t.Parallel()
	const head = "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n"
	long := fmt.Sprintf(head+"Content-Length: %d\r\n\r\n", 9_000_000)
	texts := []string{
		"", "\x00\xff\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "POST /v1/chat/completions HTTP/1.1\r\n\r\n", head, head + "Content-Length: 10\r\n\r\n{", head + "Content-Length: -1\r\n\r\n",
		head + "Content-Length: 1\r\nContent-Length: 2\r\n\r\n{}", head + "Transfer-Encoding: chunked\r\n\r\nzz\r\n", head + "Transfer-Encoding: chunked\r\n\r\n5\r\n{\"mod", long + "{",
		head + "Expect: 100-continue\r\nContent-Length: 10\r\n\r\n", head + "X: " + strings.Repeat("x", 200_000) + "\r\n\r\n", head + strings.Repeat("X: y\r\n", 20_000) + "\r\n",
		"GET /" + strings.Repeat("a", 200_000) + " HTTP/1.1\r\nHost: x\r\n\r\n", "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", "CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n",
		"GET /v1/models/..%2f..%2fetc HTTP/1.1\r\nHost: x\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
		head + "Content-Length: 27\r\n\r\n{\"model\":\"a\",\"stream\":true}", head + "Content-Length: 4\r\n\r\nnull", head + "Upgrade: websocket\r\nConnection: Upgrade\r\nContent-Length: 2\r\n\r\n{}",
		head + fmt.Sprintf("Content-Length: %d\r\n\r\n", 100_000) + strings.Repeat("[", 100_000),
	}
	require.GreaterOrEqual(t, len(texts), 20)
	url := start(t, over(upstream(t, http.StatusOK, whole)))
	var all sync.WaitGroup
	for _, text := range texts {
		for _, reads := range []bool{true, false} {
			all.Go(func() {
				var dialer net.Dialer
				c, err := dialer.DialContext(t.Context(), "tcp", strings.TrimPrefix(url, "http://"))
				if err != nil {
					t.Error(err)
					return
				}
				defer func() { _ = c.Close() }()
				_, _ = io.WriteString(c, text)
				if reads {
					_ = c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
					_, _ = io.Copy(io.Discard, c)
				}
			})
		}
	}
	for range 20 {
		r, text := post(t, url, askB)
		require.Equal(t, http.StatusOK, r.StatusCode, text)
	}
	all.Wait()
	r, text := post(t, url, askB)
	require.Equal(t, http.StatusOK, r.StatusCode, text)
}
