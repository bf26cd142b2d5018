package console_test

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/admin/action"
	"github.com/capreg/registry/admin/internal/control"
	"github.com/capreg/registry/health"
	"github.com/capreg/registry/startup"
	"github.com/capreg/registry/status"
	"github.com/capreg/registry/verdict"
)

// state is all of a provider that actions change.
func state(r *registry.Registration) []any {
	i := r.Info()
	return []any{i.Weight, i.NoTraffic, i.Priority, i.Group, i.Strategy.String(), i.Limits, i.Breaker.State, i.Health.State}
}

func TestAct_EachActionSaysWhatItDoesAndIsTakenBack(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		verb    action.Verb
		effect  string
		fields  []string
		before  func(*registry.Registration)
		changed func(*registry.Registration) bool
		back    string // the title of what takes it back; empty: nothing does
	}{
		{verb: action.Drain, effect: "It gets no new calls", changed: func(r *registry.Registration) bool { return r.Weight() == 0 }, back: "Undrain"},
		{verb: action.Undrain, effect: "with the weight that it had before", before: func(r *registry.Registration) { _, _ = r.SetWeight(0) }, changed: func(r *registry.Registration) bool { return r.Weight() == 1 }, back: "Drain again"},
		{
			verb: action.SetPriority, effect: "The order in which providers are asked", fields: []string{"priority", "high", "group", " 3 ", "strategy", "ROUND_ROBIN"}, back: "Undo",
			changed: func(r *registry.Registration) bool {
				i := r.Info()
				return i.Group == 3 && i.Priority == registry.PriorityHigh && i.Strategy.String() == "ROUND_ROBIN"
			},
		},
		{verb: action.SetWeight, effect: "Its share among the others", fields: []string{"weight", "0.5"}, changed: func(r *registry.Registration) bool { return r.Weight() == 0.5 }, back: "Undo"},
		{verb: action.SetLimits, effect: "The limits of all providers of its failure domain", fields: []string{"limits", `{"max_concurrent": 2}`}, changed: func(r *registry.Registration) bool { return r.Limits().MaxConcurrent == 2 }, back: "Undo"},
		{verb: action.ForceOpen, effect: "Its breaker opens", fields: []string{"for", "90s"}, changed: func(r *registry.Registration) bool { return r.Breaker().State == status.BreakerOpen }, back: "Reset"},
		{
			verb: action.Reset, effect: "The breaker is closed", before: func(r *registry.Registration) { _ = r.ForceOpen(time.Hour, "maintenance") },
			changed: func(r *registry.Registration) bool { return r.Breaker().State == status.BreakerClosed }, back: "Open again for 1h0m0s",
		},
		{verb: action.MarkUnhealthy, effect: "taken out of every pick", changed: func(r *registry.Registration) bool { return r.Health().State == health.Unhealthy }, back: "Mark healthy"},
		{verb: action.MarkHealthy, effect: "It gets calls again", before: func(r *registry.Registration) { _ = r.MarkUnhealthy(nil) }, changed: func(r *registry.Registration) bool { return r.Health().State == health.Healthy }, back: "Mark unhealthy again"},
	} {
		t.Run(string(test.verb), func(t *testing.T) {
			t.Parallel()
			s := newSite(t, control.Options{})
			b := s.of("chat", "b")
			if test.before != nil {
				test.before(b)
			}
			before := state(b)
			target := url.Values{"verb": {string(test.verb)}, "service": {"chat"}, "provider": {"b"}}.Encode()
			offered := s.page(http.StatusOK, "/provider?service=chat&provider=b")
			require.Contains(t, offered, "act?verb="+string(test.verb)+"&amp;")
			asked := s.page(http.StatusOK, "/act?"+target)
			shows(t, asked, "b of chat", test.effect)
			text := s.follow(s.submit("/act", append(fields(t, asked, "<form"), append(test.fields, "reason", "by hand")...)...))
			require.True(t, test.changed(b))
			shows(t, text, "<strong>Done:</strong>", test.back)
			shows(t, s.page(http.StatusOK, "/events?audits=true"), strings.ReplaceAll(string(test.verb), "_", " ")+" done", "by hand", "ops")
			s.follow(s.submit("/act", undo(t, text)...))
			after := state(b)
			require.Equal(t, before, after)
		})
	}
}

func TestAct_SomeActionsHaveNothingToTakeBack(t *testing.T) {
	t.Parallel()
	s := newSite(t, control.Options{})
	busy := s.add(chat, registry.Provider[call]{Name: "busy", Priority: registry.PriorityCritical, Instance: func() error {
		return &verdict.ResponseError{StatusCode: http.StatusTooManyRequests, After: time.Hour}
	}})
	s.calls(chat, 1)
	require.False(t, busy.Info().Cooldown.Until.IsZero())
	asked := s.page(http.StatusOK, "/act?verb=clear_cooldown&service=chat&provider=busy")
	shows(t, asked, "Clear cooldown", "asked again at once", "It cannot be undone")
	text := s.follow(s.submit("/act", fields(t, asked, "<form")...))
	require.True(t, busy.Info().Cooldown.Until.IsZero())
	require.Nil(t, undo(t, text))

	s.add(chat, registry.Provider[call]{Name: "probed", Health: health.Policy{Probe: func(context.Context) error { return errors.New("ill") }, Interval: time.Hour, Fall: 1}})
	text = s.follow(s.submit("/act", "verb", "check_health", "service", "chat", "provider", "probed"))
	shows(t, text, "Done:", "probed is unhealthy")
	require.Nil(t, undo(t, text))
	text = s.follow(s.submit("/act", "verb", "reset", "service", "chat", "provider", "a"))
	shows(t, text, "the breaker of a was reset (before: closed)")
	require.Nil(t, undo(t, text))
}

func TestAct_ResetsAServiceAndAll(t *testing.T) {
	t.Parallel()
	s := newSite(t, control.Options{})
	for _, name := range []string{"a", "b"} {
		require.NoError(t, s.of("chat", name).ForceOpen(time.Hour, "maintenance"))
	}
	require.NoError(t, s.of("search", "c").ForceOpen(time.Hour, "maintenance"))
	shows(t, s.page(http.StatusOK, "/act?verb=reset&service=chat"), "all providers of chat", "It cannot be undone")
	shows(t, s.follow(s.submit("/act", "verb", "reset", "service", "chat")), "2 breakers reset, 2 of them not closed before", "<h2>Providers")
	require.Equal(t, status.BreakerOpen, s.of("search", "c").Breaker().State)
	shows(t, s.page(http.StatusOK, "/act?verb=reset"), "all providers of all services")
	shows(t, s.follow(s.submit("/act", "verb", "reset")), "3 breakers reset", "Needs attention")
	require.Equal(t, status.BreakerClosed, s.of("search", "c").Breaker().State)
}

func TestAct_RestartsAComponent(t *testing.T) {
	t.Parallel()
	reg, o := orchestrated(t)
	s := serve(t, reg, control.Options{Orchestrator: o})
	shows(t, s.page(http.StatusOK, "/act?verb=restart&component=cache"), "Restart", "component cache", "stopped and started again")
	shows(t, s.follow(s.submit("/act", "verb", "restart", "component", "cache")), "cache was restarted and is ready", "Timeline")
	s.refused(http.StatusNotFound, "/act", "verb", "restart", "component", "none")
}

// orchestrated returns an orchestrator that has started three components, one of which has failed softly.
func orchestrated(t *testing.T) (*registry.Registry, *registry.Orchestrator) {
	t.Helper()
	reg, err := registry.New(registry.Options{})
	require.NoError(t, err)
	start := func(context.Context, *startup.Run) error { return nil }
	o, err := registry.NewOrchestrator(reg, startup.Options{},
		registry.Component{Name: "database", Start: start},
		registry.Component{Name: "cache", Start: start, Needs: []startup.Need{{Component: "database"}}},
		registry.Component{Name: "<b>api</b>", Start: start, Version: "1.2.3"})
	require.NoError(t, err)
	_, err = o.Start(t.Context())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, o.Stop(context.WithoutCancel(t.Context()))) })
	return reg, o
}

func TestAct_WhatIsRefusedChangesNothingAndIsAskedAgain(t *testing.T) {
	t.Parallel()
	s := newSite(t, control.Options{})
	before := state(s.of("chat", "a"))
	tag := fields(t, s.page(http.StatusOK, "/act?verb=drain&service=chat&provider=a"), "<form")[7]
	for _, test := range []struct {
		status int
		words  string
		form   []string
	}{
		{http.StatusPreconditionFailed, "it was changed meanwhile", []string{"verb", "drain", "tag", `"old"`}},
		{http.StatusPreconditionRequired, "say what the change is based on", []string{"verb", "drain"}},
		{http.StatusUnprocessableEntity, "weight: &#34;much&#34; is no number", []string{"verb", "set_weight", "weight", "much", "tag", tag}},
		{http.StatusUnprocessableEntity, "Weight", []string{"verb", "set_weight", "weight", "-1", "tag", tag}},
		{http.StatusUnprocessableEntity, "priority", []string{"verb", "set_priority", "priority", "huge", "group", "1", "tag", tag}},
		{http.StatusUnprocessableEntity, "group: &#34;x&#34; is no number", []string{"verb", "set_priority", "priority", "LOW", "group", "x", "tag", tag}},
		{http.StatusUnprocessableEntity, "strategy", []string{"verb", "set_priority", "priority", "LOW", "group", "1", "strategy", "no such", "tag", tag}},
		{http.StatusUnprocessableEntity, "limits", []string{"verb", "set_limits", "limits", "{", "tag", tag}},
		{http.StatusUnprocessableEntity, "for: &#34;long&#34; is no time such as 10m", []string{"verb", "force_open", "for", "long", "tag", tag}},
		{http.StatusNotFound, "no such action", []string{"verb", "destroy"}},
		{http.StatusNotFound, "no such action", []string{"verb", "drain", "provider", ""}},
		{http.StatusNotFound, "there is no provider", []string{"verb", "set_priority", "priority", "LOW", "group", "1", "provider", "none", "tag", tag}},
		{http.StatusNotFound, "there is no provider", []string{"verb", "set_limits", "limits", "{}", "provider", "none", "tag", tag}},
		{http.StatusNotFound, "there is no provider", []string{"verb", "reset", "provider", "none"}},
	} {
		text := s.refused(test.status, "/act", append([]string{"service", "chat", "provider", "a"}, test.form...)...)
		shows(t, text, test.words)
		if !strings.Contains(test.words, "no such action") {
			shows(t, text, "Look at it again", "Back")
		}
		require.Equal(t, before, state(s.of("chat", "a")))
	}
	s.refused(http.StatusBadRequest, "/act", "verb", "drain", "reason", strings.Repeat("x", 65<<10))
	shows(t, s.page(http.StatusOK, "/act?verb=set_weight&service=chat&provider=a&weight=much"), `value="much"`)
	for _, path := range []string{"/act", "/act?verb=none", "/act?verb=drain&service=chat", "/act?verb=drain&service=chat&provider=none", "/act?verb=configure"} {
		s.page(http.StatusNotFound, path)
	}
}

func TestAct_IsOfferedToPartiesThatMay(t *testing.T) {
	t.Parallel()
	s := newSite(t, control.Options{})
	s.authorize = func(a action.Action) (string, error) {
		if a.Verb == action.Drain || a.Verb == action.Read {
			return "guest", nil
		}
		return "guest", errRefused
	}
	text := s.page(http.StatusOK, "/provider?service=chat&provider=a")
	shows(t, text, "act?verb=drain")
	require.NotContains(t, text, "act?verb=set_weight")
	shows(t, s.page(http.StatusOK, "/act?verb=set_weight&service=chat&provider=a"), "You may not do this here", "Back")
	s.refused(http.StatusForbidden, "/act", "verb", "set_weight", "weight", "3", "service", "chat", "provider", "a", "tag", "*")
	s.authorize = nil
	text = s.page(http.StatusOK, "/provider?service=chat&provider=a")
	shows(t, text, "read-only", "Nothing can be changed here: the console is read-only")
}

// What was done is shown for a while only: its memory is bounded.
func TestAct_RemembersTheLatestResults(t *testing.T) {
	t.Parallel()
	s := newSite(t, control.Options{})
	first := s.submit("/act", "verb", "reset")
	shows(t, s.follow(first), "Done:")
	for range 256 {
		require.Equal(t, http.StatusSeeOther, s.submit("/act", "verb", "reset").Code)
	}
	require.NotContains(t, s.follow(first), "Done:")
	require.NotContains(t, s.page(http.StatusOK, "/?done=guess"), "Done:")
}
