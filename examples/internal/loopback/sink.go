package loopback

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

const page = "<html><body><p>Sold: <b>4</b>, 8, 15, 16, 23 and <i>42</i>.</p></body></html>\n"

// Sink is a webhook that counts the messages posted to it, with a page to read.
type Sink struct {
	server   *http.Server
	url      string
	messages atomic.Int64
	done     chan struct{}
}

// StartSink returns a webhook on a free port of 127.0.0.1.
func StartSink(ctx context.Context) (*Sink, error) {
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("loopback webhook: %w", err)
	}
	s := &Sink{url: "http://" + listener.Addr().String(), done: make(chan struct{})}
	s.server = &http.Server{ReadHeaderTimeout: 5 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet && r.URL.Path == "/page" {
			_, _ = io.WriteString(w, page) // the client may be gone
			return
		}
		var message struct {
			Text string `json:"text"`
		}
		if r.Method != http.MethodPost || json.NewDecoder(http.MaxBytesReader(nil, r.Body, 1<<20)).Decode(&message) != nil || message.Text == "" {
			http.Error(w, "want a message", http.StatusBadRequest)
			return
		}
		s.messages.Add(1)
		w.WriteHeader(http.StatusNoContent)
	})}
	go func() {
		defer close(s.done)
		_ = s.server.Serve(listener)
	}()
	return s, nil
}

// URL returns where to post messages to.
func (s *Sink) URL() string { return s.url + "/hook" }

// Page returns the address of the page, which has the figures 4, 8, 15, 16, 23 and 42.
func (s *Sink) Page() string { return s.url + "/page" }

// Messages returns the number of messages that have arrived.
func (s *Sink) Messages() int64 { return s.messages.Load() }

// Close ends the webhook.
func (s *Sink) Close() {
	_ = s.server.Close()
	<-s.done
}
