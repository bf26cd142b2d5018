package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/capreg/registry/internal/figures"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// top is the top of the repository.
const top = "../../.."

func TestGuide_GeneratedPartsAreUpToDate(t *testing.T) {
	t.Parallel()
	for _, b := range blocks() {
		text, err := b.text(top)
		require.NoError(t, err)
		page, err := os.ReadFile(filepath.Join(top, b.page))
		require.NoError(t, err)
		again := filepath.Join(t.TempDir(), "page.md")
		require.NoError(t, os.WriteFile(again, page, 0o600))
		require.NoError(t, figures.Replace(again, b.name, text))
		written, err := os.ReadFile(again)
		require.NoError(t, err)
		require.Equal(t, string(page), string(written), "run: go run ./internal/prooftest/guide")
	}
}

func TestGuide_DefaultsOfCommentsAgreeWithTheCode(t *testing.T) {
	t.Parallel()
	for documented, coded := range map[string]string{"5, and more": "5", "30 s": "30s", "2 min": "2m0s", "65,536": "65536", "none": "7", "0": "0"} {
		require.NoError(t, agree(documented, coded), documented)
	}
	require.ErrorContains(t, agree("4", "5"), `the comment says "4", the code "5"`)
	require.ErrorContains(t, agree("30 s", "1m"), "the comment says")
}

func TestGuide_AgentLinesAreInOrder(t *testing.T) {
	t.Parallel()
	_, err := pickLines("answers   openai, from question 1 on\nserved 1/1\n")
	require.ErrorContains(t, err, "no line matches ^script    openai answers 500")
}

// The figures differ from run to run, and the program's test has what it prints; here is the form of what the README shows.
func TestGuide_ReadmeShowsTenLinesOfTheAgent(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile(filepath.Join(top, "README.md"))
	require.NoError(t, err)
	_, lines, found := strings.Cut(string(page), "<!-- agent: begin -->\n")
	require.True(t, found)
	lines, _, _ = strings.Cut(lines, "<!-- agent: end -->")
	picked, err := pickLines(lines)
	require.NoError(t, err)
	require.Equal(t, strings.TrimSpace(lines), strings.TrimSpace(picked))
}
