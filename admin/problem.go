package admin

import (
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/capreg/registry/admin/internal/control"
)

// problem is an answer that reports an error, as RFC 9457 defines it.
type problem struct {
	Type   string              `json:"type,omitempty" doc:"Kind of problem; about:blank, or none: the status says it"`
	Title  string              `json:"title,omitempty" doc:"The status in words"`
	Status int                 `json:"status,omitempty" doc:"The HTTP status"`
	Detail string              `json:"detail,omitempty" doc:"What is wrong with this request"`
	Errors []*huma.ErrorDetail `json:"errors,omitempty" doc:"What is wrong with parts of it"`
	// Candidates are the providers that an ambiguous name may mean.
	Candidates []control.Target `json:"candidates,omitempty" doc:"The providers that an ambiguous name may mean"`
	// CurrentETag is the present tag of what has changed meanwhile.
	CurrentETag string `json:"current_etag,omitempty" doc:"The present ETag of what has changed meanwhile"`
	// Problems are those of a document.
	Problems []control.DocumentProblem `json:"problems,omitempty" doc:"What is wrong with a document"`

	headers http.Header
}

// Error returns the detail.
func (p *problem) Error() string { return p.Detail }

// GetStatus returns the status.
func (p *problem) GetStatus() int { return p.Status }

// ContentType returns the media type of problems.
func (*problem) ContentType(string) string { return problemType }

// GetHeaders returns the headers of the answer.
func (p *problem) GetHeaders() http.Header { return p.headers }

const problemType = "application/problem+json"

func newProblem(status int, detail string) *problem {
	return &problem{Type: "about:blank", Title: http.StatusText(status), Status: status, Detail: detail, headers: http.Header{}}
}

// ServeHTTP writes the problem.
func (p *problem) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	maps.Copy(w.Header(), p.headers)
	text, _ := json.Marshal(p) // plain data
	w.Header().Set("Content-Type", problemType)
	w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	w.WriteHeader(p.Status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(text) // a client that has left
	}
}

var statusOf = map[control.Kind]int{ //nolint:gochecknoglobals // a table
	control.NotFound: http.StatusNotFound, control.Ambiguous: http.StatusConflict,
	control.ReadOnly: http.StatusForbidden, control.Unauthenticated: http.StatusUnauthorized, control.Denied: http.StatusForbidden,
	control.Stale: http.StatusPreconditionFailed, control.Unconditional: http.StatusPreconditionRequired,
	control.TooMany: http.StatusTooManyRequests, control.Invalid: http.StatusUnprocessableEntity, control.Conflict: http.StatusConflict,
	control.Closed: http.StatusServiceUnavailable, control.Failed: http.StatusBadGateway,
}

// problemOf returns the answer for an error of the control, which is not nil.
func problemOf(err error) *problem {
	var refusal *control.Error
	if !errors.As(err, &refusal) {
		return newProblem(http.StatusInternalServerError, "the request could not be processed")
	}
	p := newProblem(statusOf[refusal.Kind], refusal.Text)
	p.Candidates, p.CurrentETag, p.Problems = refusal.Candidates, refusal.Tag, refusal.Problems
	if refusal.Field != "" {
		p.Errors = []*huma.ErrorDetail{{Message: refusal.Text, Location: refusal.Field}}
	}
	if refusal.Tag != "" {
		p.headers.Set("ETag", refusal.Tag)
	}
	switch refusal.Kind {
	case control.Unauthenticated:
		p.headers["Www-Authenticate"] = []string{"Bearer", `Basic realm="registry", charset="UTF-8"`}
	case control.TooMany:
		p.headers.Set("Retry-After", strconv.Itoa(int((refusal.RetryIn+time.Second-1)/time.Second)))
	default:
	}
	return p
}
