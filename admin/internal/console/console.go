// Package console serves the pages on which operators look at a registry and act on it. They are made here, whole, from
// the control's snapshot: without scripts they are read and used as they are, and a script keeps them up to date by
// asking for them again.
//
// All links are relative, and all pages lie beside each other, so that they work below any prefix.
package console

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"html/template"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/capreg/registry/admin/action"
	"github.com/capreg/registry/admin/internal/control"
)

//go:embed pages/*.gohtml assets/*
var files embed.FS

// ActPath is the path of the one page that takes forms.
const ActPath = "/act"

// Options hold the parts of the handler that a console uses.
type Options struct {
	Control *control.Control
	// Party returns the side that sends a request.
	Party func(*http.Request) control.Party
	// Status returns the HTTP status of a refusal, and the headers that go with it.
	Status func(error) (int, http.Header)
	// MaxDocument bounds a document of configuration, in bytes.
	MaxDocument int64
	// Startup, Configured and Fleet report that there is an orchestrator, a configuration and a fleet.
	Startup, Configured, Fleet bool
}

// Console serves the pages. Use New to create one. It is safe for concurrent use.
type Console struct {
	Options

	templates *template.Template
	assets    map[string]asset
	version   string
	results   results
}

type asset struct {
	media string
	text  []byte
}

// New returns the console of a control. It starts nothing.
func New(o Options) *Console {
	c := &Console{Options: o, assets: make(map[string]asset)}
	c.templates = template.Must(template.New("").Funcs(functions()).ParseFS(files, "pages/*.gohtml"))
	sum := sha256.New()
	for _, a := range []struct{ name, media string }{{"console.css", "text/css; charset=utf-8"}, {"console.js", "text/javascript; charset=utf-8"}} {
		text, _ := files.ReadFile("assets/" + a.name) // it is embedded
		c.assets["/"+a.name] = asset{a.media, text}
		sum.Write(text)
	}
	c.version = hex.EncodeToString(sum.Sum(nil)[:6])
	return c
}

// AddRoutes enters the pages.
func (c *Console) AddRoutes(mux *http.ServeMux) {
	for path, answer := range c.pages() {
		mux.HandleFunc("GET "+path, answer)
	}
	mux.HandleFunc("POST "+ActPath, c.act)
	mux.HandleFunc("POST "+ConfigurationPath, c.configure)
}

func (c *Console) pages() map[string]http.HandlerFunc {
	all := map[string]http.HandlerFunc{
		"/{$}": c.overview, "/service": c.service, "/provider": c.provider, "/explain": c.explain, "/events": c.events,
		"/startup": c.startup, "/fleet": c.fleet, ConfigurationPath: c.configuration, ActPath: c.confirm,
	}
	for path := range c.assets {
		all[path] = c.asset
	}
	return all
}

// Serves reports whether a path is that of a page, so that refusals of it are pages, too.
func (c *Console) Serves(path string) bool {
	return path == "/" || c.pages()[path] != nil
}

func (c *Console) asset(w http.ResponseWriter, r *http.Request) {
	a := c.assets[r.URL.Path]
	w.Header().Set("Content-Type", a.media)
	w.Header().Set("Content-Length", strconv.Itoa(len(a.text)))
	if r.URL.RawQuery == "v="+c.version {
		w.Header().Set("Cache-Control", "private, max-age=31536000, immutable")
	}
	_, _ = w.Write(a.text) // a client that has left
}

// page is the data of all templates.
type page struct {
	Title string
	// Here is the name of the page, for the navigation.
	Here    string
	Version string
	Now     time.Time
	// Startup, Configured and Fleet report that there are pages of these.
	Startup, Configured, Fleet bool
	// Live reports that a script may ask for the page again.
	Live bool
	// ReadOnly reports that the party cannot change anything.
	ReadOnly bool
	// Done is the result of the action that led here; nil: none did.
	Done *result
	Body any
}

// write answers with a page.
func (c *Console) write(w http.ResponseWriter, r *http.Request, status int, name string, p *page) {
	p.Version, p.Startup, p.Configured, p.Fleet = c.version, c.Startup, c.Configured, c.Fleet
	p.Now = time.Now()
	p.ReadOnly = !c.Control.MayChange(c.Party(r), action.Action{Verb: action.Reset})
	if id := r.URL.Query().Get("done"); id != "" {
		p.Done = c.results.get(id)
	}
	var text bytes.Buffer
	if err := c.templates.ExecuteTemplate(&text, name, p); err != nil {
		panic(err) // the handler answers
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(text.Len()))
	w.Header().Set("Date", p.Now.UTC().Format(http.TimeFormat))
	w.WriteHeader(status)
	_, _ = w.Write(text.Bytes()) // a client that has left
}

// refusal is the body of a page that says why something was not done.
type refusal struct {
	Status int
	Text   string
	// Links lead on, the best first.
	Links []link
}

type link struct{ Href, Text string }

// Refuse answers with a page that says why.
func (c *Console) Refuse(w http.ResponseWriter, r *http.Request, status int, text string, links ...link) {
	links = append(links, link{"./", "Overview"})
	c.write(w, r, status, "refusal", &page{Title: http.StatusText(status), Body: refusal{status, text, links}})
}

// fail answers a request that the control refuses.
func (c *Console) fail(w http.ResponseWriter, r *http.Request, err error, links ...link) {
	status, headers := c.Status(err)
	copyHeaders(w.Header(), headers)
	c.Refuse(w, r, status, err.Error(), links...)
}

// copyHeaders copies the headers of a refusal, but for the tag, which is that of the settings and not of the page.
func copyHeaders(to, from http.Header) {
	for name, values := range from {
		if name != "Etag" {
			to[name] = values
		}
	}
}

// pager tells where a page of a list is.
type pager struct {
	Page, Pages, Total int
	// Query are the other parameters, for links.
	Query map[string]string
}

// paged returns the part of a list that a page shows.
func paged[T any](r *http.Request, all []T, size int) ([]T, pager) {
	p := pager{Pages: max(1, (len(all)+size-1)/size), Total: len(all)}
	number, _ := strconv.Atoi(r.URL.Query().Get("page"))
	p.Page = min(max(number, 1), p.Pages)
	from := (p.Page - 1) * size
	return all[from:min(len(all), from+size)], p
}

// Link returns the address of another page of the list.
func (p pager) Link(to int) string {
	values := make([]string, 0, 2*len(p.Query)+2)
	for name, value := range p.Query {
		if value != "" {
			values = append(values, name, value)
		}
	}
	return "?" + query(append(values, "page", strconv.Itoa(to))...)
}

// Before and After are the numbers of the pages beside it; zero: there is none.
func (p pager) Before() int { return p.Page - 1 }

// After is the number of the next page; zero: there is none.
func (p pager) After() int {
	if p.Page == p.Pages {
		return 0
	}
	return p.Page + 1
}

// ordered returns the items in the order of their ranks, those of equal rank as they were.
func ordered[T any](all []T, rank func(*T) int) []*T {
	found := make([]*T, len(all))
	for i := range all {
		found[i] = &all[i]
	}
	slices.SortStableFunc(found, func(a, b *T) int { return cmp.Compare(rank(a), rank(b)) })
	return found
}
