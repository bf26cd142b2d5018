package main

import (
	"context"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/capreg/registry/config"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// output runs the agent as main does and returns its exit error and its lines.
func output(t *testing.T, in string, arguments ...string) ([]string, error) {
	t.Helper()
	t.Setenv("OPENAI_API_KEY", "")
	t.Setenv("ANTHROPIC_API_KEY", "")
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	require.NoError(t, err)
	defer func() { require.NoError(t, out.Close()) }()
	failure := run(t.Context(), arguments, strings.NewReader(in), out)
	text, err := os.ReadFile(out.Name())
	require.NoError(t, err)
	return strings.Split(strings.TrimSpace(string(text)), "\n"), failure
}

func TestSession_LosesNothing(t *testing.T) {
	lines, err := output(t, "", "-questions", "40")
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(lines[len(lines)-1], "served 40/40 lost 0  "), lines[len(lines)-1])
	text := strings.Join(lines, "\n")
	for _, want := range []string{
		"openai answers 500 from now on", "opened    openai", "cooling   anthropic: rate limited",
		"answers   the local servers, in turn", "anthropic cuts its streams halfway", "webhook   40 messages, none twice",
	} {
		require.Contains(t, text, want)
	}
	require.NotContains(t, text, "\r", "plain lines when piped")
	for _, line := range readmeLines(t) {
		require.Contains(t, withoutFigures(text), withoutFigures(line), "run: go run ./internal/prooftest/guide -agent")
	}
}

// readmeLines returns the lines of a session that the README shows, but for the last one, whose shares differ.
func readmeLines(t *testing.T) []string {
	t.Helper()
	page, err := os.ReadFile("../../README.md")
	require.NoError(t, err)
	_, block, found := strings.Cut(string(page), "<!-- agent: begin -->\n```text\n")
	require.True(t, found)
	block, _, found = strings.Cut(block, "\nserved ")
	require.True(t, found)
	return strings.Split(block, "\n")
}

var figure = regexp.MustCompile(`\d+(\.\d+)?`)

func withoutFigures(text string) string { return figure.ReplaceAllString(text, "…") }

func TestChat_AnswersLinesUntilAnEmptyOne(t *testing.T) {
	lines, err := output(t, "what is up\nand now\n\nunread\n", "-chat")
	require.NoError(t, err)
	text := strings.Join(lines, "\n")
	require.Contains(t, text, `[openai] openai: "what is up" has 3 words.`)
	require.Contains(t, text, `"and now" has 2 words.`)
	require.NotContains(t, text, "unread")
}

func TestMain_RefusesBadArguments(t *testing.T) {
	for _, arguments := range [][]string{{"-questions", "0"}, {"-questions", "many"}, {"-unheard-of"}} {
		_, err := output(t, "", arguments...)
		require.Error(t, err, arguments)
	}
}

func TestSession_EndsWhenItIsInterrupted(t *testing.T) {
	t.Setenv("OPENAI_API_KEY", "")
	t.Setenv("ANTHROPIC_API_KEY", "")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	require.NoError(t, err)
	defer func() { require.NoError(t, out.Close()) }()
	require.ErrorIs(t, run(ctx, nil, strings.NewReader(""), out), context.Canceled)
}

func TestSession_OfADocumentLosesNothing(t *testing.T) {
	lines, err := output(t, "", "-questions", "40", "-config", "agent.yaml", "-canary", "1m")
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(lines[len(lines)-1], "served 40/40 lost 0  "), lines[len(lines)-1])
	text := strings.Join(lines, "\n")
	require.Contains(t, text, "config    applied")
	require.Contains(t, text, "answers   the local servers, in turn")
	_, err = output(t, "", "-config", "no such file")
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestSession_OfADocumentGoesOnFromTheRunBefore(t *testing.T) {
	state := filepath.Join(t.TempDir(), "state.json")
	lines, err := output(t, "", "-questions", "40", "-config", "agent.yaml", "-state", state)
	require.NoError(t, err)
	require.NotContains(t, strings.Join(lines, "\n"), "restored the state", "there is none yet")
	lines, err = output(t, "", "-questions", "40", "-config", "agent.yaml", "-state", state)
	require.NoError(t, err)
	require.Regexp(t, `config    restored the state of [1-9]\d* providers, \d`, strings.Join(lines, "\n"))
	require.True(t, strings.HasPrefix(lines[len(lines)-1], "served 40/40 lost 0  "), lines[len(lines)-1])
	require.NoError(t, os.WriteFile(state, []byte("half"), 0o600))
	_, err = output(t, "", "-config", "agent.yaml", "-state", state)
	require.ErrorContains(t, err, "is no state that was saved")
}

func TestDocument_ShowsEveryFieldOfAProvider(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("agent.yaml")
	require.NoError(t, err)
	for _, structure := range []reflect.Type{reflect.TypeFor[config.Provider](), reflect.TypeFor[config.Service]()} {
		for _, field := range reflect.VisibleFields(structure) {
			name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			require.Contains(t, string(text), name+":")
		}
	}
}
