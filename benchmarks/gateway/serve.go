package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"time"
)

// events and pause make a stream.
const (
	events = 100
	pause  = 10 * time.Millisecond
)

// serve has the program be one of the servers: it writes its address, and serves until ctx ends.
func serve(ctx context.Context, role, target string, to io.Writer) error {
	var listen net.ListenConfig
	listener, err := listen.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = listener.Close() })()
	if _, err := fmt.Fprintln(to, listener.Addr()); err != nil {
		return err
	}
	switch role {
	case "upstream":
		return serveUpstream(ctx, listener)
	case "proxy":
		return serveProxy(ctx, listener, target)
	case "library", "bare":
		return serveWay(ctx, listener, target, role == "library")
	}
	return fmt.Errorf("-serve is %q: want upstream, proxy, library or bare", role)
}

// serveProxy is the reverse proxy as its documentation has it, with as many idle connections as clients.
func serveProxy(ctx context.Context, listener net.Listener, target string) error {
	to, err := url.Parse("http://" + target)
	if err != nil {
		return err
	}
	proxy := &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(to) },
		Transport: &http.Transport{MaxIdleConnsPerHost: 256},
	}
	server := &http.Server{Handler: proxy, ReadHeaderTimeout: time.Minute}
	return unlessEnded(ctx, server.Serve(listener))
}

func unlessEnded(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		err = nil
	}
	return err
}

// serveUpstream answers each request at once with a completion, or with a stream. It does as little else as it can.
func serveUpstream(ctx context.Context, listener net.Listener) error {
	for {
		connection, err := listener.Accept()
		if err != nil {
			return unlessEnded(ctx, err)
		}
		go func() {
			defer func() { _ = connection.Close() }()
			for from := bufio.NewReader(connection); answer(ctx, from, connection) == nil; {
			}
		}()
	}
}

// answer answers one request.
func answer(ctx context.Context, from *bufio.Reader, to io.Writer) error {
	request, err := http.ReadRequest(from)
	if err != nil {
		return err
	}
	question, err := io.ReadAll(request.Body)
	if err != nil {
		return err
	}
	if !bytes.Contains(question, []byte(`"stream":true`)) {
		_, err = io.WriteString(to, plainAnswer)
		return err
	}
	if _, err := io.WriteString(to, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"); err != nil {
		return err
	}
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for i := range events {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		piece := fmt.Sprintf(`data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"bench","choices":[{"index":0,"delta":{"content":"%d "},"finish_reason":null}]}`+"\n\n", i)
		if _, err := io.WriteString(to, chunk(piece)); err != nil {
			return err
		}
	}
	_, err = io.WriteString(to, chunk(`data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"bench","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}`+"\n\ndata: [DONE]\n\n")+"0\r\n\r\n")
	return err
}

func chunk(text string) string { return fmt.Sprintf("%x\r\n%s\r\n", len(text), text) }

//nolint:gochecknoglobals // made once: an answer costs one write
var plainAnswer = func() string {
	body := fmt.Sprintf(`{"id":"c","object":"chat.completion","created":1,"model":"bench","choices":[{"index":0,"message":{"role":"assistant",`+
		`"content":%q},"finish_reason":"stop"}],"usage":{"prompt_tokens":20,"completion_tokens":60,"total_tokens":80}}`, strings.Repeat("an answer ", 35))
	return fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
}()

var errNoAddress = errors.New("it has said no address")
