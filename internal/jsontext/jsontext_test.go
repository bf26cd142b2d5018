package jsontext_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/capreg/registry/internal/jsontext"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const piece = `{"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"content":"a \"w\u00f6rd\" "},"finish_reason":null}]}`

var texts = []string{
	piece, `{}`, `[]`, `""`, `0`, `-0`, `-`, `01`, `1.`, `1.5e+3`, `1e`, `1E-`, `.5`, `+1`, `true`, `tru`, `nul`, `null`, `falsee`, ` [ 1 , { "a" : [ ] } ] `, `[1,]`, `[,1]`,
	`{"a"}`, `{"a":}`, `{"a":1,}`, `{1:2}`, `{"a":1 "b":2}`, `"\q"`, `"\u12g4"`, `"\u123`, `"\`, "\"a\nb\"", "\"\x7f\xff\"", `[`, `{`, `{"a`, `{"a":[}`, `[1}`, `1 2`, ``, " ", "\v1", "\ufeff1",
	`"\uABcd\\\/\b\f\n\r\t\""`, `{"":{"":[[[]]]}}`,
}

func TestValid_IsWhatEncodingJSONSays(t *testing.T) {
	t.Parallel()
	for _, text := range texts {
		for end := range len(text) + 1 { // cut anywhere
			require.Equal(t, json.Valid([]byte(text[:end])), jsontext.Valid([]byte(text[:end])), "%q", text[:end])
		}
	}
	for _, depth := range []int{9_999, 10_000, 10_001} {
		for _, text := range []string{
			strings.Repeat("[", depth) + strings.Repeat("]", depth), strings.Repeat(`{"a":`, depth) + "1" + strings.Repeat("}", depth),
		} {
			require.Equal(t, json.Valid([]byte(text)), jsontext.Valid([]byte(text)), depth)
		}
	}
	require.False(t, jsontext.Valid(bytes.Repeat([]byte("["), 1<<20)))
}

func TestEndOfString_IsBehindAWholeString(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int{
		`""`: 2, `"a"b"`: 3, `"\""x`: 4, `"\u00e9"`: 8, `"\\"`: 4, `"`: -1, `"a`: -1, `"\"`: -1, `"\q"`: -1, "\"\n\"": -1, `"long enough for a word"`: 24,
	} {
		require.Equal(t, want, jsontext.EndOfString([]byte(text), 0), text)
		if want > 0 {
			require.Equal(t, want+1, jsontext.EndOfString([]byte(" "+text), 1), text)
		}
	}
}

func FuzzValid_IsWhatEncodingJSONSays(f *testing.F) {
	for _, text := range texts {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		require.Equal(t, json.Valid(text), jsontext.Valid(text), "%q", text)
	})
}

func TestObject_ShowsEachFieldOfIt(t *testing.T) {
	t.Parallel()
	text := []byte(` { "a" : [1, {"b": 2}] ,"c\u0064":"}", "":{}, "a":null } `)
	var got []string
	require.True(t, jsontext.Object(text, func(key []byte, from, to int) { got = append(got, string(key)+"="+string(text[from:to])) }))
	require.Equal(t, []string{`a=[1, {"b": 2}]`, `cd="}"`, `={}`, `a=null`}, got)
	got = nil
	require.False(t, jsontext.Object([]byte(`{"a":1,"b":tru`), func(key []byte, _, _ int) { got = append(got, string(key)) }))
	require.Equal(t, []string{"a"}, got, "what is valid")
	for _, other := range []string{``, ` `, `[]`, `1`, `{}x`, `{`, `{"a":1}{`} {
		require.False(t, jsontext.Object([]byte(other), func([]byte, int, int) {}), other)
	}
}

func TestList_ShowsEachValueOfIt(t *testing.T) {
	t.Parallel()
	text := []byte(` [ 1 , "]" , [ [] ], {} ] `)
	var got []string
	require.True(t, jsontext.List(text, func(from, to int) { got = append(got, string(text[from:to])) }))
	require.Equal(t, []string{`1`, `"]"`, `[ [] ]`, `{}`}, got)
	for _, other := range []string{``, `{}`, `[]x`, `[`, `[1,]`} {
		require.False(t, jsontext.List([]byte(other), func(int, int) {}), other)
	}
}

func FuzzObject_ShowsWhatEncodingJSONReads(f *testing.F) {
	for _, text := range texts {
		f.Add([]byte(text))
	}
	f.Add([]byte(`{"a":1,"\u0061":{"b":[]},"c":"\ud83d\ude00","\ud83d\ude00":" "}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		got := make(map[string]json.RawMessage)
		object := jsontext.Object(text, func(key []byte, from, to int) { got[string(key)] = text[from:to] })
		list := 0
		array := jsontext.List(text, func(from, to int) {
			require.True(t, json.Valid(text[from:to]))
			list++
		})
		trimmed := bytes.TrimLeft(text, " \t\r\n")
		valid := json.Valid(text)
		require.Equal(t, valid && trimmed[0] == '{', object)
		require.Equal(t, valid && trimmed[0] == '[', array)
		if !utf8.Valid(text) {
			return // encoding/json replaces what is none
		}
		if object {
			var want map[string]json.RawMessage
			require.NoError(t, json.Unmarshal(text, &want))
			require.Equal(t, want, got)
		}
		if array {
			var want []json.RawMessage
			require.NoError(t, json.Unmarshal(text, &want))
			require.Len(t, want, list)
		}
	})
}

func BenchmarkValid(b *testing.B) {
	for name, valid := range map[string]func([]byte) bool{"jsontext": jsontext.Valid, "encoding": json.Valid} {
		b.Run(name, func(b *testing.B) {
			text := []byte(piece)
			b.ReportAllocs()
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				if !valid(text) {
					b.Fatal("it is valid")
				}
			}
		})
	}
}

func TestValid_FindsWhatIsSpecialAtEachPlaceOfAString(t *testing.T) {
	t.Parallel()
	for length := range 40 {
		for at := range length {
			for _, c := range []string{`"`, `\`, "\x00", "\x1f", " ", "!", "\x7f", "\x80", "\xff", `\"`, `\\`} {
				text := []byte(`"` + strings.Repeat("a", at) + c + strings.Repeat("b", length-at-1) + `"`)
				require.Equal(t, json.Valid(text), jsontext.Valid(text), "%q", text)
			}
		}
	}
}
