package sdktest_test

import (
	"context"
	"os"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/capreg/registry/internal/sdktest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// measured is the table, measured once for all tests.
var measured = sync.OnceValues(func() (sdktest.Table, error) { return sdktest.Measure(context.Background()) })

func TestTable_EveryCellMeansWhatItsFaultDemands(t *testing.T) {
	t.Parallel()
	table, err := measured()
	require.NoError(t, err)
	require.NoError(t, table.Check())
}

func TestTable_IsLargeEnoughToTell(t *testing.T) {
	t.Parallel()
	table, err := measured()
	require.NoError(t, err)
	large := 0
	for _, client := range sdktest.Clients() {
		played := 0
		for _, row := range table {
			if row[client.Name].Played {
				played++
				require.Error(t, row[client.Name].Err, client.Name)
			}
		}
		if played >= 20 {
			large++
		}
	}
	require.GreaterOrEqual(t, large, 12)
}

// An exception that no cell needs would hide what is wrong later.
func TestExceptions_EachIsNeededByEachOfItsCells(t *testing.T) {
	t.Parallel()
	table, err := measured()
	require.NoError(t, err)
	for _, exception := range sdktest.Exceptions() {
		for _, client := range exception.Clients {
			for _, fault := range exception.Faults {
				cell, known := table[fault][client]
				require.True(t, known, "%s, %s: %s", client, fault, exception.Why)
				if cell.Played {
					require.False(t, sdktest.Same(cell.Got, cell.Fault.Want), "%s, %s: %s", client, fault, exception.Why)
				}
			}
		}
	}
}

func TestDocument_IsUpToDate(t *testing.T) {
	t.Parallel()
	table, err := measured()
	require.NoError(t, err)
	versions, err := sdktest.Versions("go.mod")
	require.NoError(t, err)
	page, err := os.ReadFile("../../docs/guide/sdk-errors.md")
	require.NoError(t, err)
	require.Equal(t, sdktest.Document(table, versions), string(page), "run: go run ./internal/sdktest/table")
}
