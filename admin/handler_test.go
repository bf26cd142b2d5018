package admin_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/admin"
	"github.com/capreg/registry/health"
	"github.com/capreg/registry/status"
	"github.com/capreg/registry/verdict"
)

func TestHandler_AnswersAllThatCanBeRead(t *testing.T) {
	t.Parallel()
	s := newSite(t, admin.Options{})
	for _, path := range []string{
		"/livez", "/readyz", "/v1/openapi.json", "/v1/runtime/services", "/v1/runtime/services/health", "/v1/runtime/providers",
		"/v1/runtime/providers/a", "/v1/runtime/services/selection?service=chat", "/v1/runtime/decisions", "/v1/runtime/snapshot",
		"/v1/runtime/events/latest",
	} {
		answer := s.get(http.StatusOK, path)
		require.Equal(t, "application/json", answer.Header.Get("Content-Type"), path)
	}
	for _, path := range []string{"/v1/runtime/orchestrator", "/v1/runtime/fleet", "/v1/runtime/configuration", "/v1/runtime/configuration/schema", "/v1/runtime/providers/none", "/v1", "/v1/runtime/services/"} {
		s.get(http.StatusNotFound, path)
	}
}

func TestHandler_ChangesNothingWithoutAnAuthoriser(t *testing.T) {
	t.Parallel()
	s := newSite(t, admin.Options{})
	before := s.reg.Stats()
	s.change(http.StatusForbidden, http.MethodPut, "/v1/runtime/services/a/priority", `{"priority": "LOW"}`)
	s.change(http.StatusForbidden, http.MethodPost, "/v1/runtime/services/circuit-breakers/reset", `{}`)
	for _, operation := range []string{"drain", "undrain", "force-open", "clear-cooldown", "mark-unhealthy", "mark-healthy", "check-health"} {
		body := `{}`
		if operation == "force-open" {
			body = `{"for": "1m"}`
		}
		s.change(http.StatusForbidden, http.MethodPost, providerPath("a", "/"+operation), body)
	}
	require.Equal(t, before, s.reg.Stats())
}

func TestHandler_DocumentsEveryRouteAndNoneBesides(t *testing.T) {
	t.Parallel()
	s := newSite(t, admin.Options{Authorize: allow})
	require.Len(t, s.schema.operations(), 33)
	for _, operation := range s.schema.operations() {
		method, path, _ := strings.Cut(operation, " ")
		path = strings.NewReplacer("{provider}", "none", "{component}", "none").Replace(path)
		if path == "/v1/runtime/events" {
			continue // it does not end
		}
		answer := s.send(method, path, "{}", "If-Match", "*")
		require.NotEqual(t, http.StatusMethodNotAllowed, answer.Status, operation)
		if answer.Status == http.StatusNotFound {
			require.NotContains(t, string(answer.Body), "nothing here", operation)
		}
	}
}

func TestHandler_ChangesOneProvider(t *testing.T) {
	t.Parallel()
	s := newSite(t, admin.Options{Authorize: allow})
	a := s.provider("a")
	for _, test := range []struct {
		method, operation, body string
		done                    func() bool
	}{
		{"PUT", "weight", `{"weight": 2.5}`, func() bool { return a.Weight() == 2.5 }},
		{"POST", "drain", `{"reason": "new disk"}`, func() bool { return a.Weight() == 0 }},
		{"POST", "undrain", `{}`, func() bool { return a.Weight() == 2.5 }},
		{"PUT", "limits", `{"limits": {"max_concurrent": 3, "max_wait": "2s"}}`, func() bool { return a.Limits().MaxConcurrent == 3 && a.Limits().MaxWait == 2*time.Second }},
		{"POST", "force-open", `{"for": "10m", "reason": "maintenance"}`, func() bool { return a.Breaker().State == status.BreakerOpen && a.Breaker().Forced }},
		{"POST", "mark-unhealthy", `{"reason": "smells"}`, func() bool { return a.Health().State == health.Unhealthy }},
		{"POST", "mark-healthy", `{}`, func() bool { return a.Health().State == health.Healthy }},
		{"POST", "clear-cooldown", `{}`, func() bool { return a.Info().Cooldown.Until.IsZero() }},
	} {
		require.NoError(t, a.CoolDown(status.Cooldown{Class: verdict.ClassRateLimited, Until: time.Now().Add(time.Hour)}, nil))
		answer := s.change(http.StatusOK, test.method, providerPath("a", "/"+test.operation), test.body)
		require.True(t, test.done(), test.operation)
		changed := answer.json()
		require.Equal(t, "chat", changed["service"])
		require.NotEmpty(t, changed["message"])
		require.Equal(t, "a", changed["provider"])
		require.Equal(t, answer.Header.Get("ETag"), s.get(http.StatusOK, providerPath("a", "")).Header.Get("ETag"), "the tag is that of what is there now")
	}
	require.Equal(t, status.BreakerOpen, a.Breaker().State, "clearing a cooldown leaves the breaker alone")
	require.Contains(t, a.Breaker().Reason, "maintenance (by ops)")
}

func TestHandler_CloseOfNoneDoesNothing(t *testing.T) {
	t.Parallel()
	var none *admin.Handler
	none.Close()
}
