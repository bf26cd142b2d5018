package admin_test

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/capreg/registry"
	"github.com/capreg/registry/admin"
	"github.com/capreg/registry/admin/action"
	"github.com/capreg/registry/status"
	"github.com/capreg/registry/verdict"
)

func TestPriority_AnswersOldAndNew(t *testing.T) {
	t.Parallel()
	s := newSite(t, admin.Options{Authorize: allow})
	answer := s.send(http.MethodPut, "/v1/runtime/services/b/priority", `{"priority": "critical", "priority_group": -1, "strategy": "ROUND_ROBIN"}`)
	require.Equal(t, http.StatusOK, answer.Status, string(answer.Body))
	require.Equal(t, map[string]any{
		"service": "chat", "provider_name": "b", "old_priority": "NORMAL", "new_priority": "CRITICAL",
		"old_priority_group": 0.0, "new_priority_group": -1.0, "old_strategy": "FALLBACK", "new_strategy": "ROUND_ROBIN",
		"message": "b is now CRITICAL in group -1, ROUND_ROBIN (before: NORMAL in group 0, FALLBACK)",
	}, answer.json())
	info := s.provider("b").Info()
	require.Equal(t, registry.PriorityCritical, info.Priority)
	require.Equal(t, -1, info.Group)

	answer = s.send(http.MethodPut, "/v1/runtime/services/b/priority", `{"priority": null, "priority_group": 2, "strategy": null}`)
	require.Equal(t, http.StatusOK, answer.Status, string(answer.Body))
	require.Equal(t, 2, s.provider("b").Group())
	require.Equal(t, registry.PriorityCritical, s.provider("b").Priority(), "what is null stays")
}

func TestPriority_ChangesAllOrNothing(t *testing.T) {
	t.Parallel()
	s := newSite(t, admin.Options{Authorize: allow})
	before := s.provider("a").Info()
	for body, status := range map[string]int{
		`{"priority": "LOW", "strategy": "NO_SUCH"}`: http.StatusUnprocessableEntity,
		`{"priority": "HIGHEST"}`:                    http.StatusUnprocessableEntity,
		`{"priority_group": "one"}`:                  http.StatusUnprocessableEntity,
		`{"priority": "LOW", "priorty_group": 1}`:    http.StatusUnprocessableEntity,
		`{"priority": "LOW", "Priority": "HIGH"}`:    http.StatusBadRequest,
		`{"priority": "LOW"} {"priority": "HIGH"}`:   http.StatusBadRequest,
		`{"priority": "LOW", "priority": "HIGH"}`:    http.StatusBadRequest,
		`[]`: http.StatusUnprocessableEntity,
		`{`:  http.StatusBadRequest,
		`{"priority": ` + strings.Repeat(`[`, 20_000) + `}`: http.StatusBadRequest,
	} {
		answer := s.send(http.MethodPut, "/v1/runtime/services/a/priority", body)
		require.Equal(t, status, answer.Status, "%.60s: %s", body, answer.Body)
	}
	require.Equal(t, before.Definition, s.provider("a").Definition())
}

func TestReset_ListsWhatWasNotClosed(t *testing.T) {
	t.Parallel()
	s := newSite(t, admin.Options{Authorize: allow})
	a, b, c := s.provider("a"), s.provider("b"), s.provider("c")
	breakAll := func() {
		require.NoError(t, a.ForceOpen(time.Hour, "by hand"))
		require.NoError(t, b.CoolDown(status.Cooldown{Class: verdict.ClassRateLimited, Until: time.Now().Add(time.Hour)}, nil))
		require.NoError(t, c.ForceOpen(time.Hour, "by hand"))
	}
	open := func(handles ...*registry.Registration) (names []string) {
		for _, handle := range handles {
			if !handle.Info().Eligible {
				names = append(names, handle.Name())
			}
		}
		return names
	}
	const path = "/v1/runtime/services/circuit-breakers/reset"
	for body, want := range map[string]struct {
		count     float64
		services  []any
		stillOpen []string
	}{
		`{}`:                                   {3, []any{"chat", "search"}, nil},
		`{"service": "chat"}`:                  {2, []any{"chat"}, []string{"c"}},
		`{"provider": "a"}`:                    {1, []any{"chat"}, []string{"b", "c"}},
		`{"service": "chat", "provider": "b"}`: {1, []any{"chat"}, []string{"a", "c"}},
	} {
		breakAll()
		answer := s.send(http.MethodPost, path, body)
		require.Equal(t, http.StatusOK, answer.Status, string(answer.Body))
		done := answer.json()
		require.InDelta(t, want.count, done["reset_count"], 0, body)
		require.Len(t, done["were_not_closed"], int(want.count))
		require.Empty(t, done["not_closed"])
		require.Equal(t, want.services, done["services_affected"])
		require.Equal(t, want.stillOpen, open(a, b, c), body)
	}
	for body, status := range map[string]int{
		`{"service": "none"}`: http.StatusNotFound, `{"provider": "none"}`: http.StatusNotFound,
		`{"service": "search", "provider": "a"}`: http.StatusNotFound, ``: http.StatusUnsupportedMediaType,
		`{"service_type": "chat"}`: http.StatusUnprocessableEntity,
	} {
		require.Equal(t, status, s.send(http.MethodPost, path, body).Status, body)
	}
	for _, body := range []string{`{}`, `{"service": "chat"}`, `{"provider": "a"}`} {
		require.Equal(t, http.StatusPreconditionFailed, s.send(http.MethodPost, path, body, "If-Match", `"old"`).Status, body)
		require.Equal(t, http.StatusOK, s.send(http.MethodPost, path, body, "If-Match", "*").Status, body)
	}
}

func TestChange_IsBasedOnWhatWasRead(t *testing.T) {
	t.Parallel()
	s := newSite(t, admin.Options{Authorize: allow})
	path := providerPath("a", "/weight")
	read := s.get(http.StatusOK, providerPath("a", "")).Header.Get("ETag")
	answer := s.send(http.MethodPut, path, `{"weight": 2}`)
	require.Equal(t, http.StatusPreconditionRequired, answer.Status)
	require.Equal(t, read, answer.json()["current_etag"])

	answer = s.send(http.MethodPut, path, `{"weight": 2}`, "If-Match", `"other", `+read)
	require.Equal(t, http.StatusOK, answer.Status)
	written := answer.Header.Get("ETag")
	require.NotEqual(t, read, written)

	answer = s.send(http.MethodPut, path, `{"weight": 2}`, "If-Match", read)
	require.Equal(t, http.StatusPreconditionFailed, answer.Status, "the same request again is based on nothing any more")
	require.Equal(t, written, answer.json()["current_etag"])
	require.Equal(t, http.StatusPreconditionFailed, s.send(http.MethodPut, path, `{"weight": 3}`, "If-Match", "W/"+written).Status, "weak tags match nothing")

	_, err := s.provider("a").SetPriority(registry.PriorityLow)
	require.NoError(t, err)
	require.Equal(t, http.StatusPreconditionFailed, s.send(http.MethodPut, path, `{"weight": 3}`, "If-Match", written).Status, "the program has changed it")
	require.InDelta(t, 2.0, s.provider("a").Weight(), 0)
	tag := s.get(http.StatusOK, providerPath("a", "")).Header.Get("ETag")
	require.NoError(t, chat.Bind(s.reg, registry.Query{}).Do(t.Context(), func(context.Context, call) error { return nil }))
	require.Equal(t, tag, s.get(http.StatusOK, providerPath("a", "")).Header.Get("ETag"), "calls change no settings")
}

func TestChange_OfTwoThatAreBasedOnTheSameOneIsMade(t *testing.T) {
	t.Parallel()
	s := newSite(t, admin.Options{Authorize: allow, ChangesAtOnce: 1000})
	tag := s.get(http.StatusOK, providerPath("a", "")).Header.Get("ETag")
	statuses := make(chan int, 8)
	var all sync.WaitGroup
	for range cap(statuses) {
		request := s.request(http.MethodPost, providerPath("a", "/drain"), `{}`, "If-Match", tag)
		all.Go(func() {
			if answer, err := try(request); err == nil {
				statuses <- answer.Status
			}
		})
	}
	all.Wait()
	close(statuses)
	count := map[int]int{}
	for status := range statuses {
		count[status]++
	}
	require.Equal(t, map[int]int{http.StatusOK: 1, http.StatusPreconditionFailed: 7}, count)
}

// audits collects records.
type audits struct {
	mu  sync.Mutex // guards all
	all []action.Record
}

func (a *audits) add(r action.Record) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.all = append(a.all, r)
}

func (a *audits) take() []action.Record {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := a.all
	a.all = nil
	return all
}

func TestAudit_TellsOfEachChangeAndOfRefusedOnes(t *testing.T) {
	t.Parallel()
	var kept audits
	core, lines := observer.New(zapcore.DebugLevel)
	authorise := admin.Tokens(map[string]string{"ops": "secret", "guest": "guest"}, func(actor string, a action.Action) error {
		if actor == "guest" && a.Verb.Changes() {
			return registry.ErrDenied
		}
		return nil
	})
	s := newSite(t, admin.Options{Authorize: authorise, Audit: kept.add, Logger: zap.New(core)})
	drain, bearer := providerPath("a", "/drain"), []string{"Authorization", "Bearer secret"}
	for _, test := range []struct {
		path, body string
		headers    []string
		status     int
		want       action.Record
	}{
		{drain, `{"reason": "new\ndisk"}`, bearer, 200, action.Record{Outcome: action.Done, Actor: "ops", Reason: "new disk", Detail: "a gets no new calls: weight 0 (before: 1)"}},
		{drain, `{}`, []string{"Authorization", "Bearer wrong"}, 401, action.Record{Outcome: action.Refused, Detail: "credentials are missing or wrong"}},
		{drain, `{}`, nil, 401, action.Record{Outcome: action.Refused, Detail: "credentials are missing or wrong"}},
		{drain, `{}`, []string{"Authorization", "bearer guest"}, 403, action.Record{Outcome: action.Refused, Actor: "guest", Detail: "this is not allowed to you: denied"}},
		{drain, `{}`, append([]string{"If-Match", `"old"`}, bearer...), 412, action.Record{Outcome: action.Conflict, Actor: "ops", Detail: "it was changed meanwhile"}},
	} {
		headers := test.headers
		if test.status != 412 {
			headers = append([]string{"If-Match", "*"}, headers...)
		}
		answer := s.send(http.MethodPost, test.path, test.body, headers...)
		require.Equal(t, test.status, answer.Status, string(answer.Body))
		records := kept.take()
		require.Len(t, records, 1)
		got := records[0]
		require.Positive(t, got.Sequence)
		require.WithinDuration(t, time.Now(), got.Time, time.Minute)
		want := test.want
		want.Sequence, want.Time, want.Remote = got.Sequence, got.Time, "127.0.0.1"
		want.Action = action.Action{Verb: action.Drain, Service: "chat", Provider: "a"}
		if strings.HasPrefix(got.Detail, "this is not allowed") {
			want.Detail = got.Detail
		}
		require.Equal(t, want, got)
		line := lines.TakeAll()
		require.Len(t, line, 1)
		require.Equal(t, string(want.Outcome), line[0].ContextMap()["outcome"])
		require.Equal(t, want.Actor, line[0].ContextMap()["actor"])
	}
	latest := s.get(http.StatusOK, "/v1/runtime/events/latest?audits=true", bearer...).json()["events"].([]any)
	require.Len(t, latest, 5)
	require.Equal(t, "conflict", latest[0].(map[string]any)["audit"].(map[string]any)["outcome"], "the newest comes first")
}

func TestAudit_IsNotFilledByRefusedRequests(t *testing.T) {
	t.Parallel()
	var kept audits
	s := newSite(t, admin.Options{Authorize: admin.Tokens(map[string]string{"ops": "secret"}, nil), Audit: kept.add, ChangesPerSecond: 0.001, ChangesAtOnce: 3})
	statuses := map[int]int{}
	for range 20 {
		answer := s.send(http.MethodPost, providerPath("a", "/drain"), `{}`, "If-Match", "*", "Authorization", "Bearer guess")
		statuses[answer.Status]++
		if answer.Status == http.StatusTooManyRequests {
			require.NotEmpty(t, answer.Header.Get("Retry-After"))
		}
	}
	require.Equal(t, map[int]int{http.StatusUnauthorized: 3, http.StatusTooManyRequests: 17}, statuses)
	s.change(http.StatusOK, http.MethodPost, providerPath("a", "/drain"), `{}`, "Authorization", "Bearer secret")
	records := kept.take()
	require.Len(t, records, 4)
	require.Equal(t, action.Done, records[3].Outcome, "an actor is not kept away by others at its address")
	require.EqualValues(t, 17, records[3].Suppressed)
}

func TestChange_ComesTooOften(t *testing.T) {
	t.Parallel()
	s := newSite(t, admin.Options{Authorize: allow, ChangesPerSecond: 0.001, ChangesAtOnce: 2})
	for _, status := range []int{200, 200, 429} {
		answer := s.change(status, http.MethodPost, providerPath("a", "/drain"), `{}`)
		require.Equal(t, status == 429, answer.Header.Get("Retry-After") != "")
	}
}

func TestDrain_GivesTheWeightBack(t *testing.T) {
	t.Parallel()
	s := newSite(t, admin.Options{Authorize: allow})
	a := s.provider("a")
	_, err := a.SetWeight(3)
	require.NoError(t, err)
	for range 2 {
		s.change(http.StatusOK, http.MethodPost, providerPath("a", "/drain"), `{}`)
		require.Zero(t, a.Weight())
	}
	require.InDelta(t, 3.0, s.get(http.StatusOK, providerPath("a", "")).json()["drained_from"], 0)
	for range 2 {
		s.change(http.StatusOK, http.MethodPost, providerPath("a", "/undrain"), `{}`)
		require.InDelta(t, 3.0, a.Weight(), 0)
	}
	_, err = a.SetWeight(0)
	require.NoError(t, err)
	s.change(http.StatusOK, http.MethodPost, providerPath("a", "/undrain"), `{}`)
	require.InDelta(t, 1.0, a.Weight(), 0, "the program has drained it, from a weight that is not known")
}

func TestNames_AreTakenAsTheyAre(t *testing.T) {
	t.Parallel()
	s := newSite(t, admin.Options{Authorize: allow, ChangesAtOnce: 1000})
	for _, name := range []string{
		"a/b", "../a", "..", ".", "%2e%2e", "a b", "a?b#c", "<script>alert(1)</script>", "\u202eevil", "ünï", `"quoted"`, "a;b", "a&b=c", "-", "health", "selection",
	} {
		handle := add(t, s.reg, chat, registry.Provider[call]{Name: name})
		byQuery := "/v1/runtime/providers/-/weight?service=chat&provider=" + url.QueryEscape(name)
		s.change(http.StatusOK, http.MethodPut, byQuery, `{"weight": 2}`)
		require.InDelta(t, 2.0, handle.Weight(), 0, name)
		if name != ".." && name != "." { // which clients take for steps
			s.change(http.StatusOK, http.MethodPut, providerPath(name, "/weight"), `{"weight": 3}`)
			require.InDelta(t, 3.0, handle.Weight(), 0, name)
			s.change(http.StatusOK, http.MethodPut, "/v1/runtime/services/"+url.PathEscape(name)+"/priority", `{"priority": "LOW"}`)
			require.Equal(t, registry.PriorityLow, handle.Priority())
		}
		require.Equal(t, name, s.get(http.StatusOK, "/v1/runtime/providers/-?provider="+url.QueryEscape(name)).json()["info"].(map[string]any)["name"])
	}
	s.get(http.StatusNotFound, providerPath("a\r\nSet-Cookie: x=y", ""))
	s.get(http.StatusNotFound, "/v1/runtime/providers/%FF%FE")
}

func TestNames_OfSeveralServicesAreToldApart(t *testing.T) {
	t.Parallel()
	s := newSite(t, admin.Options{Authorize: allow})
	other := add(t, s.reg, search, registry.Provider[call]{Name: "a"})
	one := s.provider("a")
	candidates := []any{map[string]any{"service": "chat", "provider": "a"}, map[string]any{"service": "search", "provider": "a"}}
	for _, answer := range []reply{
		s.send(http.MethodPut, "/v1/runtime/services/a/priority", `{"priority": "LOW"}`),
		s.send(http.MethodPost, "/v1/runtime/services/circuit-breakers/reset", `{"provider": "a"}`),
		s.send(http.MethodPost, providerPath("a", "/drain"), `{}`, "If-Match", "*"),
		s.send(http.MethodPost, providerPath("a", "/check-health"), `{}`),
		s.send(http.MethodGet, providerPath("a", ""), ""),
	} {
		require.Equal(t, http.StatusConflict, answer.Status, string(answer.Body))
		require.Equal(t, candidates, answer.json()["candidates"])
	}
	answer := s.send(http.MethodPut, "/v1/runtime/services/a/priority?service=search", `{"priority": "LOW"}`)
	require.Equal(t, http.StatusOK, answer.Status)
	require.Equal(t, "search", answer.json()["service"])
	require.Equal(t, registry.PriorityLow, other.Priority())
	require.Equal(t, registry.PriorityNormal, one.Priority())
	s.change(http.StatusOK, http.MethodPost, providerPath("a", "/drain")+"?service=chat", `{}`)
	require.Zero(t, one.Weight())
	require.NotZero(t, other.Weight())
}
