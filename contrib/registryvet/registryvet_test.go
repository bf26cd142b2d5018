package registryvet_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/tools/go/analysis/analysistest"

	"github.com/capreg/registry/contrib/registryvet"
	_ "github.com/capreg/registry/hedge"  // imported by testdata, which go mod tidy does not see
	_ "github.com/capreg/registry/stream" // the same
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Variants: bodies, rows, transactions, cursors, streams, iterators, channels and contexts; as they are and within structs, slices and
// maps; by inference, by an alias and as a function value. What is read bit by bit and lives on, such as files and connections, is not
// reported, and neither is what a comment explains.
func TestAnalyzer_ReportsResultsThatEndWithTheCall(t *testing.T) {
	t.Parallel()
	here, err := filepath.Abs(".")
	require.NoError(t, err)
	fetchModules(t)
	analysistest.Run(t, here, registryvet.Analyzer, "./testdata/sample")
}

// fetchModules makes sure that the modules of the sample are in the module cache: analysistest looks at this module
// without the workspace, which may have other versions, and downloads nothing.
func fetchModules(t *testing.T) {
	t.Helper()
	list := exec.CommandContext(t.Context(), "go", "list", "-deps", "./testdata/sample")
	list.Env = append(os.Environ(), "GOWORK=off")
	said, err := list.CombinedOutput()
	require.NoError(t, err, string(said))
}

func TestCommand_IsAToolOfGoVet(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it builds the command")
	}
	tool := filepath.Join(t.TempDir(), "registryvet")
	built, err := exec.CommandContext(t.Context(), "go", "build", "-o", tool, "./cmd/registryvet").CombinedOutput()
	require.NoError(t, err, string(built))
	said, err := exec.CommandContext(t.Context(), "go", "vet", "-vettool="+tool, "./testdata/sample").CombinedOutput()
	require.Error(t, err)
	require.Contains(t, string(said), "the result of registry.Call is a net/http.Response")
	said, err = exec.CommandContext(t.Context(), "go", "vet", "-vettool="+tool, ".").CombinedOutput()
	require.NoError(t, err, string(said))
}
