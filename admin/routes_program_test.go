package admin_test

import (
	"context"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/admin"
	"github.com/capreg/registry/admin/action"
	"github.com/capreg/registry/startup"
)

func TestOrchestrator_IsShownAndRestartsComponents(t *testing.T) {
	t.Parallel()
	var starts atomic.Int64
	reg, err := registry.New(registry.Options{})
	require.NoError(t, err)
	orchestrator, err := registry.NewOrchestrator(reg, startup.Options{},
		registry.Component{Name: "database", Start: func(context.Context, *startup.Run) error { starts.Add(1); return nil }},
		registry.Component{Name: "api server", Needs: []startup.Need{{Component: "database"}}},
	)
	require.NoError(t, err)
	_, err = orchestrator.Start(t.Context())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, orchestrator.Stop(context.Background())) })
	var kept audits
	s := serve(t, reg, admin.Options{Authorize: allow, Orchestrator: orchestrator, Audit: kept.add})
	shown := s.get(http.StatusOK, "/v1/runtime/orchestrator").json()
	require.Equal(t, map[string]any{"database": "ready", "api server": "ready"}, shown["states"])
	require.Len(t, shown["plan"].(map[string]any)["batches"], 2)

	answer := s.send(http.MethodPost, "/v1/runtime/orchestrator/components/database/restart", `{"reason": "it leaks"}`)
	require.Equal(t, http.StatusOK, answer.Status, string(answer.Body))
	require.Equal(t, map[string]any{"component": "database", "state": "ready"}, answer.json())
	require.EqualValues(t, 2, starts.Load())
	records := kept.take()
	require.Len(t, records, 1)
	require.Equal(t, action.Action{Verb: action.Restart, Component: "database"}, records[0].Action)
	require.Equal(t, "it leaks", records[0].Reason)
	require.Equal(t, "database was ready and is ready", records[0].Detail)
	require.Equal(t, http.StatusNotFound, s.send(http.MethodPost, "/v1/runtime/orchestrator/components/none/restart", `{}`).Status)
	require.Equal(t, http.StatusPreconditionFailed, s.send(http.MethodPost, "/v1/runtime/orchestrator/components/database/restart", `{}`, "If-Match", `"old"`).Status)
	tag := s.get(http.StatusOK, "/v1/runtime/orchestrator").Header.Get("ETag")
	require.Equal(t, http.StatusOK, s.send(http.MethodPost, "/v1/runtime/orchestrator/components/api%20server/restart", `{}`, "If-Match", tag).Status)
	require.EqualValues(t, 2, starts.Load())
}

// An action may take longer than the body of its request may, and is not ended by that.
func TestOrchestrator_RestartMayTakeItsTime(t *testing.T) {
	t.Parallel()
	inBubble(t, admin.Options{Authorize: allow}, func(b *bubble) {
		orchestrator, err := registry.NewOrchestrator(b.reg, startup.Options{}, registry.Component{
			Name: "slow", Start: func(ctx context.Context, _ *startup.Run) error {
				select {
				case <-time.After(25 * time.Second):
					return nil
				case <-ctx.Done():
					return ctx.Err()
				}
			},
		})
		require.NoError(b.t, err)
		_, err = orchestrator.Start(b.t.Context())
		require.NoError(b.t, err)
		handler, err := admin.New(b.reg, admin.Options{Authorize: allow, Orchestrator: orchestrator})
		require.NoError(b.t, err)
		b.server.Handler = handler
		r, err := http.NewRequestWithContext(b.t.Context(), http.MethodPost, "http://localhost/v1/runtime/orchestrator/components/slow/restart", strings.NewReader(`{}`))
		require.NoError(b.t, err)
		r.Header.Set("Content-Type", "application/json")
		began := time.Now()
		answer, err := b.client.RoundTrip(r)
		require.NoError(b.t, err)
		require.NoError(b.t, answer.Body.Close())
		require.Equal(b.t, http.StatusOK, answer.StatusCode)
		require.Equal(b.t, 25*time.Second, time.Since(began))
		require.NoError(b.t, orchestrator.Stop(b.t.Context()))
		handler.Close()
	})
}
