package llm

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// Model is an entry of the list of a server's models.
type Model struct {
	ID      string `json:"id"`
	Object  string `json:"object"`
	Created int64  `json:"created"`
	OwnedBy string `json:"owned_by"`
}

const (
	listAge     = time.Minute
	listTimeout = 5 * time.Second
	mostOfList  = 8 << 20
)

// ServeModels answers with the list of the models, each once and in the order of their names, or with the one that the path
// names behind "/models/".
func ServeModels(w http.ResponseWriter, r *http.Request, models []Model) {
	models = slices.SortedFunc(slices.Values(models), func(a, b Model) int { return strings.Compare(a.ID, b.ID) })
	models = slices.CompactFunc(models, func(a, b Model) bool { return a.ID == b.ID })
	var answer any = map[string]any{"object": "list", "data": append([]Model{}, models...)}
	if _, id, one := strings.Cut(r.URL.Path, "/models/"); one {
		at := slices.IndexFunc(models, func(m Model) bool { return m.ID == id })
		if at < 0 {
			NoModel(id).ServeHTTP(w, r)
			return
		}
		answer = models[at]
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(answer) // the client may be gone
}

// NoModel returns the error for a model that is not there, or not for this client.
func NoModel(name string) *Error {
	return &Error{Status: http.StatusNotFound, Code: "model_not_found", Message: fmt.Sprintf("there is no model %q for this key", name)}
}

// Matches reports whether a model is the one of that name, or begins as a name that ends in a star does, such as "gpt-*".
func Matches(name, model string) bool {
	prefix, many := strings.CutSuffix(name, "*")
	return model == name || many && strings.HasPrefix(model, prefix)
}

// Lists keeps the models that servers list, for a minute. The zero value is ready to use, and safe for concurrent use.
type Lists struct {
	mu    sync.Mutex // guards lists
	lists map[string]*list
}

// list is that of one server.
type list struct {
	mu     sync.Mutex // guards the fields below; it is held while the server is asked, so that it is asked once
	models []Model
	until  time.Time
}

// Of returns the models that a server lists, by its name: those that are kept, or what it answers now to a GET of url. It
// blocks for that, for at most 5 s and within ctx. A server that has no list has no models; the result is not to be changed.
func (l *Lists) Of(ctx context.Context, name, url string, to http.RoundTripper) []Model {
	l.mu.Lock()
	if l.lists == nil {
		l.lists = make(map[string]*list)
	}
	if l.lists[name] == nil {
		l.lists[name] = &list{}
	}
	one := l.lists[name]
	l.mu.Unlock()
	one.mu.Lock()
	defer one.mu.Unlock()
	if time.Now().After(one.until) {
		asking, cancel := context.WithTimeout(ctx, listTimeout)
		defer cancel()
		models := ask(asking, url, to)
		if ctx.Err() != nil { // the client has left
			return models
		}
		one.models, one.until = models, time.Now().Add(listAge)
	}
	return one.models
}

func ask(ctx context.Context, url string, to http.RoundTripper) []Model {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return nil
	}
	response, err := to.RoundTrip(r)
	if err != nil {
		return nil
	}
	defer func() { _ = response.Body.Close() }()
	var body struct {
		Data []Model `json:"data"`
	}
	if response.StatusCode != http.StatusOK || json.NewDecoder(io.LimitReader(response.Body, mostOfList)).Decode(&body) != nil {
		return nil
	}
	return body.Data
}
