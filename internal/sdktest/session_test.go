package sdktest_test

import (
	"fmt"
	"testing"

	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/verdict"
)

// The document has the classifier of this provider.
func TestMap_NamesTheEndOfASessionOfMCP(t *testing.T) {
	t.Parallel()
	server := registry.Provider[*mcp.ClientSession]{
		Classify: verdict.Map(map[error]verdict.Class{mcp.ErrSessionMissing: verdict.ClassNotSent}),
	}
	gone := fmt.Errorf("calling a tool: %w", mcp.ErrSessionMissing)
	require.Equal(t, verdict.ClassUnknown, verdict.Of(gone).Class)
	require.Equal(t, verdict.ClassNotSent, server.Classify(gone).Class)
}
