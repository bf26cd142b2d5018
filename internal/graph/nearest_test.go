package graph_test

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/internal/graph"
)

func TestNearest_ReturnsSimilarWords(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		word  string
		among []string
		most  int
		want  []string
	}{
		{"nothing", "cache", nil, 3, []string{}},
		{"the word itself", "cache", []string{"cache"}, 3, []string{"cache"}},
		{"one inserted", "cace", []string{"cache"}, 3, []string{"cache"}},
		{"one deleted", "caache", []string{"cache"}, 3, []string{"cache"}},
		{"one replaced", "cashe", []string{"cache"}, 3, []string{"cache"}},
		{"two swapped are one step", "qeueu", []string{"queue"}, 3, []string{"queue"}},
		{"three are too many", "cxyze", []string{"cache"}, 3, []string{}},
		{"but not for a long word", "databasexyz", []string{"database"}, 3, []string{"database"}},
		{"nor for that long one are four", "databasewxyz1", []string{"database"}, 3, []string{}},
		{"it is the word that counts, not its candidates", "database", []string{"databasexyz"}, 3, []string{}},
		{"case does not matter", "CACHE", []string{"cAche"}, 3, []string{"cAche"}},
		{"nor beyond ASCII", "ÜBER", []string{"über"}, 3, []string{"über"}},
		{"runes count, not bytes", "日本語学", []string{"日本学語", "日本", "日"}, 3, []string{"日本学語", "日本"}},
		{"nearest first", "cache", []string{"each", "cached", "cache"}, 3, []string{"cache", "cached", "each"}},
		{"then by alphabet", "cat", []string{"rat", "hat", "bat", "car"}, 3, []string{"bat", "car", "hat"}},
		{"the same only once", "cat", []string{"rat", "hat", "rat"}, 3, []string{"hat", "rat"}},
		{"not more than asked for", "cat", []string{"rat", "hat"}, 1, []string{"hat"}},
		{"none if none is asked for", "cat", []string{"cat"}, 0, []string{}},
		{"nor if fewer are", "cat", []string{"cat"}, -1, []string{}},
		{"what shares nothing was not meant", "db", []string{"mq", "bd", "do", "d", "x"}, 9, []string{"bd", "d", "do"}},
		{"an empty word means nothing", "", []string{"a", "ab"}, 3, []string{}},
		{"nor is it meant", "a", []string{""}, 3, []string{}},
		{"what is no text is compared all the same", "a\xffb", []string{"a\xfeb"}, 3, []string{"a\xfeb"}},
	} {
		require.Equal(t, c.want, graph.Nearest(c.word, c.among, c.most), c.name)
	}
}

func TestNearest_DoesNotChangeItsInput(t *testing.T) {
	t.Parallel()
	among := []string{"rat", "hat", "cat"}
	require.Equal(t, []string{"cat", "hat", "rat"}, graph.Nearest("cat", among, 3))
	require.Equal(t, []string{"rat", "hat", "cat"}, among)
}

// apart is optimal string alignment by its definition.
func apart(a, b []rune) int {
	if len(a) == 0 || len(b) == 0 {
		return len(a) + len(b)
	}
	i, j := len(a)-1, len(b)-1
	cost := 1
	if a[i] == b[j] {
		cost = 0
	}
	steps := min(apart(a[:i], b)+1, apart(a, b[:j])+1, apart(a[:i], b[:j])+cost)
	if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
		steps = min(steps, apart(a[:i-1], b[:j-1])+1)
	}

	return steps
}

func TestNearest_AgreesWithTheDefinitionOfTheDistance(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(11, 12))
	word := func() string {
		var runes strings.Builder
		for range rng.IntN(7) {
			runes.WriteRune([]rune("aAbé")[rng.IntN(4)])
		}

		return runes.String()
	}
	for range 50 {
		meant := word()
		among := make([]string, 20)
		for i := range among {
			among[i] = word()
		}
		distance := func(other string) int {
			return apart([]rune(strings.ToLower(meant)), []rune(strings.ToLower(other)))
		}
		want := slices.DeleteFunc(slices.Clone(among), func(other string) bool {
			d := distance(other)
			return d > 2 || d > 0 && d == max(len([]rune(meant)), len([]rune(other)))
		})
		slices.SortFunc(want, func(a, b string) int {
			return cmp.Or(distance(a)-distance(b), strings.Compare(a, b))
		})
		want = slices.Compact(want)
		require.Equal(t, want, graph.Nearest(meant, among, len(among)), "%q among %q", meant, among)
	}
}
