package test_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/internal/testkit"
)

var (
	goSnippet = regexp.MustCompile("(?s)```go\n(.*?)```")
	goRun     = regexp.MustCompile(`go run \./(\S+)`)
	spaces    = regexp.MustCompile(`\s+`)
)

func TestReadme_EverySnippetIsCompiled(t *testing.T) {
	t.Parallel()
	var compiled strings.Builder
	walk(t, func(path string, entry fs.DirEntry) error {
		if !entry.IsDir() && strings.HasSuffix(path, ".go") {
			compiled.WriteString(readText(t, path))
		}
		return nil
	})
	everything := spaces.ReplaceAllString(compiled.String(), " ")
	snippets := goSnippet.FindAllStringSubmatch(readText(t, "README.md"), -1)
	require.NotEmpty(t, snippets)
	for _, snippet := range snippets {
		code := strings.TrimSpace(spaces.ReplaceAllString(snippet[1], " "))
		require.Contains(t, everything, code, "no Go file holds this snippet of the README")
	}
}

func TestReadme_CommandsNameExistingPrograms(t *testing.T) {
	t.Parallel()
	commands := goRun.FindAllStringSubmatch(readText(t, "README.md"), -1)
	require.NotEmpty(t, commands)
	for _, command := range commands {
		require.FileExists(t, filepath.Join(top, command[1], "main.go"))
	}
}

func TestReadme_DefaultsMatchCode(t *testing.T) {
	t.Parallel()
	for _, row := range []string{
		"| `BreakerPolicy.FailureThreshold` | 5 failures in a row |",
		"| `BreakerPolicy.RecoveryTimeout` | 60 s |",
		"| `BreakerPolicy.SuccessThreshold` | 3 successful trials |",
		"| `BreakerPolicy.TrialSlots` | 1 trial at a time |",
		"| `Provider.AttemptTimeout` | 30 s;",
	} {
		require.Contains(t, readText(t, "README.md"), row)
	}
	reg, err := registry.New(registry.Options{})
	require.NoError(t, err)
	registration, err := testkit.Chat.Register(t.Context(), reg, registry.Provider[testkit.ChatModel]{Instance: testkit.Says("hello")})
	require.NoError(t, err)
	info := registration.Info()
	require.Equal(t, registry.BreakerPolicy{
		FailureThreshold: 5, RecoveryTimeout: time.Minute, SuccessThreshold: 3, TrialSlots: 1,
	}, info.Breaker.Policy)
	require.Equal(t, 30*time.Second, info.AttemptTimeout)
	require.NoError(t, reg.Close(t.Context()))
}

// readText returns a file by its path from the top of the repository.
func readText(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(top, name))
	require.NoError(t, err)
	return string(text)
}
