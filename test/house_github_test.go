package test_test

import (
	"path"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestHouse_DependenciesOfEveryModuleAreKeptUpToDate(t *testing.T) {
	t.Parallel()
	text := readText(t, ".github/dependabot.yml")
	for _, file := range modFiles(t) {
		dir := "/" + strings.TrimPrefix(path.Dir(file), ".")
		require.Regexp(t, `(?m)^      - `+regexp.QuoteMeta(dir)+`$`, text)
	}
	require.Contains(t, text, "package-ecosystem: github-actions")
}

func TestHouse_WorkflowRunsWhatContributorsRun(t *testing.T) {
	t.Parallel()
	text := readText(t, ".github/workflows/ci.yml")
	for _, want := range []string{
		"go: [stable, oldstable]", "run: bash .ci/run", "windows-latest", "macos-latest", `GOARCH: "386"`, "run: go test work", "GOTOOLCHAIN: local",
	} {
		require.Contains(t, text, want)
	}
}
