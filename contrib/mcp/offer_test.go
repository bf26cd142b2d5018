//go:build unix

package registrymcp_test

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	registrymcp "github.com/capreg/registry/contrib/mcp"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/verdict"
)

// adder is a service of this program.
type adder func(ctx context.Context, a, b int) (int, error)

var adders = registry.NewService[adder]("adders")

type addends struct {
	A int `json:"a" jsonschema:"the first number"`
	B int `json:"b"`
}

type sum struct {
	Sum int `json:"sum"`
}

// offered is a program that offers adders as tools of an MCP server, and another one that calls them.
func offered(t *testing.T, annotations *mcp.ToolAnnotations, all ...adder) *setup {
	t.Helper()
	reg := testkit.New(t, registry.Options{})
	for _, instance := range all {
		_, err := adders.Register(t.Context(), reg, registry.Provider[adder]{Instance: instance})
		require.NoError(t, err)
	}
	server := mcp.NewServer(&mcp.Implementation{Name: "sums", Version: "1"}, nil)
	require.NoError(t, registrymcp.Offer(server, &mcp.Tool{Name: "add", Annotations: annotations}, adders.Bind(reg, registry.Query{}),
		func(ctx context.Context, add adder, in addends) (sum, error) {
			n, err := add(ctx, in.A, in.B)
			return sum{n}, err
		}))
	s := with(t, registrymcp.ToolsOptions{Wait: -1})
	options := s.remote("sums", "")
	options.Dial = func(ctx context.Context) (mcp.Transport, error) {
		ofServer, ofClient := mcp.NewInMemoryTransports()
		_, err := server.Connect(ctx, ofServer, nil)
		return ofClient, err
	}
	s.start(options)
	return s
}

func adds(_ context.Context, a, b int) (int, error) { return a + b, nil }

func breaks(context.Context, int, int) (int, error) { return 0, errors.New("broken") }

func TestOffer_AToolIsACallOfTheService(t *testing.T) {
	t.Parallel()
	s := offered(t, reads, breaks, adds)
	result, err := s.tools.Call(t.Context(), "sums/add", addends{2, 3})
	require.NoError(t, err)
	require.Equal(t, map[string]any{"sum": 5.0}, result.StructuredContent)
	e, _ := s.entry("sums/add")
	in, err := json.Marshal(e.Definition.InputSchema)
	require.NoError(t, err)
	require.JSONEq(t, `{"type":"object","additionalProperties":false,"required":["a","b"],
		"properties":{"a":{"type":"integer","description":"the first number"},"b":{"type":"integer"}}}`, string(in))
	result, err = s.tools.Call(t.Context(), "sums/add", map[string]any{"a": "two"})
	require.NoError(t, err)
	require.True(t, result.IsError)
}

func TestOffer_ACallThatMayChangeSomethingIsMadeOnce(t *testing.T) {
	t.Parallel()
	s := offered(t, nil, breaks, adds)
	answer, err := s.call(t.Context(), "sums/add", addends{2, 3})
	require.NoError(t, err)
	require.Contains(t, answer, "error: ")
	require.Contains(t, answer, "broken")
}

func TestOffer_WithoutAProviderItSaysWhenToAskAgain(t *testing.T) {
	t.Parallel()
	s := offered(t, reads, func(context.Context, int, int) (int, error) {
		return 0, verdict.RateLimited(errors.New("slowly"), time.Minute)
	})
	for range 2 {
		_, err := s.call(t.Context(), "sums/add", addends{})
		require.Error(t, err)
		var failed *registry.CallError
		if errors.As(err, &failed) {
			require.Equal(t, verdict.ClassOverloaded, failed.Attempts[0].Class)
			require.Contains(t, err.Error(), "slowly")
			continue
		}
		require.ErrorIs(t, err, registry.ErrCoolingDown)
	}
	until := s.found("sums/add")[0].Cooldown.Until
	require.WithinRange(t, until, time.Now().Add(30*time.Second), time.Now().Add(2*time.Minute))
}

func TestOffer_PassesProgressAndPanicsOn(t *testing.T) {
	t.Parallel()
	s := offered(t, reads, func(ctx context.Context, a, _ int) (int, error) {
		registrymcp.ReportProgress(ctx, registrymcp.Progress{Done: 1, Total: 2, Message: "adding"})
		if a == 0 {
			panic("nothing to add")
		}
		return a, nil
	})
	reports := make(chan registrymcp.Progress, 1)
	ctx := registrymcp.WithProgress(t.Context(), func(p registrymcp.Progress) { reports <- p })
	_, err := s.call(ctx, "sums/add", addends{A: 1})
	require.NoError(t, err)
	require.Equal(t, registrymcp.Progress{Done: 1, Total: 2, Message: "adding"}, <-reports)
	answer, err := s.call(t.Context(), "sums/add", addends{})
	require.NoError(t, err)
	require.Contains(t, answer, "nothing to add")
}

func TestOffer_RefusesWhatHasNoSchema(t *testing.T) {
	t.Parallel()
	server := mcp.NewServer(&mcp.Implementation{Name: "sums"}, nil)
	resolver := adders.Bind(testkit.New(t, registry.Options{}), registry.Query{})
	call := func(context.Context, adder, addends) (sum, error) { return sum{}, nil }
	for field, err := range map[string]error{
		"s":        registrymcp.Offer(nil, &mcp.Tool{Name: "a"}, resolver, call),
		"tool":     registrymcp.Offer(server, nil, resolver, call),
		"resolver": registrymcp.Offer(server, &mcp.Tool{Name: "a"}, nil, call),
		"call":     registrymcp.Offer[adder, addends, sum](server, &mcp.Tool{Name: "a"}, resolver, nil),
	} {
		require.ErrorContains(t, err, field+" is nil: want one")
	}
	err := registrymcp.Offer(server, &mcp.Tool{Name: "a"}, resolver, func(context.Context, adder, func()) (sum, error) { return sum{}, nil })
	require.ErrorIs(t, err, registry.ErrInvalid)
	require.ErrorContains(t, err, `tool "a": `)
	require.NotContains(t, err.Error(), "\n")
}
