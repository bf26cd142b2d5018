package registryhttp

import (
	"context"
	"encoding/base64"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/capreg/registry"
)

// UpstreamOptions configure an [Upstream]. The zero value of each field is its default.
type UpstreamOptions struct {
	// Header replaces these headers of each request, such as Authorization; an entry without values removes the
	// header. Host sets the host that the server is asked for. It is copied. Default: none.
	Header http.Header
	// Credentials sends the credentials of the request itself, such as an Authorization that an SDK has set, where
	// Header does not replace them. Default: they are sent only where the request is for the scheme, host and port
	// of this upstream, since they are the key of that server, and cookies never.
	//
	// Credentials are the headers Authorization, Proxy-Authorization, Cookie, Api-Key, X-Api-Key, X-Goog-Api-Key
	// and X-Auth-Token.
	Credentials bool
	// Propagate sends what [MetadataOf] the context of the attempt returns, and the time that is left: for upstreams of
	// one's own. See [HeaderTimeout]. What the request has stays, but for a place in a trace that a hook has given the
	// attempt, as contrib/otel does. Default: the headers of the request are sent, and nothing is added.
	Propagate bool
	// FirstTimeout replaces [Options.FirstTimeout]. Default: that.
	FirstTimeout time.Duration
	// Transport sends the requests to this upstream, such as with a client certificate. Default: the one of the
	// [Transport].
	Transport http.RoundTripper
}

// Upstream is a base URL with its headers and keys: the instance of a provider. Use [NewUpstream] to create one.
// It is immutable and safe for concurrent use. Package fmt prints nothing of it but the URL without credentials.
type Upstream struct {
	url     *url.URL
	query   string // in front of that of each request
	host    string // to ask for; empty: the one of the URL
	header  []headerField
	foreign []string // the credentials that header does not replace
	options UpstreamOptions
}

// headerField is a header of an upstream; without values it is one to remove.
type headerField struct {
	name   string
	values []string
}

// NewUpstream returns the upstream of a base URL, to whose path the path of each request is joined, behind
// [Options.Base], and whose query is put in front of the request's. Credentials in the URL become an Authorization
// header. The error is a [registry.FieldError] that matches [registry.ErrInvalid], without the value of a header.
func NewUpstream(base string, options UpstreamOptions) (*Upstream, error) {
	const absolute = "an absolute URL with http or https, a host and no fragment"
	parsed, err := url.Parse(base)
	switch {
	case err != nil:
		return nil, refuse("base", "not a URL", absolute) // the text of the error would have the URL
	case parsed.Scheme != "http" && parsed.Scheme != "https", parsed.Hostname() == "", parsed.Opaque != "", parsed.Fragment != "":
		return nil, refuse("base", fmt.Sprintf("%q", printable(parsed)), absolute)
	case options.FirstTimeout < 0:
		return nil, refuse("UpstreamOptions.FirstTimeout", options.FirstTimeout, "0 (that of the transport) or more")
	}
	u := &Upstream{query: parsed.RawQuery, options: options}
	header := make(http.Header, len(options.Header))
	if user := parsed.User; user != nil {
		password, _ := user.Password()
		header.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(user.Username()+":"+password)))
	}
	for name, values := range options.Header {
		if !isToken(name) {
			return nil, refuse("UpstreamOptions.Header", fmt.Sprintf("%q", name), "the name of a header")
		}
		for _, value := range values {
			if !isPlain(value) {
				return nil, refuse("UpstreamOptions.Header["+name+"]", "a value with control characters", "a value without")
			}
		}
		header[http.CanonicalHeaderKey(name)] = slices.Clip(slices.Clone(values))
	}
	u.host = header.Get("Host")
	header.Del("Host")
	for name, values := range header {
		u.header = append(u.header, headerField{name, values})
	}
	u.foreign = slices.DeleteFunc(credentials(), func(name string) bool { _, replaced := header[name]; return replaced })
	u.options.Header = nil
	parsed.User, parsed.RawQuery, parsed.ForceQuery = nil, "", false
	u.url = parsed
	return u, nil
}

func refuse(field string, value any, bound string) error {
	return &registry.FieldError{Field: field, Value: fmt.Sprint(value), Bound: bound, Err: registry.ErrInvalid}
}

// printable returns a URL without what may be a secret in it.
func printable(u *url.URL) string {
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path, RawPath: u.RawPath}).String()
}

// String returns the base URL without credentials and query.
func (u *Upstream) String() string {
	if u == nil || u.url == nil {
		return ""
	}
	return printable(u.url)
}

// Format prints what String returns, with every verb.
func (u *Upstream) Format(state fmt.State, _ rune) { _, _ = state.Write([]byte(u.String())) }

// MarshalText returns what String returns.
func (u *Upstream) MarshalText() ([]byte, error) { return []byte(u.String()), nil }

func isToken(name string) bool {
	for _, c := range []byte(name) {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !letter && !strings.ContainsRune("!#$%&'*+-.^_`|~", rune(c)) {
			return false
		}
	}
	return name != ""
}

func isPlain(value string) bool {
	for _, c := range []byte(value) {
		if c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

const cookie = "Cookie"

// credentials returns the headers, in their canonical form, that hold a key, a token or a session.
func credentials() []string {
	return []string{"Authorization", "Proxy-Authorization", "Api-Key", "X-Api-Key", "X-Goog-Api-Key", "X-Auth-Token", cookie}
}

// headers returns the headers to send for those of a request, whose values they share, in an attempt with that context.
func (u *Upstream) headers(ctx context.Context, request *http.Request) http.Header {
	header := maps.Clone(request.Header)
	if header == nil {
		header = make(http.Header, len(u.header))
	}
	if !u.options.Credentials {
		for _, name := range u.foreign { // looked up by name: an iteration costs more
			if _, has := header[name]; has && (name == cookie || !sameOrigin(request.URL, u.url)) {
				delete(header, name)
			}
		}
	}
	for _, own := range u.header {
		if len(own.values) == 0 {
			delete(header, own.name)
		} else {
			header[own.name] = own.values
		}
	}
	if u.options.Propagate {
		propagate(ctx, request.Context(), header)
	}
	return header
}

// sameOrigin reports whether two URLs have the same scheme, host and port.
func sameOrigin(a, b *url.URL) bool {
	return a.Scheme == b.Scheme && (a.Host == b.Host ||
		strings.EqualFold(a.Hostname(), b.Hostname()) && portOf(a) == portOf(b))
}

func portOf(u *url.URL) string {
	switch port := u.Port(); {
	case port != "":
		return port
	case u.Scheme == "https":
		return "443"
	}
	return "80"
}

// target makes to the URL of the upstream for a request, whose path begins with base.
func (u *Upstream) target(to, request *url.URL, base string) {
	*to = *u.url
	if u.url.RawPath == "" && request.RawPath == "" {
		to.Path = join(u.url.Path, request.Path[len(base):])
	} else {
		to.Path = join(u.url.Path, request.Path[len(base):])
		to.RawPath = join(u.url.EscapedPath(), request.EscapedPath()[len(base):])
	}
	switch {
	case u.query == "":
		to.RawQuery = request.RawQuery
	case request.RawQuery == "":
		to.RawQuery = u.query
	default:
		to.RawQuery = u.query + "&" + request.RawQuery
	}
}

// join joins two paths by one slash; an empty rest adds none.
func join(base, rest string) string {
	switch {
	case rest == "":
		return base
	case base == "":
		return rest
	}
	return strings.TrimSuffix(base, "/") + "/" + strings.TrimPrefix(rest, "/")
}

// behind returns the rest of a path behind a base, and reports whether it is within it.
func behind(path, base string) (rest string, within bool) {
	base = strings.TrimSuffix(base, "/")
	rest, found := strings.CutPrefix(path, base)
	return rest, found && (rest == "" || rest[0] == '/')
}

// localize changes the Location of a redirect to what the client can follow through the transport: a place within
// the upstream, as the client would have asked for it. Any other place is given in full, so that [Transport.RoundTrip]
// sees that it is elsewhere.
func (u *Upstream) localize(response *http.Response, sent, asked *url.URL, base string) {
	location := response.Header.Get("Location")
	if location == "" {
		return
	}
	to, err := sent.Parse(location)
	if err != nil {
		return // the client says so
	}
	to.User = nil
	rest, within := behind(to.EscapedPath(), u.url.EscapedPath())
	if within && sameOrigin(to, u.url) {
		query := strings.TrimPrefix(strings.TrimPrefix(to.RawQuery, u.query), "&")
		if u.query == "" {
			query = to.RawQuery
		}
		local := &url.URL{Scheme: asked.Scheme, Host: asked.Host, RawQuery: query, Fragment: to.Fragment}
		if path, err := url.PathUnescape(base + rest); err == nil {
			local.Path, local.RawPath = path, base+rest
			to = local
		}
	}
	response.Header.Set("Location", to.String())
}
