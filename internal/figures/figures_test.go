package figures_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/capreg/registry/internal/figures"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestReplace_ReplacesOnlyTheNamedBlock(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "page.md")
	page := "a\n<!-- x: begin -->\nold\n<!-- x: end -->\nb\n<!-- y: begin -->\nkept\n<!-- y: end -->\n"
	require.NoError(t, os.WriteFile(path, []byte(page), 0o600))
	for range 2 {
		require.NoError(t, figures.Replace(path, "x", "new\nlines\n\n"))
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Equal(t, "a\n<!-- x: begin -->\nnew\nlines\n<!-- x: end -->\nb\n<!-- y: begin -->\nkept\n<!-- y: end -->\n", string(text))
	}
	require.ErrorContains(t, figures.Replace(path, "z", ""), `has no block "z"`)
	for _, half := range []string{"<!-- z: begin -->\n", "<!-- z: end -->\n"} {
		require.NoError(t, os.WriteFile(path, []byte(half), 0o600))
		require.ErrorContains(t, figures.Replace(path, "z", ""), `has no block "z"`)
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Equal(t, half, string(text))
	}
	require.ErrorIs(t, figures.Replace(filepath.Join(t.TempDir(), "none"), "x", ""), os.ErrNotExist)
}
