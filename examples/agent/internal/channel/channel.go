// Package channel delivers the agent's messages to people and programs.
package channel

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"
)

// Channel delivers a message. Implementations are safe for concurrent use.
type Channel interface {
	Send(ctx context.Context, message string) error
}

// Terminal is a Channel that writes lines.
type Terminal struct {
	// mu guards out: lines must not mix.
	mu  sync.Mutex
	out io.Writer
}

// NewTerminal returns a Channel to out.
func NewTerminal(out io.Writer) *Terminal { return &Terminal{out: out} }

// Send writes the message as a line.
func (t *Terminal) Send(_ context.Context, message string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, err := fmt.Fprintln(t.out, message)
	return err
}

// Webhook is a Channel that posts messages as JSON.
type Webhook struct {
	client *http.Client
	url    string
}

// NewWebhook returns a Channel that posts {"text": message} to the URL.
func NewWebhook(url string) *Webhook {
	return &Webhook{url: url, client: &http.Client{Transport: &http.Transport{IdleConnTimeout: 30 * time.Second}}}
}

// StatusError is a webhook's answer that is none.
type StatusError int

// Error returns the status.
func (e StatusError) Error() string {
	return fmt.Sprintf("webhook: HTTP %d %s", int(e), http.StatusText(int(e)))
}

// HTTPStatusCode returns the status.
func (e StatusError) HTTPStatusCode() int { return int(e) }

// Send posts the message.
func (w *Webhook) Send(ctx context.Context, message string) error {
	body, err := json.Marshal(map[string]string{"text": message})
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, w.url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := w.client.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		return err
	}
	if response.StatusCode >= http.StatusMultipleChoices {
		return StatusError(response.StatusCode)
	}
	return nil
}

// Close closes the idle connections.
func (w *Webhook) Close() error {
	w.client.CloseIdleConnections()
	return nil
}
