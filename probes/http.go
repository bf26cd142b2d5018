package probes

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/capreg/registry/health"
	"github.com/capreg/registry/internal/oneline"
)

const (
	// mostRead bounds the JSON that is read.
	mostRead = 64 << 10
	// mostDrained bounds the rest that is read, to see that it is complete.
	mostDrained = 256 << 10
	// mostQuoted bounds the part of an answer that an error quotes.
	mostQuoted = 200
	// mostConnections is more than one, for probes that run at once.
	mostConnections = 4
)

// HTTPOptions configure [HTTP]. The zero value of each field is its default.
type HTTPOptions struct {
	// Method is GET, HEAD, OPTIONS or POST, without a body. Default: GET.
	Method string
	// Header is sent with each request; a Host in it replaces that of the URL. It is copied.
	// Default: the headers of net/http.
	Header http.Header
	// Codes are the expected status codes, each from 200 to 599. Default: 200 to 299.
	Codes []int
	// CodeOnly ignores the body. Default: JSON is read.
	CodeOnly bool
	// Healthy, Degraded and Out are the words of "status" in JSON that mean that; any other
	// word is a failure. Case and surrounding space do not matter. Those of Out are a failure
	// that counts at once ([health.Out]). Defaults: healthy, ok, up, pass, passing and serving;
	// degraded, warn and warning; draining, stopping and out_of_service.
	Healthy, Degraded, Out []string
	// Client sends the requests, with its own redirects, cookies and time limits. Default: a
	// client like [http.DefaultClient] but with at most 4 connections, and without following
	// redirects: these are answers, and as a rule not expected ones. Each request has a
	// connection of its own, as that of a new caller, also of a Client whose Transport is an
	// [http.Transport], of which a copy is used. Other transports are used as they are.
	Client *http.Client
}

func (o HTTPOptions) withDefaults() (HTTPOptions, error) {
	switch o.Method = cmp.Or(o.Method, http.MethodGet); o.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodPost:
	default:
		return o, refuse("HTTPOptions.Method", quoted(o.Method), "GET (default), HEAD, OPTIONS or POST")
	}
	if err := checkHeader(o.Header); err != nil {
		return o, err
	}
	o.Header = o.Header.Clone()
	if o.Header == nil {
		o.Header = make(http.Header)
	}
	for i, code := range o.Codes {
		if code < 200 || code > 599 {
			return o, refuse(fmt.Sprintf("HTTPOptions.Codes[%d]", i), strconv.Itoa(code), "200 to 599")
		}
	}
	o.Codes = slices.Clone(o.Codes)
	o.Healthy = orWords(o.Healthy, "healthy", "ok", "up", "pass", "passing", "serving")
	o.Degraded = orWords(o.Degraded, "degraded", "warn", "warning")
	o.Out = orWords(o.Out, "draining", "stopping", "out_of_service")
	if o.Client == nil {
		o.Client = newClient()
	} else {
		o.Client = withNewConnections(o.Client)
	}
	return o, nil
}

// orWords returns a copy of the words as they are compared, or the usual ones where there are none.
func orWords(words []string, usual ...string) []string {
	if len(words) == 0 {
		return usual
	}
	folded := make([]string, len(words))
	for i, word := range words {
		folded[i] = fold(word)
	}
	return folded
}

func fold(word string) string { return strings.ToLower(strings.TrimSpace(word)) }

// expects reports whether the status code is a good one.
func (o HTTPOptions) expects(code int) bool {
	if len(o.Codes) == 0 {
		return code >= 200 && code <= 299
	}
	return slices.Contains(o.Codes, code)
}

func checkHeader(header http.Header) error {
	for _, name := range slices.Sorted(maps.Keys(header)) {
		if name == "" || strings.ContainsFunc(name, isNoTokenCharacter) {
			return refuse("HTTPOptions.Header", quoted(name), "names of header fields")
		}
		for i, value := range header[name] {
			if strings.ContainsFunc(value, isNoValueCharacter) {
				// The value may be a secret.
				return refuse(fmt.Sprintf("HTTPOptions.Header[%q][%d]", name, i), "of several lines or binary", "one line of text")
			}
		}
	}
	return nil
}

func isNoTokenCharacter(r rune) bool {
	return r <= ' ' || r >= 0x7f || strings.ContainsRune(`"(),/:;<=>?@[\]{}`, r)
}

func isNoValueCharacter(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }

func newClient() *http.Client {
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true}
	if usual, ok := http.DefaultTransport.(*http.Transport); ok { // programs may replace it
		transport = usual.Clone()
	}
	transport.DisableKeepAlives, transport.MaxConnsPerHost = true, mostConnections
	return &http.Client{Transport: unredirected{transport}}
}

// withNewConnections returns a copy of a client that keeps no connection. A kept one would hide that new callers are
// refused, would itself be dead where the server is well, or would break a POST that cannot be sent again.
func withNewConnections(client *http.Client) *http.Client {
	base := client.Transport
	if base == nil {
		base = http.DefaultTransport
	}
	transport, ok := base.(*http.Transport)
	if !ok {
		return client
	}
	transport = transport.Clone()
	transport.DisableKeepAlives = true
	fresh := *client
	fresh.Transport = transport
	return &fresh
}

// unredirected removes the targets of redirects. A client that merely does not follow
// them still fails on a malformed target, and its error then lacks the status code.
type unredirected struct{ *http.Transport }

func (u unredirected) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := u.Transport.RoundTrip(request)
	if err == nil {
		response.Header.Del("Location")
	}
	return response, err
}

// HTTP returns a probe that sends a request to an HTTP server. The server is healthy when the
// status code is expected, the body is complete and, where it is JSON (application/json or
// anything that ends in +json), its content is good:
//
//   - "status" at its top, in any case, is one of [HTTPOptions.Healthy], or missing. With one of
//     Degraded the server is degraded ([health.Limp]), with one of Out it is out at once
//     ([health.Out]). Any other value is a failure, as is JSON that is malformed or longer than
//     64 KiB.
//   - Each number from 0 to 1 in the objects "usage" and "resources" is reported with
//     [health.Use], independent of the status.
//
// Of a body that is not JSON up to 256 KiB are read. The probe blocks until then or until its
// context ends; there is no other time limit. Its error names the status code, where there is
// one, and quotes the beginning of the answer.
//
// A url that is not an absolute one of http or https, and options out of bounds, are errors
// that match [ErrInvalid]. User information in the URL is sent as basic authentication.
func HTTP(url string, options HTTPOptions) (health.Probe, error) {
	target, err := parse(url)
	if err != nil {
		return nil, err
	}
	options, err = options.withDefaults()
	if err != nil {
		return nil, err
	}
	request := &http.Request{Method: options.Method, URL: target, Header: options.Header, Host: options.Header.Get("Host")}
	shown := oneline.Cut(oneline.Of(fmt.Sprintf("%s %s://%s%s", options.Method, target.Scheme, target.Host, target.EscapedPath())), longestText)
	return func(ctx context.Context) error {
		err := ask(ctx, request, options)
		if err == nil {
			return nil
		}
		return &failure{text: shown + ": " + oneline.Cut(scrubbed(oneline.Of(err.Error())), longestText), causes: []error{err}}
	}, nil
}

// parse drops the error of the parser, which quotes secrets.
func parse(text string) (*url.URL, error) {
	target, err := url.Parse(text)
	if err == nil && (target.Scheme == "http" || target.Scheme == "https") && target.Hostname() != "" &&
		(target.Port() == "" || isPort(target.Port())) {
		return target, nil
	}
	return nil, refuse("url", quoted(withoutSecrets(text)), "an absolute URL of http or https")
}

func isPort(text string) bool {
	port, err := strconv.ParseUint(text, 10, 16)
	return err == nil && port > 0
}

func ask(ctx context.Context, request *http.Request, options HTTPOptions) error {
	response, err := options.Client.Do(request.Clone(ctx)) // a cookie jar adds to the header
	if err != nil {
		var outer *url.Error
		if errors.As(err, &outer) {
			err = outer.Err // the outer error contains the URL
		}
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode == http.StatusSwitchingProtocols {
		return unexpected(response, options) // the rest is no body, and does not end
	}
	expected := options.expects(response.StatusCode)
	content := answer{body: response.Body}
	if expected && !options.CodeOnly && hasBody(response) && isJSON(response.Header.Get("Content-Type")) {
		content.judge(ctx, options)
	}
	content.drain()
	switch {
	case !expected:
		return fmt.Errorf("%w%s", unexpected(response, options), content.quote())
	case content.broken != nil:
		return fmt.Errorf("%s, but its body broke off: %w", status(response), content.broken)
	case content.bad != nil:
		return fmt.Errorf("%s, but %w%s", status(response), content.bad, content.quote())
	}
	return nil
}

func unexpected(response *http.Response, options HTTPOptions) error {
	want := "200 to 299"
	if len(options.Codes) > 0 {
		want = strings.Trim(fmt.Sprint(options.Codes), "[]")
	}
	return fmt.Errorf("%s, want %s", status(response), want)
}

// status returns the standard text of the code, not the server's.
func status(response *http.Response) string {
	return strings.TrimSpace(fmt.Sprintf("%d %s", response.StatusCode, http.StatusText(response.StatusCode)))
}

func hasBody(response *http.Response) bool {
	return response.Request.Method != http.MethodHead && response.StatusCode != http.StatusNoContent &&
		response.StatusCode != http.StatusNotModified
}

func isJSON(contentType string) bool {
	media, _, _ := strings.Cut(contentType, ";")
	media = strings.ToLower(strings.TrimSpace(media))
	return media == "application/json" || strings.HasSuffix(media, "+json")
}

// answer is the body of a response, and what is wrong with it.
type answer struct {
	body   io.Reader
	begun  []byte // its beginning
	bad    error  // its content
	broken error  // the end of it is missing
}

// judge reads JSON.
func (a *answer) judge(ctx context.Context, options HTTPOptions) {
	text, err := io.ReadAll(io.LimitReader(a.body, mostRead+1))
	a.begun, a.broken = text, err
	switch {
	case err != nil:
		return
	case len(text) > mostRead:
		a.bad = errTooLong
		return
	case !json.Valid(text):
		a.bad = errMalformed
		return
	}
	var report struct {
		Status, Usage, Resources json.RawMessage
	}
	if json.Unmarshal(text, &report) != nil {
		return // valid, but no object: there is no status in it
	}
	reportUsage(ctx, figures(report.Usage, report.Resources))
	a.bad = options.judge(report.Status)
}

// drain reads the rest.
func (a *answer) drain() {
	if a.broken != nil {
		return
	}
	rest := io.LimitReader(a.body, mostDrained)
	if len(a.begun) == 0 {
		a.begun, a.broken = io.ReadAll(io.LimitReader(rest, mostQuoted))
	}
	if a.broken == nil {
		_, a.broken = io.Copy(io.Discard, rest)
	}
}

// quote returns the beginning of the answer for an error; empty where it is empty or binary.
func (a *answer) quote() string {
	text := strings.TrimSpace(strings.ToValidUTF8(string(a.begun[:min(len(a.begun), mostQuoted)]), ""))
	if text == "" || strings.ContainsRune(text, 0) {
		return ""
	}
	return ": " + oneline.Cut(oneline.Of(text), mostQuoted)
}

var (
	errTooLong   = fmt.Errorf("its JSON is longer than %d KiB", mostRead>>10)
	errMalformed = errors.New("its JSON is malformed")
	errNoWord    = errors.New("its status is not a string")
)

// judge returns what is wrong with a status.
func (o HTTPOptions) judge(status json.RawMessage) error {
	if status == nil {
		return nil
	}
	var word *string
	if json.Unmarshal(status, &word) != nil || word == nil {
		return errNoWord
	}
	is := fmt.Errorf("its status is %s", quoted(*word))
	switch folded := fold(*word); {
	case slices.Contains(o.Healthy, folded):
		return nil
	case slices.Contains(o.Degraded, folded):
		return health.Limp(is)
	case slices.Contains(o.Out, folded):
		return health.Out(is)
	}
	return is
}

// figures are the shares in the objects; of a resource that is named twice, the
// higher one.
func figures(objects ...json.RawMessage) map[string]float64 {
	shares := make(map[string]float64)
	for _, object := range objects {
		var fields map[string]json.RawMessage
		if json.Unmarshal(object, &fields) != nil {
			continue
		}
		for resource, field := range fields {
			var share *float64
			if json.Unmarshal(field, &share) == nil && share != nil && *share >= 0 && *share <= 1 {
				resource = oneline.Of(resource)
				shares[resource] = max(shares[resource], *share)
			}
		}
	}
	return shares
}
