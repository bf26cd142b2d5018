package registry_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/internal/oneline"
	"github.com/capreg/registry/internal/testkit"
)

// A definition that was read registers, or is refused in one line without a trace; what
// was registered reads as it was written.
func FuzzDefinitionInJSON(f *testing.F) {
	for _, text := range []string{
		`{}`, `null`, `[]`, `{"name":"a","capabilities":["x","x"],"priority":"HIGH","group":-3,"strategy":"round_robin"}`,
		`{"name":" a"}`, `{"priority":9,"handler":"*","metadata":{"":"x"}}`, `{"endpoint":"http://host/ path"}`, `{"endpoint":"unix:///run/x"}`,
		`{"window":-1}`, `{"strategy":"unknown"}`, `{"name":"a\u2028b","version":"\ud800"}`, `{"domain":" d"}`, `{"group":1e30}`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var d registry.Definition
		if json.Unmarshal(text, &d) != nil {
			return
		}
		reg := testkit.New(t, registry.Options{})
		input := testkit.Chat.Provider(d)
		input.Instance = testkit.Says("x")
		registration, err := testkit.Chat.Register(t.Context(), reg, input)
		if err != nil {
			testkit.RequireOneLine(t, err)
			require.Zero(t, reg.Stats())
			return
		}
		written, err := json.Marshal(registration.Definition())
		require.NoError(t, err)
		var again registry.Definition
		require.NoError(t, json.Unmarshal(written, &again))
		rewritten, err := json.Marshal(again)
		require.NoError(t, err)
		require.JSONEq(t, string(written), string(rewritten))
		r := testkit.Chat.Bind(reg, registry.Query{Handler: again.Handler, Require: again.Capabilities})
		require.Equal(t, "x", testkit.MustAsk(t, r))
		require.NoError(t, reg.Close(t.Context()))
	})
}

// words returns those that a provider may have as capabilities.
func words(wanted []string) (fit []string) {
	for _, word := range wanted {
		if word != "" && len(word) <= 256 && strings.TrimSpace(word) == word && strings.ToValidUTF8(word, "") == word &&
			oneline.Of(word) == word && len(fit) < 256 {
			fit = append(fit, word)
		}
	}
	return fit
}
