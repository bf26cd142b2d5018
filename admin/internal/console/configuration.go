package console

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strings"

	"github.com/capreg/registry/admin/action"
	"github.com/capreg/registry/admin/internal/control"
)

// ConfigurationPath is the path of the page that takes documents.
const ConfigurationPath = "/configuration"

// TakesForms reports whether a path takes the forms of our own pages.
func TakesForms(path string) bool { return path == ActPath || path == ConfigurationPath }

// Bounds of what the page shows; the API has all of it.
const (
	linesOfDocument = 400
	linesOfPlan     = 200
	mostProblems    = 100
)

// configurationView is the page of the document in force, and of one that is checked, planned and applied.
type configurationView struct {
	Tag string
	// None reports that no document is in force.
	None bool
	// Shown is the document in force, with references as they were written; More counts the lines that are left out.
	Shown string
	More  int
	// Text is the document in the form.
	Text string
	// MayPlan and MayApply report what the party may do.
	MayPlan, MayApply bool
	// Refused says why nothing was done, and Problems are those of the document; MoreProblems counts the others.
	Refused      string
	Problems     []control.DocumentProblem
	MoreProblems int
	// Plan has the changes that the document would make; nil: none was planned. Digest tells the document that it is of.
	Plan   *planView
	Digest string
	Reason string
}

// none stands for no document.
const none = "null"

// planView is a plan in lines; More counts those that are left out.
type planView struct {
	Lines []planLine
	More  int
}

type planLine struct{ Text, Class string }

// planOf returns a plan in lines.
func planOf(words string) *planView {
	p := &planView{}
	for text := range strings.Lines(words) {
		line := planLine{Text: strings.TrimRight(text, "\n")}
		switch {
		case strings.HasPrefix(line.Text, "warning:"):
			line.Class = "warn"
		case strings.HasPrefix(line.Text, "- "):
			line.Class = "bad"
		}
		p.Lines = append(p.Lines, line)
	}
	if more := len(p.Lines) - linesOfPlan; more > 0 {
		p.Lines, p.More = p.Lines[:linesOfPlan], more
	}
	return p
}

// configurationOf returns the page with the document in force.
func (c *Console) configurationOf(r *http.Request) (v *configurationView, document string, err error) {
	party := c.Party(r)
	if err := c.Control.MayRead(party); err != nil { // where a form was sent, which others than readers may
		return nil, "", err
	}
	text, tag, err := c.Control.Document()
	if err != nil {
		return nil, "", err
	}
	v = &configurationView{
		Tag: tag, MayPlan: c.Control.MayChange(party, action.Action{Verb: action.Plan}),
		MayApply: c.Control.MayChange(party, action.Action{Verb: action.Configure}),
	}
	if v.None = string(text) == none; v.None {
		return v, "", nil
	}
	var indented bytes.Buffer
	if json.Indent(&indented, text, "", "  ") != nil {
		indented.Write(text) // as it is
	}
	document = indented.String()
	v.Shown = document
	lines := strings.SplitAfterN(document, "\n", linesOfDocument+1)
	if len(lines) > linesOfDocument {
		rest := lines[linesOfDocument]
		v.Shown, v.More = strings.TrimSuffix(document, rest), strings.Count(rest, "\n")+1
	}
	return v, document, nil
}

func (c *Console) writeConfiguration(w http.ResponseWriter, r *http.Request, status int, v *configurationView) {
	c.write(w, r, status, "configuration", &page{Title: "Configuration", Here: "configuration", Body: v})
}

// configuration shows the document in force, and with edit in the form.
func (c *Console) configuration(w http.ResponseWriter, r *http.Request) {
	v, document, err := c.configurationOf(r)
	if err != nil {
		c.fail(w, r, err)
		return
	}
	if r.URL.Query().Get("edit") == "true" && v.MayPlan {
		v.Text, v.Shown, v.More = document, "", 0
	}
	c.writeConfiguration(w, r, http.StatusOK, v)
}

// configure takes a document: it is checked and planned, and applied where it is the one that was planned.
func (c *Console) configure(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, 3*c.MaxDocument+longestForm) // a form may have three bytes for one
	if err := r.ParseForm(); err != nil {
		if _, long := errors.AsType[*http.MaxBytesError](err); long {
			c.Refuse(w, r, http.StatusRequestEntityTooLarge, "The document is too long.")
			return
		}
		c.Refuse(w, r, http.StatusBadRequest, "The form cannot be read.")
		return
	}
	form := r.PostForm
	text := strings.ReplaceAll(form.Get("document"), "\r\n", "\n") // as browsers send lines
	if int64(len(text)) > c.MaxDocument {
		c.Refuse(w, r, http.StatusRequestEntityTooLarge, "The document is too long.")
		return
	}
	if form.Get("step") == "apply" && form.Get("digest") == digestOf(text) {
		c.apply(w, r, text, form)
		return
	}
	c.plan(w, r, text, form)
}

// digestOf tells a document from others.
func digestOf(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:12])
}

// plan shows what is wrong with a document, or what it would change.
func (c *Console) plan(w http.ResponseWriter, r *http.Request, text string, form url.Values) {
	if err := c.Control.MayPlan(c.Party(r)); err != nil {
		c.fail(w, r, err)
		return
	}
	problems, err := c.Control.Lint([]byte(text))
	var planned control.Planned
	if err == nil && len(problems) == 0 {
		planned, err = c.Control.PlanDocument(r.Context(), []byte(text))
	}
	if err != nil || len(problems) > 0 {
		c.refuseDocument(w, r, text, problems, err)
		return
	}
	v, _, err := c.configurationOf(r)
	if err != nil {
		c.fail(w, r, err)
		return
	}
	v.Text, v.Plan, v.Digest, v.Reason = text, planOf(planned.Text), digestOf(text), form.Get("reason")
	if form.Get("step") == "apply" {
		v.Refused = "The document is another one than was planned. Nothing was changed; this is the plan of it."
	}
	c.writeConfiguration(w, r, http.StatusOK, v)
}

// refuseDocument shows why nothing was done, with the document in the form.
func (c *Console) refuseDocument(w http.ResponseWriter, r *http.Request, text string, problems []control.DocumentProblem, refused error) {
	v, _, err := c.configurationOf(r)
	if err != nil {
		c.fail(w, r, err)
		return
	}
	status := http.StatusUnprocessableEntity
	v.Text, v.Problems = text, problems
	if refused != nil {
		var headers http.Header
		status, headers = c.Status(refused)
		copyHeaders(w.Header(), headers)
		if refusal, is := errors.AsType[*control.Error](refused); is && len(refusal.Problems) > 0 {
			v.Problems = refusal.Problems
		} else {
			v.Refused = refused.Error()
		}
	}
	if more := len(v.Problems) - mostProblems; more > 0 {
		v.Problems, v.MoreProblems = v.Problems[:mostProblems], more
	}
	c.writeConfiguration(w, r, status, v)
}

// apply applies a document that was planned, and leads to the page that says so.
func (c *Console) apply(w http.ResponseWriter, r *http.Request, text string, form url.Values) {
	ask := control.Ask{Party: c.Party(r), Match: form.Get("tag"), Reason: form.Get("reason")}
	former, _, err := c.Control.Document()
	var done control.Planned
	if err == nil {
		done, err = c.Control.ApplyDocument(r.Context(), ask, []byte(text))
	}
	if err != nil {
		c.refuseDocument(w, r, text, nil, err)
		return
	}
	applied := configured("the document was applied", done, "Undo: apply the former document")
	if string(former) == none {
		applied.Undo = nil // there is nothing to go back to
	}
	c.lead(w, "configuration", applied)
}

// configured tells of a document that was applied, and how that is undone.
func configured(what string, done control.Planned, undo string) *result {
	words := short(strings.ReplaceAll(strings.TrimSpace(done.Text), "\n", "; "), 600)
	return &result{Message: what + ": " + words, Undo: url.Values{"verb": {string(action.Configure)}, "tag": {done.Tag}}, UndoTitle: undo}
}

// undoDocument applies the former document.
func undoDocument(ctx context.Context, c *control.Control, ask control.Ask, _ control.Target, _ url.Values) (result, error) {
	done, err := c.UndoDocument(ctx, ask)
	return *configured("the former document was applied", done, "Apply the other one again"), err
}
