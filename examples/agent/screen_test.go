package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestScreen_PrintsLinesBehindTheLineThatHasBegun(t *testing.T) {
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	require.NoError(t, err)
	defer func() { require.NoError(t, out.Close()) }()
	screen := newScreen(out)
	screen.part("[openai] two ")
	screen.line("healthy   data-analyst")
	screen.line("ready     openai")
	screen.part("words.")
	screen.part("\n")
	screen.part("")
	screen.line("cooled    openai")
	text, err := os.ReadFile(out.Name())
	require.NoError(t, err)
	require.Equal(t, "[openai] two words.\nhealthy   data-analyst\nready     openai\ncooled    openai\n", string(text))
}
