package registry_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/internal/testkit"
)

func TestReport_SaysThatAMockAnswered(t *testing.T) {
	t.Parallel()
	reg := testkit.New(t, registry.Options{})
	testkit.Add(t, reg, testkit.Provider{Name: "real", Instance: testkit.Fails(testkit.ErrDown)})
	testkit.Add(t, reg, testkit.Provider{Name: "mock", Mock: true})
	var report registry.CallReport
	testkit.MustAsk(t, testkit.Bind(reg), registry.ReportTo(&report))
	require.Len(t, report.Attempts, 2)
	require.False(t, report.Attempts[0].Mock)
	require.True(t, report.Attempts[1].Mock)
}
