package oneline_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/capreg/registry/internal/oneline"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestOf_LeavesNothingThatEndsALine(t *testing.T) {
	t.Parallel()
	require.Equal(t, "a b  c d e", oneline.Of("a\nb\r\nc\u2028d\u2029e"))
	require.Equal(t, "plain", oneline.Of("plain"))
}

func TestCut_KeepsWholeCharacters(t *testing.T) {
	t.Parallel()
	require.Equal(t, "abc", oneline.Cut("abc", 3))
	require.Equal(t, "ab…", oneline.Cut("abc", 2))
	require.Equal(t, "a…", oneline.Cut("aé", 2))
}

func TestPlural_CountsInWords(t *testing.T) {
	t.Parallel()
	require.Equal(t, "0 calls", oneline.Plural(0, "call"))
	require.Equal(t, "1 call", oneline.Plural(1, "call"))
	require.Equal(t, "2 calls", oneline.Plural(uint64(2), "call"))
}

func FuzzCutAndOf(f *testing.F) {
	f.Add("aé\n", 2)
	f.Fuzz(func(t *testing.T, text string, n int) {
		n = min(max(n, 0), 100)
		short := oneline.Cut(oneline.Of(text), n)
		require.LessOrEqual(t, len(short), max(n+len("…"), 0))
		require.False(t, strings.ContainsAny(short, "\n\r"))
		require.True(t, utf8.ValidString(short) || !utf8.ValidString(text))
	})
}

func TestShort_IsOneLineOfBoundedLength(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"": "", "12345678": "12345678", "123456789": "12345…", "a\nb\xff": "a b\uFFFD", "1234é678": "1234…",
	} {
		require.Equal(t, want, oneline.Short(text, 8), text)
	}
}

func TestFirst_CountsTheRest(t *testing.T) {
	t.Parallel()
	texts := []string{"a", "b", "c"}
	require.Equal(t, texts, oneline.First(texts, 3, "and "))
	require.Equal(t, []string{"a", "b", "and 1 more"}, oneline.First(texts, 2, "and "))
	require.Equal(t, []string{"a", "and 2 more"}, oneline.First(texts, 1, "and "))
	require.Equal(t, []string{"a", "b", "c"}, texts)
}
