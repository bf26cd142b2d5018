package admin

import (
	"errors"
	"io"
	"mime"
	"net"
	"net/http"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/capreg/registry/admin/action"
	"github.com/capreg/registry/admin/internal/console"
	"github.com/capreg/registry/admin/internal/control"
)

// contentPolicy lets pages load what comes from here, and nothing else; no page may show one in a frame.
const contentPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; " +
	"base-uri 'none'; form-action 'self'; frame-ancestors 'none'"

func setHeaders(h http.Header) {
	h.Set("Content-Security-Policy", contentPolicy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
}

// bodyTime bounds the reading of a body.
const bodyTime = 10 * time.Second

// guarded returns what is wrong with a request, whatever it asks for; nil: it may go on to route.
func (h *Handler) guarded(w http.ResponseWriter, r *http.Request) *problem {
	if isProbe(r.URL.Path) {
		return nil // those who ask know neither a name nor a token
	}
	if !h.hostAllowed(r.Host) {
		return newProblem(http.StatusMisdirectedRequest, "this host name is not among Options.Hosts of the handler")
	}
	if len(r.Header["Authorization"]) > 1 {
		return newProblem(http.StatusBadRequest, "there is more than one Authorization header")
	}
	if isRead(r.Method) {
		if err := h.control.MayRead(h.party(r)); err != nil {
			return problemOf(err)
		}
		return nil
	}
	if err := h.crossOrigin.Check(r); err != nil {
		return newProblem(http.StatusForbidden, "the request comes from another origin")
	}
	check := h.checkBody
	if console.TakesForms(r.URL.Path) { // of our own pages, for which the check of the origin stands
		check = checkForm
	}
	if p := check(r); p != nil {
		return p
	}
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTime)) // where the server can
	return nil
}

// timedBody is a body whose deadline ends with it. The server takes a deadline that passes later for the end of the client, and
// would end the context of an action that takes its time.
type timedBody struct {
	io.ReadCloser

	connection *http.ResponseController
}

// Read reads the body.
func (b *timedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if errors.Is(err, io.EOF) {
		_ = b.connection.SetReadDeadline(time.Time{}) // where the server can
	}
	return n, err
}

func isProbe(p string) bool { return p == livePath || p == readyPath }

func isRead(method string) bool {
	return method == http.MethodGet || method == http.MethodHead || method == http.MethodOptions
}

// hostAllowed reports whether the handler may be reached under that name. Addresses cannot be bound to another one.
func (h *Handler) hostAllowed(host string) bool {
	if slices.Contains(h.options.Hosts, "*") {
		return true
	}
	name := host
	if split, _, err := net.SplitHostPort(host); err == nil {
		name = split
	}
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if net.ParseIP(strings.Trim(name, "[]")) != nil || name == "localhost" {
		return true
	}
	return slices.Contains(h.options.Hosts, name)
}

// checkForm refuses bodies that are not as browsers send the forms of our pages.
func checkForm(r *http.Request) *problem {
	media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || media != "application/x-www-form-urlencoded" || len(r.Header["Content-Type"]) > 1 || r.Header.Get("Content-Encoding") != "" {
		return newProblem(http.StatusUnsupportedMediaType, "forms are sent as application/x-www-form-urlencoded")
	}
	return nil
}

// checkBody refuses bodies that are not of the one type, which no form of a web page can send.
func (h *Handler) checkBody(r *http.Request) *problem {
	media, parameters, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	wanted := "application/json"
	known := media == wanted || media == yamlType && takesDocument(r.URL.Path)
	charset := strings.ToLower(parameters["charset"])
	delete(parameters, "charset")
	if err != nil || !known || len(parameters) > 0 || charset != "" && charset != "utf-8" || len(r.Header["Content-Type"]) > 1 {
		return newProblem(http.StatusUnsupportedMediaType, "changes are sent as application/json, also empty ones: {}")
	}
	if encoding := r.Header.Get("Content-Encoding"); encoding != "" && encoding != "identity" {
		return newProblem(http.StatusUnsupportedMediaType, "bodies are sent without an encoding")
	}
	limit := int64(longestBody)
	if takesDocument(r.URL.Path) {
		limit = h.options.MaxDocument
	}
	if r.ContentLength > limit {
		return newProblem(http.StatusRequestEntityTooLarge, "the body is too long")
	}
	return nil
}

// route answers a request that no route is for, as a problem; nil: there is one.
func (h *Handler) route(r *http.Request) *problem {
	escaped := r.URL.EscapedPath()
	if escaped != "/" && path.Clean(escaped) != escaped {
		return newProblem(http.StatusNotFound, "there is nothing here") // the mux would send elsewhere, without the prefix
	}
	answer, pattern := h.mux.Handler(r)
	if pattern != "" {
		return nil
	}
	found := &capture{header: http.Header{}}
	answer.ServeHTTP(found, r)
	if found.status != http.StatusMethodNotAllowed {
		return newProblem(http.StatusNotFound, "there is nothing here")
	}
	p := newProblem(http.StatusMethodNotAllowed, "the method is not allowed here")
	p.headers.Set("Allow", found.header.Get("Allow"))
	return p
}

// capture keeps the status and the headers of an answer.
type capture struct {
	header http.Header
	status int
}

func (c *capture) Header() http.Header         { return c.header }
func (c *capture) Write(p []byte) (int, error) { return len(p), nil }
func (c *capture) WriteHeader(status int)      { c.status = status }

// party returns the side that sends a request.
func (h *Handler) party(r *http.Request) control.Party {
	remote, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		remote = r.RemoteAddr
	}
	p := control.Party{Remote: remote}
	if h.options.Authorize != nil {
		p.Authorize = func(a action.Action) (string, error) { return h.options.Authorize(r, a) }
	}
	return p
}
