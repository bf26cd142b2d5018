package check_test

import (
	"slices"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/capreg/registry/internal/check"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// none is the row of a value that is accepted.
var none = check.Violation{}

// requireViolation compares with the violation of a row.
func requireViolation(t *testing.T, want check.Violation, got *check.Violation, row ...any) {
	t.Helper()
	if want == none {
		require.Nil(t, got, row...)
		return
	}
	require.NotNil(t, got, row...)
	require.Equal(t, want, *got, row...)
}

func TestRefuse_QuotesAndCutsTheValue(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 100)
	require.Equal(t, `"a\n"`, check.Refuse("F", "a\n", "b").Value)
	require.Equal(t, "nil", check.Refuse("F", check.Raw("nil"), "b").Value)
	require.Equal(t, "[1 2]", check.Refuse("F", []int{1, 2}, "b").Value)
	require.Equal(t, `"`+long[:64]+`…"`, check.Refuse("F", long, "b").Value)
	require.Equal(t, long[:72]+"…", check.Refuse("F", check.Raw(long), "b").Value)
	require.Equal(t, &check.Violation{Field: "F", Value: "-1", Bound: "b"}, check.Refuse("F", -1, "b"))
}

func TestName_Bounds(t *testing.T) {
	t.Parallel()
	longest := strings.Repeat("x", check.LongestName)
	wide := strings.Repeat("ü", check.LongestName/2)
	for name, want := range map[string]check.Violation{
		"a": none, "a b": none, "über": none, longest: none, wide: none,
		"":            {"F", `""`, "a name"},
		longest + "x": {"F", `"` + longest[:64] + `…"`, "at most 256 bytes, not 257"},
		wide + "ü":    {"F", `"` + wide[:64] + `…"`, "at most 256 bytes, not 258"},
		"a\xff":       {"F", `"a\xff"`, "valid UTF-8"},
		" a":          {"F", `" a"`, "no space at its ends"},
		"a\u00a0":     {"F", `"a\u00a0"`, "no space at its ends"},
		"a\nb":        {"F", `"a\nb"`, "no control characters"},
		"a\x00b":      {"F", `"a\x00b"`, "no control characters"},
		"a\x7f":       {"F", `"a\x7f"`, "no control characters"},
		"a\u2028b":    {"F", `"a\u2028b"`, "no control characters"},
	} {
		requireViolation(t, want, check.Name("F", name), name)
		if name == "" {
			want = none
		}
		requireViolation(t, want, check.OptionalName("F", name), name)
	}
}

func TestWords_AreACopyWithoutRepetitions(t *testing.T) {
	t.Parallel()
	given := []string{"b", "a", "b"}
	words := given
	require.Nil(t, check.Words("F", &words))
	require.Equal(t, []string{"b", "a"}, words)
	words[0] = "changed"
	require.Equal(t, []string{"b", "a", "b"}, given)

	for _, empty := range [][]string{nil, {}} {
		require.Nil(t, check.Words("F", &empty))
		require.Nil(t, empty)
	}
	for _, row := range []struct {
		words []string
		want  check.Violation
	}{
		{[]string{""}, check.Violation{Field: "F[0]", Value: `""`, Bound: "a name"}},
		{[]string{"a", "a", "b "}, check.Violation{Field: "F[2]", Value: `"b "`, Bound: "no space at its ends"}},
	} {
		words := row.words
		requireViolation(t, row.want, check.Words("F", &words))
		requireViolation(t, row.want, check.Names("F", row.words))
		require.Equal(t, row.words, words, "not changed")
	}
}

func TestAppendOnce_LeavesEarlierWordsAlone(t *testing.T) {
	t.Parallel()
	require.Equal(t, []string{"a", "a", "b"}, check.AppendOnce([]string{"a"}, []string{"a", "b", "a"}))
}

func TestWords_AreBounded(t *testing.T) {
	t.Parallel()
	words := slices.Repeat([]string{"w"}, check.LongestList+1)
	most := words[1:]
	require.Nil(t, check.Words("F", &most))
	requireViolation(t, check.Violation{Field: "F", Value: "257 words", Bound: "at most 256 words"}, check.Words("F", &words))
}

func TestLine_IsBoundedAndHasNoControlCharacters(t *testing.T) {
	t.Parallel()
	longest := strings.Repeat("x", check.LongestName)
	for text, want := range map[string]check.Violation{
		"": none, "a b.": none, longest: none,
		longest + "x": {"F", `"` + longest[:64] + `…"`, "at most 256 bytes, not 257"},
		"\xff":        {"F", `"\xff"`, "valid UTF-8"},
		"a\t":         {"F", `"a\t"`, "no control characters"},
	} {
		requireViolation(t, want, check.Line("F", text), text)
	}
}

func TestText_IsBoundedAndHasLines(t *testing.T) {
	t.Parallel()
	longest := strings.Repeat("x", check.LongestText)
	for text, want := range map[string]check.Violation{
		"": none, "any\r\n\ttext": none, longest: none,
		longest + "x": {"F", `"` + longest[:64] + `…"`, "at most 16384 bytes, not 16385"},
		"\xff":        {"F", `"\xff"`, "valid UTF-8"},
		"a\x00":       {"F", `"a\x00"`, "no control characters"},
	} {
		requireViolation(t, want, check.Text("F", text), text)
	}
}

func TestTexts_HaveNamesAsKeysAndTextsAsValues(t *testing.T) {
	t.Parallel()
	require.Nil(t, check.Texts("F", nil))
	require.Nil(t, check.Texts("F", map[string]string{"a": "", "b c": "d\n"}))
	for _, row := range []struct {
		key, value string
		want       check.Violation
	}{
		{"", "v", check.Violation{Field: `F[""]`, Value: `""`, Bound: "a name"}},
		{"k", "\xff", check.Violation{Field: `F["k"]`, Value: `"\xff"`, Bound: "valid UTF-8"}},
		{"\xff", "v", check.Violation{Field: `F["\xff"]`, Value: `"\xff"`, Bound: "valid UTF-8"}},
		{"a\n", "v", check.Violation{Field: `F["a\n"]`, Value: `"a\n"`, Bound: "no space at its ends"}},
	} {
		requireViolation(t, row.want, check.Texts("F", map[string]string{row.key: row.value}))
	}
	many := make(map[string]string)
	for i := range check.LongestList + 1 {
		many[strconv.Itoa(i)] = ""
	}
	requireViolation(t, check.Violation{Field: "F", Value: "257 texts", Bound: "at most 256 texts"}, check.Texts("F", many))
	requireViolation(t, check.Violation{Field: "F", Value: "257 texts", Bound: "at most 256 texts"}, check.URLs("F", many))
	delete(many, "0")
	require.Nil(t, check.Texts("F", many))
}

func TestURL_IsAbsoluteWithHostOrPath(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "https://host/path", "http://host", "unix:///path", "unix:/path"} {
		require.Nil(t, check.URL("F", text), text)
	}
	for _, text := range []string{"host", "/path", "mailto:a@b", "http:", "http://[", "x://"} {
		v := check.URL("F", text)
		require.NotNil(t, v, text)
		require.Equal(t, "a URL such as https://host/path or unix:///path", v.Bound)
	}
}

func TestIsNil_SeesThroughInterfaces(t *testing.T) {
	t.Parallel()
	var (
		pointer *int
		list    []int
		table   map[int]int
		channel chan int
		call    func()
		address unsafe.Pointer
	)
	for _, value := range []any{nil, pointer, list, table, channel, call, address} {
		require.True(t, check.IsNil(value), "%T", value)
	}
	for _, value := range []any{0, "", struct{}{}, new(int), []int{}, map[int]int{}, make(chan int), func() {}} {
		require.False(t, check.IsNil(value), "%T", value)
	}
}

func TestSame_IsFalseForWhatCannotBeCompared(t *testing.T) {
	t.Parallel()
	one := new(int)
	require.False(t, check.Same(nil, nil), "there is nothing to compare")
	require.True(t, check.Same(one, one))
	require.False(t, check.Same(one, nil))
	require.False(t, check.Same(1, int64(1)))
	require.False(t, check.Same([]int{}, []int{}))
	require.False(t, check.Same([1]any{func() {}}, [1]any{func() {}}))
}
