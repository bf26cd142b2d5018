package plain_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/capreg/registry/cmd/registry/internal/plain"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestLine_CannotMoveTheCursor(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"primary":             "primary",
		"größer, 日本 ✖":        "größer, 日本 ✖",
		"a\x1b[2Jb":           "a\ufffd[2Jb",
		"a\r\n\tb":            "a\ufffd\ufffd\ufffdb",
		"a\u202eb\u2066c\x9b": "a\ufffdb\ufffdc\ufffd",
	} {
		require.Equal(t, want, plain.Line(text))
	}
	require.Equal(t, "a\ufffd\nb", plain.Lines("a\x1b\nb"))
}
