package jsonform_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/capreg/registry/internal/check"
	"github.com/capreg/registry/internal/jsonform"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// level is an enumeration.
type level uint8

var levelNames = []string{"low", "high"}

func (l level) MarshalText() ([]byte, error) {
	return jsonform.MarshalName(levelNames, l, "level")
}

func (l *level) UnmarshalText(text []byte) error {
	return jsonform.UnmarshalName(levelNames, l, text, "level")
}

type inner struct {
	Wait time.Duration `json:"wait"`
	Deep string        `json:"deep,omitempty"`
	Both string        `json:"both"`
}

func (i inner) MarshalJSON() ([]byte, error)     { return jsonform.Marshal(i) }
func (i *inner) UnmarshalJSON(text []byte) error { return jsonform.Unmarshal(text, i) }

type outer struct {
	inner

	Both     string            `json:"both"` // hides that of inner
	Untagged int               //nolint:tagliatelle // on purpose
	Took     time.Duration     `json:"took,omitempty"`
	Err      error             `json:"error,omitempty"`
	Null     error             `json:"null"`
	Level    level             `json:"level"`
	Levels   map[level]int     `json:"levels,omitempty"`
	Nested   inner             `json:"nested,omitzero"`
	List     []inner           `json:"list,omitempty"`
	Pointer  *inner            `json:"pointer,omitempty"`
	At       time.Time         `json:"at,omitzero"`
	Share    float64           `json:"share"`
	Any      any               `json:"any,omitempty"`
	Function func()            `json:"-"`
	Texts    map[string]string `json:"texts"`
	Array    [2]bool           `json:"array,omitempty"`
	hidden   int
}

func (o outer) MarshalJSON() ([]byte, error)     { return jsonform.Marshal(o) }
func (o *outer) UnmarshalJSON(text []byte) error { return jsonform.Unmarshal(text, o) }

func TestMarshal_WritesFieldsByTheirTags(t *testing.T) {
	t.Parallel()
	value := outer{
		inner: inner{Wait: time.Minute, Both: "inner"}, Both: "outer", Untagged: 1, Took: 90 * time.Minute, Err: errors.New("a <b>"),
		Level: 1, Levels: map[level]int{1: 2}, List: []inner{{Wait: 1}}, Pointer: &inner{Deep: "x"}, At: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC),
		hidden: 1,
	}
	text, err := json.Marshal(value)
	require.NoError(t, err)
	require.True(t, bytes.Equal([]byte(`{"wait":"1m","both":"outer","Untagged":1,"took":"1h30m","error":"a \u003cb\u003e","null":null,"level":"high","levels":{"high":2},`+
		`"list":[{"wait":"1ns","both":""}],"pointer":{"wait":"0s","deep":"x","both":""},"at":"2026-01-02T03:04:05.000000006Z","share":0,"texts":null,"array":[false,false]}`), text), "in the order of the fields: %s", text)

	var plain bytes.Buffer
	encoder := json.NewEncoder(&plain)
	encoder.SetEscapeHTML(false)
	require.NoError(t, encoder.Encode(value))
	require.Contains(t, plain.String(), `"a <b>"`, "the encoder decides whether to escape")
}

func TestUnmarshal_KeepsWhatIsNotNamed(t *testing.T) {
	t.Parallel()
	before := outer{Took: 7, Err: errors.New("kept"), Level: 1, Nested: inner{Deep: "kept"}, Texts: map[string]string{"a": "1"}, Function: func() {}}
	value := before
	require.NoError(t, json.Unmarshal([]byte(`{"TOOK":"2s","unknown":[1,{}],"nested":{"wait":"1s"},"texts":{"b":"2"},"level":null,"took":null}`), &value))
	require.Equal(t, 2*time.Second, value.Took, "names are read in any case, and null changes no duration")
	require.EqualError(t, value.Err, "kept")
	require.Equal(t, level(1), value.Level)
	require.Equal(t, inner{Wait: time.Second, Deep: "kept"}, value.Nested)
	require.Equal(t, map[string]string{"a": "1", "b": "2"}, value.Texts, "as encoding/json merges maps")
	require.Equal(t, map[string]string{"a": "1"}, before.Texts)
	require.NotNil(t, value.Function)

	require.NoError(t, json.Unmarshal([]byte(`{"error":null,"took":"1s","Took":"3s"}`), &value))
	require.NoError(t, value.Err)
	require.Equal(t, 3*time.Second, value.Took, "the last one counts")
	require.NoError(t, value.UnmarshalJSON([]byte(" null ")))
	require.Equal(t, 3*time.Second, value.Took)
}

func TestUnmarshal_ErrorsNameFieldValueAndBound(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`{"took":"2 parsecs"}`:                `took is "2 parsecs": want a duration such as "1m30s" or "250ms"`,
		`{"took":2}`:                          `took is 2: want a duration such as "1m30s" or "250ms"`,
		`{"took":true}`:                       `took is true: want a duration such as "1m30s" or "250ms"`,
		`{"error":1}`:                         `error is 1: want text`,
		`{"level":"middle"}`:                  `level is "middle": want one of low, high`,
		`{"levels":{"middle":1}}`:             `levels is "middle": want one of low, high`,
		`{"Untagged":1.5}`:                    `Untagged is 1.5: want a whole number of`,
		`{"share":"much"}`:                    `share is "much": want a number`,
		`{"both":["` + long + `"]}`:           `both is ["xxx`,
		`{"nested":{"wait":"soon"}}`:          `nested.wait is "soon": want a duration`,
		`{"pointer":{"wait":"soon"}}`:         `pointer.wait is "soon": want a duration`,
		`{"list":[{"wait":"1s"},{"wait":1}]}`: `list.wait is 1: want a duration`,
		`{"at":"noon"}`:                       `at is "noon": parsing time`,
		`[]`:                                  `[]: want an object`,
		strings.Repeat("2", 400):              strings.Repeat("2", 64) + "…: want an object",
		`7`:                                   `7: want an object`,
	} {
		value := outer{Took: 7, Texts: map[string]string{"a": "1"}, Pointer: &inner{Wait: 1}, Nested: inner{Wait: 1}}
		if strings.HasPrefix(text, "{") {
			text = `{"both":"changed","texts":{"b":"2"},` + text[1:]
		}
		err := json.Unmarshal([]byte(text), &value)
		require.ErrorIs(t, err, check.ErrInvalid, text)
		require.ErrorContains(t, err, "invalid input: "+want, text)
		require.Less(t, len(err.Error()), 200)
		require.Equal(t, outer{Took: 7, Texts: map[string]string{"a": "1"}, Pointer: &inner{Wait: 1}, Nested: inner{Wait: 1}}, value, text)
	}
}

var long = strings.Repeat("x", 1000)

func TestUnmarshal_RefusesTextThatIsNoJSON(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "{", `{"took":"1s"} x`, `{"took"}`, "nul"} {
		value := outer{Took: 7}
		err := value.UnmarshalJSON([]byte(text))
		require.ErrorIs(t, err, check.ErrInvalid, text)
		var syntax *json.SyntaxError
		require.ErrorAs(t, err, &syntax, text)
		require.Equal(t, time.Duration(7), value.Took)
	}
	require.Error(t, (*outer)(nil).UnmarshalJSON([]byte("{}")))
}

func TestUnmarshal_ReadsZeroWithoutUnit(t *testing.T) {
	t.Parallel()
	value := outer{Took: 7}
	require.NoError(t, json.Unmarshal([]byte(`{"took":0}`), &value))
	require.Zero(t, value.Took)
}

// hostile is an error whose method panics.
type hostile struct{}

func (hostile) Error() string { panic("no text") }

func TestMarshal_SurvivesErrorThatPanics(t *testing.T) {
	t.Parallel()
	text, err := json.Marshal(outer{Err: hostile{}})
	require.NoError(t, err)
	require.Contains(t, string(text), `"error":"jsonform_test.hostile whose Error method failed"`)
}

func TestMarshal_NamesTheFieldThatHasNoForm(t *testing.T) {
	t.Parallel()
	_, err := json.Marshal(outer{Share: math.NaN()})
	require.ErrorContains(t, err, "invalid input: share: json: unsupported value: NaN")
	require.ErrorIs(t, err, check.ErrInvalid)
	_, err = json.Marshal(outer{Level: 9})
	require.ErrorContains(t, err, "invalid input: level is level(9): want one of low, high")
	_, err = json.Marshal(outer{Any: []any{func() {}}})
	require.ErrorContains(t, err, "any: json: unsupported type: func()")
}

func TestMarshal_RefusesTypesWithoutAForm(t *testing.T) {
	t.Parallel()
	type untagged struct{ Wait time.Duration }
	type loop struct {
		Next *loop
		Wait time.Duration
	}
	for want, form := range map[string]func() error{
		"Waits holds durations or errors in a []time.Duration": formOf[struct{ Waits []time.Duration }],
		"Waits holds durations or errors in a map":             formOf[struct{ Waits map[string]*time.Duration }],
		"Errs holds durations or errors in a [2]error":         formOf[struct{ Errs [2]error }],
		"Of holds durations or errors in a jsonform_test.unt":  formOf[struct{ Of untagged }],
		"Loop holds durations or errors in a *jsonform_test":   formOf[struct{ Loop *loop }],
		"Count has the option string": formOf[struct {
			Count int `json:",string"`
		}],
		"Exported is an embedded pointer": formOf[struct{ *Exported }],
		"int is no struct":                formOf[int],
		`two fields are named "B"`: formOf[struct {
			A int `json:"B"`
			B int
		}],
	} {
		require.ErrorContains(t, form(), want)
	}
}

// Exported is embedded by a pointer.
type Exported struct{ A int }

func formOf[T any]() error {
	var value T
	_, err := jsonform.Marshal(value)
	if back := jsonform.Unmarshal([]byte("{}"), &value); fmt.Sprint(back) != fmt.Sprint(err) {
		return fmt.Errorf("written with %w, read with %w", err, back)
	}
	return err
}

func TestText_ValuesWithoutANameHaveANumber(t *testing.T) {
	t.Parallel()
	require.Equal(t, "high", jsonform.Text(levelNames, level(1), "level"))
	require.Equal(t, "level(2)", jsonform.Text(levelNames, level(2), "level"))
	var l level
	require.EqualError(t, l.UnmarshalText([]byte("x\ny")), `invalid input: level is "x\ny": want one of low, high`)
	_, err := level(2).MarshalText()
	require.EqualError(t, err, `invalid input: level is level(2): want one of low, high`)
}

func TestUnmarshalText_ReadsTextAndCharacters(t *testing.T) {
	t.Parallel()
	var read string
	into := func(text []byte) error { read = string(text); return nil }
	for data, want := range map[string]string{`"a\u0062"`: "ab", `9`: "9", `null`: "", `{}`: "{}"} {
		read = ""
		require.NoError(t, jsonform.UnmarshalText([]byte(data), into))
		require.Equal(t, want, read)
	}
	require.ErrorIs(t, jsonform.UnmarshalText([]byte(`"open`), into), check.ErrInvalid)
}

func TestDurationText_LeavesOutZerosAtTheEnd(t *testing.T) {
	t.Parallel()
	for text, d := range map[string]time.Duration{
		"0s": 0, "2m": 2 * time.Minute, "1h": time.Hour, "1h0m5s": time.Hour + 5*time.Second, "10h": 10 * time.Hour, "1m10s": 70 * time.Second,
		"20m": 20 * time.Minute, "1.5s": 1500 * time.Millisecond, "-2m": -2 * time.Minute, "100h30m": 100*time.Hour + 30*time.Minute,
	} {
		require.Equal(t, text, jsonform.DurationText(d))
	}
}

func FuzzDurationText_IsReadAsTheSameDuration(f *testing.F) {
	for _, d := range []int64{0, 1, -1, math.MaxInt64, math.MinInt64, int64(time.Hour), int64(90 * time.Minute), 1_001_000, 1_234_567_891} {
		f.Add(d)
	}
	f.Fuzz(func(t *testing.T, nanoseconds int64) {
		d := time.Duration(nanoseconds)
		back, err := time.ParseDuration(jsonform.DurationText(d))
		require.NoError(t, err)
		require.Equal(t, d, back)
	})
}

// twin is outer by encoding/json alone, with durations and errors as the form writes them.
type twin struct {
	Wait     string            `json:"wait"`
	Deep     string            `json:"deep,omitempty"`
	Both     string            `json:"both"`
	Untagged int               //nolint:tagliatelle // on purpose
	Took     string            `json:"took,omitempty"`
	Err      *string           `json:"error,omitempty"`
	Null     *string           `json:"null"`
	Level    level             `json:"level"`
	Levels   map[level]int     `json:"levels,omitempty"`
	Nested   twinInner         `json:"nested,omitzero"`
	List     []twinInner       `json:"list,omitempty"`
	Pointer  *twinInner        `json:"pointer,omitempty"`
	At       time.Time         `json:"at,omitzero"`
	Share    float64           `json:"share"`
	Any      any               `json:"any,omitempty"`
	Texts    map[string]string `json:"texts"`
	Array    [2]bool           `json:"array,omitempty"`
}

type twinInner struct {
	Wait string `json:"wait"`
	Deep string `json:"deep,omitempty"`
	Both string `json:"both"`
}

func FuzzUnmarshal_AgreesWithEncodingJSON(f *testing.F) {
	for _, text := range []string{
		`{}`, `null`, `[]`, `{"took":"2m","error":"x","null":null,"level":"high","levels":{"low":1},"nested":{"wait":"1s"}}`,
		`{"list":[{"wait":"1ns"},{}],"pointer":{},"at":"2026-01-02T03:04:05Z","share":1e300,"any":{"a":[1,null]},"texts":{"":"\u2028"},"array":[true]}`,
		`{"Both":"a","both":"b","BOTH":"c","deep":"\ud800","x":{"both":1}}`, `{"took":2}`, `{"at":1}`, `{"took":"2m"`, `{"untagged":1e2}`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var value outer
		var model twin
		err, modelErr := json.Unmarshal(text, &value), json.Unmarshal(text, &model)
		if err != nil {
			require.Equal(t, outer{}, value, "an error changes nothing")
			return
		}
		require.NoError(t, modelErr, "what encoding/json refuses is refused")
		written, err := json.Marshal(value)
		require.NoError(t, err)
		var back outer
		require.NoError(t, json.Unmarshal(written, &back))
		rewritten, err := json.Marshal(back)
		require.NoError(t, err)
		require.Equal(t, string(written), string(rewritten), "but for empty and missing ones, the values are the same")

		var again twin
		require.NoError(t, json.Unmarshal(written, &again))
		for _, m := range []*twin{&model, &again} { // durations have many texts: the round trip above compares them
			m.Wait, m.Took, m.Nested.Wait = "", "", ""
			for i := range m.List {
				m.List[i].Wait = ""
			}
			if m.Pointer != nil {
				m.Pointer.Wait = ""
			}
		}
		require.Equal(t, model.Texts, again.Texts)
		require.Equal(t, model.Both, again.Both)
		require.Equal(t, model.Deep, again.Deep)
		require.Equal(t, model.Err == nil, again.Err == nil)
		require.Equal(t, model.Null == nil, again.Null == nil)
		require.Equal(t, model.Any, again.Any)
		require.Equal(t, model.Array, again.Array)
		require.Len(t, again.List, len(model.List))
		require.Equal(t, model.Untagged, again.Untagged)
	})
}

func BenchmarkMarshal(b *testing.B) {
	value := outer{Took: time.Minute, List: make([]inner, 10)}
	for b.Loop() {
		if _, err := json.Marshal(value); err != nil {
			b.Fatal(err)
		}
	}
}
