package config

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/capreg/registry"
)

// HTTPOptions configures an HTTP source. The zero value of each field is its default.
type HTTPOptions struct {
	// Client makes the requests. Default: one with a time-out of 30 s.
	Client *http.Client
	// Header is sent with each request, such as an Authorization.
	Header http.Header
	// Interval is the time between two requests. Default: 30 s.
	Interval time.Duration
}

// HTTPSource is a document at a URL that is asked for again and again. Use [HTTP].
type HTTPSource struct {
	url     *url.URL
	options HTTPOptions

	mu   sync.Mutex
	etag string    // guarded by mu, as last; of the last answer
	last *Document // that answer's
}

// HTTP returns a source that gets a document from an absolute URL of http or https. An answer with an ETag is asked
// for again with If-None-Match. Every status but 200 and 304 is an error, and the last document stays in force; so is
// a body of more than 16 MiB. The error of a bad URL or option matches [registry.ErrInvalid].
func HTTP(address string, options HTTPOptions) (*HTTPSource, error) {
	at, err := url.Parse(address)
	if err != nil || at.Host == "" || at.Scheme != "http" && at.Scheme != "https" {
		return nil, fmt.Errorf("config: the address of a source is no absolute URL of http or https: %w", registry.ErrInvalid)
	}
	if options.Interval < 0 {
		return nil, fmt.Errorf("config: HTTPOptions.Interval is %v: want 0 (30 s) or more: %w", options.Interval, registry.ErrInvalid)
	}
	if options.Interval == 0 {
		options.Interval = 30 * time.Second
	}
	if options.Client == nil {
		options.Client = &http.Client{Timeout: 30 * time.Second}
	}
	options.Header = options.Header.Clone()
	return &HTTPSource{url: at, options: options}, nil
}

// String returns the URL without user, password and query, which may be secrets.
func (s *HTTPSource) String() string {
	return (&url.URL{Scheme: s.url.Scheme, Host: s.url.Host, Path: s.url.Path}).String()
}

// Load gets the document.
func (s *HTTPSource) Load(ctx context.Context) (*Document, error) {
	s.mu.Lock()
	etag, last := s.etag, s.last
	s.mu.Unlock()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url.String(), http.NoBody)
	if err != nil {
		return nil, s.wrap(err)
	}
	maps.Copy(request.Header, s.options.Header)
	if last != nil && etag != "" {
		request.Header.Set("If-None-Match", etag)
	}
	response, err := s.options.Client.Do(request)
	if err != nil {
		return nil, s.wrap(err)
	}
	defer response.Body.Close() //nolint:errcheck // it was read, or is not wanted
	switch {
	case response.StatusCode == http.StatusNotModified && last != nil:
		return last, nil
	case response.StatusCode != http.StatusOK:
		return nil, s.wrap(errors.New("the answer is " + response.Status))
	}
	text, err := io.ReadAll(io.LimitReader(response.Body, mostOfDocument+1))
	if err == nil && len(text) > mostOfDocument {
		err = errors.New("the document has more than 16 MiB")
	}
	if err != nil {
		return nil, s.wrap(err)
	}
	d, err := Parse(s.String(), text)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.etag, s.last = response.Header.Get("ETag"), d
	return d, nil
}

// wrap names the source, without the URL that errors of package http repeat.
func (s *HTTPSource) wrap(err error) error {
	var of *url.Error
	if errors.As(err, &of) {
		err = of.Err
	}
	return fmt.Errorf("config: %s: %w", s, err)
}

// Watch calls changed at every interval.
func (s *HTTPSource) Watch(ctx context.Context, changed func()) error {
	every := time.NewTicker(s.options.Interval)
	defer every.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-every.C:
			changed()
		}
	}
}
