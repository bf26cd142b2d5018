package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"
)

// remote is the control API of a running program.
type remote struct {
	// address, token and settings are those of the flags.
	address, token, tokenFile, settings string

	base   *url.URL
	client *http.Client
}

// The environment of the command.
const (
	addressVariable = "REGISTRY_ADDRESS"
	tokenVariable   = "REGISTRY_TOKEN"
)

// addFlags adds the flags that say which program is asked.
func (r *remote) addFlags(command *cobra.Command) {
	flags := command.Flags()
	flags.StringVar(&r.address, "address", "", "control API, such as http://localhost:8080/ops or unix:/run/agent.sock:/ops (default: $"+addressVariable+", or the file)")
	flags.StringVar(&r.token, "token", "", "token for it, which others on this machine can see (default: $"+tokenVariable+", or the file)")
	flags.StringVar(&r.tokenFile, "token-file", "", "file with the token")
	flags.StringVar(&r.settings, "settings", "", "file with address and token (default: registry/client.yaml in the user's folder of settings)")
}

// settingsFile holds what is read of the file.
type settingsFile struct {
	Address string `yaml:"address"`
	Token   string `yaml:"token"`
}

// connect finds out where the API is and with which token.
func (r *remote) connect() error {
	file, err := r.read()
	if err != nil {
		return err
	}
	address := first(r.address, os.Getenv(addressVariable), file.Address)
	if address == "" {
		return errors.New("no address of a control API: use --address, $" + addressVariable + " or the file of settings")
	}
	if r.tokenFile != "" {
		text, err := os.ReadFile(r.tokenFile)
		if err != nil {
			return err
		}
		r.token = strings.TrimSpace(string(text))
	}
	r.token = first(r.token, os.Getenv(tokenVariable), file.Token)
	transport := &http.Transport{ResponseHeaderTimeout: time.Minute}
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		socket, prefix, _ := strings.Cut(path, ":")
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		}
		address = "http://localhost" + prefix
	}
	r.client = &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error {
		return errors.New("the address sends elsewhere") // a token is for the one that it was given for
	}}
	if r.base, err = url.Parse(strings.TrimSuffix(address, "/")); err != nil || r.base.Scheme != "http" && r.base.Scheme != "https" || r.base.Host == "" {
		return fmt.Errorf("address %q: want one like http://localhost:8080/ops or unix:/run/agent.sock", address)
	}
	return nil
}

// read reads the file of settings; there may be none, unless it was named.
func (r *remote) read() (file settingsFile, err error) {
	path := r.settings
	if path == "" {
		folder, err := os.UserConfigDir()
		if err != nil {
			return file, nil //nolint:nilerr // there is no such folder, and so no file
		}
		path = filepath.Join(folder, "registry", "client.yaml")
	}
	text, err := os.ReadFile(path) //nolint:gosec // the file that was named
	if errors.Is(err, os.ErrNotExist) && r.settings == "" {
		return file, nil
	}
	if err == nil {
		decoder := yaml.NewDecoder(bytes.NewReader(text))
		decoder.KnownFields(true)
		if err = decoder.Decode(&file); err != nil {
			err = fmt.Errorf("%s: %w", path, err)
		}
	}
	if err == nil && file.Token != "" {
		err = checkPrivate(path)
	}
	return file, err
}

// checkPrivate refuses a file with a token that others can read.
func checkPrivate(path string) error {
	info, err := os.Stat(path)
	if err == nil && info.Mode().Perm()&0o077 != 0 {
		err = fmt.Errorf("%s has a token and can be read by others: chmod 600 it", path)
	}
	return err
}

func first(texts ...string) string {
	for _, text := range texts {
		if text != "" {
			return text
		}
	}
	return ""
}

// apiError is a request that the API has refused.
type apiError struct {
	Status     int    `json:"status"`
	Title      string `json:"title"`
	Detail     string `json:"detail"`
	Candidates []struct {
		Service  string `json:"service"`
		Provider string `json:"provider"`
	} `json:"candidates"`
	Errors []struct {
		Message  string `json:"message"`
		Location string `json:"location"`
	} `json:"errors"`
	Problems []struct {
		Line   int    `json:"line"`
		Column int    `json:"column"`
		Path   string `json:"path"`
		Text   string `json:"text"`
	} `json:"problems"`
}

// Error returns what is wrong, in one line or several.
func (e *apiError) Error() string {
	var text strings.Builder
	text.WriteString(first(e.Detail, e.Title, http.StatusText(e.Status)))
	for _, one := range e.Errors {
		if one.Message != e.Detail {
			_, _ = fmt.Fprintf(&text, "; %s: %s", one.Location, one.Message)
		}
	}
	for _, one := range e.Candidates {
		_, _ = fmt.Fprintf(&text, "\n  --service %q", one.Service)
	}
	for _, one := range e.Problems {
		_, _ = fmt.Fprintf(&text, "\n  %d:%d: %s: %s", one.Line, one.Column, one.Path, one.Text)
	}
	return text.String()
}

// refuses reports whether the request was refused, rather than that it could not be processed.
func (e *apiError) refuses() bool { return e.Status < http.StatusInternalServerError }

// query is that of a request; empty values are left out.
type query map[string][]string

func (q query) encode() string {
	values := url.Values{}
	for name, all := range q {
		for _, value := range all {
			if value != "" {
				values.Add(name, value)
			}
		}
	}
	return values.Encode()
}

// do sends a request and returns the body of the answer.
func (r *remote) do(ctx context.Context, method, path string, q query, contentType string, body []byte) ([]byte, error) {
	answer, err := r.open(ctx, method, path, q, contentType, body, "")
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(answer.Body)
	return text, errors.Join(err, answer.Body.Close())
}

// open sends a request and returns the answer, whose body is to be closed.
func (r *remote) open(ctx context.Context, method, path string, q query, contentType string, body []byte, lastID string) (*http.Response, error) {
	target := *r.base
	target.Path += path
	target.RawQuery = q.encode()
	request, err := http.NewRequestWithContext(ctx, method, target.String(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if contentType != "" {
		request.Header.Set("Content-Type", contentType)
		request.Header.Set("If-Match", "*") // what is there now, as an operator sees it
	}
	if r.token != "" {
		request.Header.Set("Authorization", "Bearer "+r.token)
	}
	if lastID != "" {
		request.Header.Set("Last-Event-ID", lastID)
	}
	answer, err := r.client.Do(request)
	if err != nil {
		return nil, err
	}
	if answer.StatusCode < http.StatusBadRequest {
		return answer, nil
	}
	text, err := io.ReadAll(io.LimitReader(answer.Body, 1<<20))
	if err = errors.Join(err, answer.Body.Close()); err != nil {
		return nil, err
	}
	refused := &apiError{}
	if json.Unmarshal(text, refused) != nil || refused.Detail == "" {
		refused.Detail = fmt.Sprintf("%s: %s answers %s, which is no answer of a control API", method, r.base.Redacted(), answer.Status)
	}
	refused.Status = answer.StatusCode
	return nil, refused
}

// get reads a resource into value and returns its text.
func (r *remote) get(ctx context.Context, path string, q query, value any) ([]byte, error) {
	text, err := r.do(ctx, http.MethodGet, path, q, "", nil)
	if err != nil {
		return nil, err
	}
	return text, json.Unmarshal(text, value)
}

// send posts a body as JSON and reads the answer into value.
func (r *remote) send(ctx context.Context, path string, q query, body, value any) ([]byte, error) {
	sent, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	text, err := r.do(ctx, http.MethodPost, path, q, "application/json", sent)
	if err != nil {
		return nil, err
	}
	return text, json.Unmarshal(text, value)
}
