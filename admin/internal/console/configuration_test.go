package console_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/admin/action"
	"github.com/capreg/registry/admin/internal/control"
)

// documents is a configuration whose documents are lines of text: "bad" is refused by a check, and "worse" when it is planned.
type documents struct {
	current, former string
	applied         []string
	words           string // of each plan
	err             error  // of what is current
}

func (d *documents) Current() ([]byte, error) {
	if d.current == "" {
		return nil, d.err
	}
	return fmt.Appendf(nil, "%s", d.current), d.err
}

func (*documents) Check(text []byte) (problems []control.DocumentProblem) {
	for i, line := range strings.Split(string(text), "\n") {
		if line == "bad" {
			problems = append(problems, control.DocumentProblem{Line: i + 1, Column: 1, Path: "services.<b>", Text: "unknown field", Nearest: "good"})
		}
	}
	return problems
}

func (d *documents) Plan(_ context.Context, text []byte) (any, string, error) {
	switch string(text) {
	case "worse":
		return nil, "", &control.ProblemsError{Problems: []control.DocumentProblem{{Text: "no kind"}}}
	case "broken":
		return nil, "", errors.New("the disk is full")
	}
	return nil, "+ services.llm: add " + string(text) + "\n- services.old: remove\n" + d.words + "1 to add\nwarning: fewer than before\n", nil
}

func (d *documents) Apply(ctx context.Context, text []byte) (any, string, error) {
	plan, words, err := d.Plan(ctx, text)
	if strings.HasPrefix(string(text), "late") {
		err = &control.ProblemsError{Problems: []control.DocumentProblem{{Text: "its probe fails"}}}
	}
	if err != nil {
		return nil, "", err
	}
	d.former, d.current = d.current, `{"is":"`+string(text)+`"}`
	d.applied = append(d.applied, string(text))
	return plan, words, nil
}

func (d *documents) PlanUndo(context.Context) (any, string, error) {
	if d.former == "" {
		return nil, "", fmt.Errorf("no document was in force before: %w", registry.ErrState)
	}
	return nil, "~ back to " + d.former, nil
}

func (d *documents) Undo(ctx context.Context) (any, string, error) {
	plan, words, err := d.PlanUndo(ctx)
	if err == nil {
		d.former, d.current = d.current, d.former
	}
	return plan, words, err
}

func (*documents) Schema() ([]byte, error) { return []byte("{}"), nil }

func TestConfiguration_ShowsTheDocumentInForce(t *testing.T) {
	t.Parallel()
	d := &documents{}
	s := newSite(t, control.Options{Configuration: d})
	shows(t, s.page(http.StatusOK, "/configuration"), `<a href="configuration" aria-current="page">`, "Check a document", "No document has been applied")
	d.current = `{"key":"${env:KEY}","name":"</pre><script>","old":"[secret]"}`
	text := s.page(http.StatusOK, "/configuration")
	shows(t, text, "References stand as they were written", "<pre>{\n", "${env:KEY}", "&lt;/pre&gt;&lt;script&gt;", "[secret]", "</pre>")
	shows(t, s.page(http.StatusOK, "/configuration?edit=true"), "<textarea", "${env:KEY}", "&lt;/pre&gt;", "</textarea>", "Show it")

	d.current = "[" + strings.Repeat("1,", 1000) + "1]"
	text = s.page(http.StatusOK, "/configuration")
	shows(t, text, "and 603 other lines", `<a href="v1/runtime/configuration">`)
	d.current = "{"
	shows(t, s.page(http.StatusOK, "/configuration"), "<pre>{</pre>")
	d.err = errors.New("the disk is full")
	shows(t, s.page(http.StatusBadGateway, "/configuration"), "the disk is full")
	s.refused(http.StatusBadGateway, "/configuration", "document", "bad")
	s.refused(http.StatusBadGateway, "/configuration", "document", "good")
}

func TestConfiguration_IsPlannedAppliedAndTakenBack(t *testing.T) {
	t.Parallel()
	d := &documents{current: `{"is":"first"}`}
	s := newSite(t, control.Options{Configuration: d})
	w := s.submit("/configuration", "document", "one\r\ntwo", "step", "plan", "reason", "faster")
	require.Equal(t, http.StatusOK, w.Code)
	planned := w.Body.String()
	shows(t, planned, "What it would change", "services.llm: add one", `class="bad"`, "- services.old: remove", `class="warn"`, "warning: fewer", "one\ntwo</textarea>", `value="faster"`, "at one moment")
	require.Empty(t, d.applied, "nothing is changed by a plan")

	apply := append(fields(t, planned, `action="configuration"`), "step", "apply", "document", "one\r\ntwo", "reason", "faster")
	text := s.follow(s.submit("/configuration", apply...))
	require.Equal(t, []string{"one\ntwo"}, d.applied)
	shows(t, text, "<strong>Done:</strong> the document was applied: &#43; services.llm: add one", "Undo: apply the former document", "The document in force")
	shows(t, s.page(http.StatusOK, "/events?audits=true"), "configure done", "faster", "ops")

	shows(t, s.page(http.StatusOK, "/act?verb=configure"), "Apply the former document", "What it would change", "~ back to", "first", "The other one can be applied again")
	text = s.follow(s.submit("/act", undo(t, text)...))
	require.JSONEq(t, `{"is":"first"}`, d.current)
	shows(t, text, "the former document was applied: ~ back to", "Apply the other one again")
	s.follow(s.submit("/act", undo(t, text)...))
	require.Contains(t, d.current, "two")
}

func TestConfiguration_TheFirstHasNothingToGoBackTo(t *testing.T) {
	t.Parallel()
	s := newSite(t, control.Options{Configuration: &documents{}})
	planned := s.submit("/configuration", "document", "one").Body.String()
	shows(t, planned, "What it would change", "Calls in progress go on.</p>", "No document has been applied")
	text := s.follow(s.submit("/configuration", append(fields(t, planned, `action="configuration"`), "step", "apply", "document", "one")...))
	shows(t, text, "the document was applied")
	require.Nil(t, undo(t, text))
}

func TestConfiguration_IsAppliedOnlyAsItWasPlanned(t *testing.T) {
	t.Parallel()
	d := &documents{current: `{"is":"first"}`}
	s := newSite(t, control.Options{Configuration: d})
	form := fields(t, s.submit("/configuration", "document", "one").Body.String(), `action="configuration"`)
	for _, other := range [][]string{{"document", "another"}, {"document", "another", "digest", ""}, {"document", "one", "digest", "x"}} {
		w := s.submit("/configuration", append(append(form, "step", "apply"), other...)...)
		require.Equal(t, http.StatusOK, w.Code)
		shows(t, w.Body.String(), "another one than was planned. Nothing was changed", "What it would change")
		require.Empty(t, d.applied)
	}
	d.current = `{"is":"changed meanwhile"}`
	text := s.refused(http.StatusPreconditionFailed, "/configuration", append(form, "step", "apply", "document", "one")...)
	shows(t, text, "it was changed meanwhile", "one</textarea>", "changed meanwhile")
	require.NotContains(t, text, `value="apply"`, "it is to be planned again")
	require.Empty(t, d.applied)
	tag := fields(t, s.submit("/configuration", "document", "one").Body.String(), `action="configuration"`)
	s.refused(http.StatusPreconditionRequired, "/configuration", append(tag, "step", "apply", "document", "one", "tag", "")...)
	require.Empty(t, d.applied)
}

func TestConfiguration_TellsWhatIsWrong(t *testing.T) {
	t.Parallel()
	d := &documents{current: `{"is":"first"}`}
	s := newSite(t, control.Options{Configuration: d})
	shows(t, s.refused(http.StatusUnprocessableEntity, "/configuration", "document", "good\nbad"),
		"1 problem in the document; nothing was changed", "line 2, column 1", "services.&lt;b&gt;", "unknown field", "is <bdi>good</bdi> meant?", "good\nbad</textarea>")
	shows(t, s.refused(http.StatusUnprocessableEntity, "/configuration", "document", strings.Repeat("bad\n", 150)), "150 problems in the document", "line 100,", "and 50 others")
	shows(t, s.refused(http.StatusUnprocessableEntity, "/configuration", "document", "worse"), "no kind")
	shows(t, s.refused(http.StatusBadGateway, "/configuration", "document", "broken"), "the disk is full", "broken</textarea>")
	late := fields(t, s.submit("/configuration", "document", "late").Body.String(), `action="configuration"`)
	shows(t, s.refused(http.StatusUnprocessableEntity, "/configuration", append(late, "step", "apply", "document", "late")...), "its probe fails", "late</textarea>")
	s.refused(http.StatusRequestEntityTooLarge, "/configuration", "document", strings.Repeat("x", 10_001))
	s.refused(http.StatusRequestEntityTooLarge, "/configuration", "document", strings.Repeat("x", 200_000))
	require.Equal(t, http.StatusBadRequest, s.do(http.MethodPost, "/configuration", "document=%zz").Code)
	d.words = strings.Repeat("~ services.llm.providers[x]: alter\n", 300)
	shows(t, s.submit("/configuration", "document", "large").Body.String(), "services.llm", "other lines")
	require.Empty(t, d.applied)
	shows(t, s.page(http.StatusConflict, "/act?verb=configure"), "no document was in force before", "Back")
	s.refused(http.StatusConflict, "/act", "verb", "configure", "tag", "*")
}

func TestConfiguration_IsOfferedToPartiesThatMay(t *testing.T) {
	t.Parallel()
	d := &documents{current: `{"is":"first"}`, former: `{"is":"none"}`}
	s := newSite(t, control.Options{Configuration: d})
	s.authorize = nil
	text := s.page(http.StatusOK, "/configuration?edit=true")
	shows(t, text, "You may not check documents here", "<pre>")
	require.NotContains(t, text, "<textarea")
	s.refused(http.StatusForbidden, "/configuration", "document", "one")
	s.page(http.StatusForbidden, "/act?verb=configure")

	s.authorize = func(a action.Action) (string, error) {
		if a.Verb == action.Configure {
			return "guest", errRefused
		}
		return "guest", nil
	}
	planned := s.submit("/configuration", "document", "one").Body.String()
	shows(t, planned, "What it would change", "You may not apply it here")
	require.NotContains(t, planned, `value="apply"`)
	shows(t, s.page(http.StatusOK, "/act?verb=configure"), "~ back to", "You may not do this here")
	digest := "7692c3ad3540bb803c020b3a" // of one
	s.refused(http.StatusForbidden, "/configuration", "step", "apply", "document", "one", "digest", digest, "tag", "*")
	s.refused(http.StatusForbidden, "/act", "verb", "configure", "tag", "*")
	require.Empty(t, d.applied)
	shows(t, s.page(http.StatusOK, "/events?audits=true"), "configure refused")
}

// Pages that say what was refused show nothing to a party that may not read.
func TestConfiguration_IsShownToReaders(t *testing.T) {
	t.Parallel()
	d := &documents{current: `{"is":"first"}`, former: `{"is":"none"}`}
	s := newSite(t, control.Options{Configuration: d})
	digest := "7692c3ad3540bb803c020b3a" // of one
	for _, form := range [][]string{
		{"document", "one"},
		{"document", "bad"},
		{"document", "broken"},
		{"document", "one", "step", "apply", "digest", digest, "tag", "*"},
		{"document", "one", "step", "apply", "digest", digest, "tag", `"old"`},
	} {
		for _, may := range []action.Verb{"", action.Plan} {
			s.authorize = func(a action.Action) (string, error) {
				if a.Verb == may {
					return "guest", nil
				}
				return "", action.ErrUnauthenticated
			}
			text := s.refused(http.StatusUnauthorized, "/configuration", form...)
			require.NotContains(t, text, "first")
			require.NotContains(t, text, "it was changed meanwhile")
		}
	}
	require.Empty(t, d.applied)
	s.authorize = allow
	shows(t, s.page(http.StatusOK, "/events?audits=true"), "configure refused", "configure refused")
}

func TestConfiguration_IsNotThereWithoutOne(t *testing.T) {
	t.Parallel()
	s := newSite(t, control.Options{})
	require.NotContains(t, s.page(http.StatusOK, "/"), `href="configuration"`)
	s.page(http.StatusNotFound, "/configuration")
	s.refused(http.StatusNotFound, "/configuration", "document", "one")
	s.refused(http.StatusNotFound, "/act", "verb", "configure", "tag", "*")
}
