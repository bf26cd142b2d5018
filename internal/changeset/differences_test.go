package changeset_test

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/internal/changeset"
	"github.com/capreg/registry/status"
)

func TestDifferences_AreThoseOfTheirFields(t *testing.T) {
	t.Parallel()
	type Inner struct {
		Words []string
		Notes map[string]string
	}
	type outer struct {
		Inner

		Time time.Duration
		Do   func()
		Text string
		More any
		Form form
	}
	none := outer{Inner: Inner{Words: []string{}}}
	require.Empty(t, changeset.Differences(outer{}, none, nil), "an empty list is none")
	do := func() {}
	require.Len(t, changeset.Differences(outer{Do: do}, outer{Do: do}, func(string) bool { return true }), 1, "they cannot be compared")
	full := outer{Inner: Inner{Words: []string{"a"}, Notes: map[string]string{"k": "v"}}, Time: time.Minute, Text: strings.Repeat("x", 999)}
	all := changeset.Differences(outer{}, full, func(field string) bool { return field == "Time" })
	require.Equal(t, status.Difference{Field: "Words", From: "[]", To: "[a]"}, all[0])
	require.Equal(t, status.Difference{Field: "Notes", From: "map[]", To: "map[k:v]"}, all[1])
	require.Equal(t, status.Difference{Field: "Time", From: "0s", To: "1m0s", InPlace: true}, all[2])
	require.Equal(t, "Text", all[3].Field)
	require.Less(t, len(all[3].To), 300)
	require.Len(t, all, 4)
	all = changeset.Differences(outer{}, outer{More: &form{"secret"}, Form: form{Text: "x"}}, func(string) bool { return false })
	require.Equal(t, []status.Difference{
		{Field: "More", From: "as it is", To: "a *changeset_test.form"},
		{Field: "Form", From: `"the form of "`, To: `"the form of x"`},
	}, all)
}

type form struct{ Text string }

func (f form) MarshalJSON() ([]byte, error) {
	return []byte(strconv.Quote("the form of " + f.Text)), nil
}
