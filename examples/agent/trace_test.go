package main

import (
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTrace_ShowsTheTreeOfACallThatHasMovedOn(t *testing.T) {
	lines, err := output(t, "", "-questions", "40", "-trace")
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(lines[len(lines)-1], "served 40/40 lost 0  "), lines[len(lines)-1])
	tree := regexp.MustCompile(`(?m)^trace     call llm: success, by anthropic, \S+
trace       attempt openai: server error, first, \S+
trace       attempt anthropic: success, failover, \S+$`)
	text := strings.Join(lines, "\n")
	require.Regexp(t, tree, text)
	require.Len(t, tree.FindAllString(text, -1), 1, "once for each course of events")
}

func TestTrace_WithoutTheFlagNothingIsShown(t *testing.T) {
	lines, err := output(t, "", "-questions", "20")
	require.NoError(t, err)
	require.NotContains(t, strings.Join(lines, "\n"), "trace     ")
}
