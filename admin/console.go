package admin

import (
	"maps"
	"net/http"

	"github.com/capreg/registry/admin/internal/console"
)

// addConsole enters the pages for browsers: the first one is at the root of what the handler is mounted at.
func (h *Handler) addConsole() {
	h.console = console.New(console.Options{
		Control: h.control, Party: h.party, MaxDocument: h.options.MaxDocument,
		Startup: h.options.Orchestrator != nil, Configured: h.options.Configuration != nil, Fleet: h.options.Fleet != nil,
		Status: func(err error) (int, http.Header) {
			p := problemOf(err)
			return p.Status, p.headers
		},
	})
	h.console.AddRoutes(h.mux)
}

// refuse answers with a problem, which is a page where a page was asked for. A host that is not allowed gets none.
func (h *Handler) refuse(p *problem, w http.ResponseWriter, r *http.Request) {
	if !h.console.Serves(r.URL.Path) || p.Status == http.StatusMisdirectedRequest || p.Status == http.StatusMethodNotAllowed {
		p.ServeHTTP(w, r)
		return
	}
	maps.Copy(w.Header(), p.headers)
	h.console.Refuse(w, r, p.Status, p.Detail)
}
