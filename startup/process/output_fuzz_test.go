//go:build unix

package process_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/internal/oneline"
	"github.com/capreg/registry/startup/process"
)

// FuzzOutput_LinesAreThoseOfTheText compares the lines of output that comes in two parts with those of the whole text.
func FuzzOutput_LinesAreThoseOfTheText(f *testing.F) {
	f.Add([]byte("a\r\nb\rc\n\nd"), uint(2))
	f.Add([]byte(strings.Repeat("x", 9000)+"\n\xff"), uint(8191))
	f.Fuzz(func(t *testing.T, output []byte, at uint) {
		at = min(at, uint(len(output)))
		var want []string
		for _, line := range strings.FieldsFunc(string(output), func(r rune) bool { return r == '\n' || r == '\r' }) {
			line = line[:min(len(line), 8<<10)]
			want = append(want, oneline.Short(strings.ToValidUTF8(line, "\uFFFD"), 1<<10))
		}
		require.Equal(t, want, append([]string(nil), process.LinesOf([][]byte{output[:at], output[at:]})...))
	})
}
