package llm

import (
	"cmp"
	"sync"
)

// mostOrigins bounds the answers that [Origins] knows for sure.
const mostOrigins = 10_000

// Origins remembers which server the latest answers are from, for requests that continue one: only that server can. It knows
// the last 10,000 answers, and at most twice as many. The zero value is ready to use, and safe for concurrent use.
type Origins struct {
	mu         sync.Mutex // guards the fields below
	young, old map[string]string
}

// Note notes the server of the report's answer, by its name, if the answer can be continued.
func (o *Origins) Note(report *Report) {
	if report.ID == "" || report.Err != nil {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.young == nil || len(o.young) >= mostOrigins {
		o.young, o.old = make(map[string]string), o.young
	}
	o.young[report.ID] = report.Name
}

// Of returns the name of the server that an answer is from; empty: it is not known.
func (o *Origins) Of(id string) string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return cmp.Or(o.young[id], o.old[id])
}
