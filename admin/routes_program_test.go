package admin_test

import (
	"context"
	"net/http"
	"sync/atomic"
	"testing"

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
	require.Equal(t, http.StatusOK, s.send(http.MethodPost, "/v1/runtime/orchestrator/components/api%20server/restart", `{}`).Status)
	require.EqualValues(t, 2, starts.Load())
}
