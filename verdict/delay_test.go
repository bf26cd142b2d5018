package verdict_test

import (
	"net/http"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/verdict"
)

// responseKeptError has the shape of errors that keep the response, and no words.
type responseKeptError struct{ Response *http.Response }

func (responseKeptError) Error() string { return "refused" }

// afterOf returns the delay by both ways: that of an error with the response, and that of FromResponse.
//
//nolint:bodyclose // no server has sent them
func afterOf(t *testing.T, status int, header ...string) verdict.Verdict {
	t.Helper()
	of := verdict.Of(responseKeptError{answer(status, header...)})
	require.Equal(t, of, verdict.Of(verdict.FromResponse(answer(status, header...))), "%d %v", status, header)
	return of
}

func TestOf_ReadsEachSpellingOfWhenALimitIsOver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		soon := time.Now().Add(30 * time.Second)
		for _, row := range []struct {
			want   time.Duration
			header []string
		}{
			{30 * time.Second, []string{"Retry-After", "30"}},
			{30 * time.Second, []string{"Retry-After", soon.UTC().Format(http.TimeFormat)}},
			{1500 * time.Millisecond, []string{"Retry-After-Ms", "1500", "Retry-After", "2"}},
			{2 * time.Second, []string{"Retry-After", "2", "X-RateLimit-Reset", "60"}},
			{2500 * time.Millisecond, []string{"X-RateLimit-Reset-After", "2.5"}},
			{30 * time.Second, []string{"X-RateLimit-Reset", strconv.FormatInt(soon.Unix(), 10)}},
			{30 * time.Second, []string{"X-RateLimit-Reset", strconv.FormatInt(soon.UnixMilli(), 10)}},
			{45 * time.Second, []string{"X-RateLimit-Reset", "45"}},
			{45 * time.Second, []string{"X-Rate-Limit-Reset", "45", "X-Rate-Limit-Remaining", "0"}},
			{6 * time.Minute, []string{"X-RateLimit-Reset-Requests", "6m0s", "X-RateLimit-Reset-Tokens", "20ms"}},
			{20 * time.Millisecond, []string{"X-RateLimit-Reset-Requests", "6m0s", "X-RateLimit-Remaining-Requests", "9", "X-RateLimit-Reset-Tokens", "20ms"}},
			{30 * time.Second, []string{"Anthropic-RateLimit-Input-Tokens-Reset", soon.UTC().Format(time.RFC3339), "Anthropic-RateLimit-Input-Tokens-Remaining", "0"}},
			{30 * time.Second, []string{"RateLimit-Reset", "30"}},
			{30 * time.Second, []string{"RateLimit", `"day";r=5;t=3600, "minute";r=0;t=30`}},
			{0, []string{"RateLimit", `"day";r=5;t=3600`}},
			{0, []string{"RateLimit", `"day";t=3600`}},
			{0, []string{"RateLimit", `;;=,r=0;t=soon`}},
			{0, []string{"X-RateLimit-Reset", "soon"}},
			{0, []string{"X-RateLimit-Reset", "-5"}},
			{0, []string{"X-RateLimit-Reset", "-5s"}},
			{0, []string{"X-RateLimit-Reset", strconv.FormatInt(time.Now().Add(-time.Hour).Unix(), 10)}},
			{longest, []string{"X-RateLimit-Reset", "1e300"}},
			{longest, []string{"Retry-After-Ms", "1e300"}},
		} {
			require.Equal(t, verdict.Verdict{Class: verdict.ClassRateLimited, After: row.want}, afterOf(t, 429, row.header...), "%v", row.header)
		}
	})
}

// The headers of limits are in every answer: they count where a limit is the reason.
func TestOf_ReadsLimitsOnlyWhereOneIsTheReason(t *testing.T) {
	t.Parallel()
	reset := []string{"X-RateLimit-Reset", "30"}
	require.Equal(t, verdict.Verdict{Class: verdict.ClassServerError}, afterOf(t, 503, append(reset, "X-RateLimit-Remaining", "0")...))
	require.Equal(t, verdict.Verdict{Class: verdict.ClassServerError}, afterOf(t, 500, reset...))
	require.Equal(t, verdict.Verdict{Class: verdict.ClassBadRequest}, afterOf(t, 400, append(reset, "X-RateLimit-Remaining", "0")...))
	require.Equal(t, verdict.Verdict{Class: verdict.ClassNotAllowed}, afterOf(t, 403, append(reset, "X-RateLimit-Remaining", "7")...))
	require.Equal(t, verdict.Verdict{Class: verdict.ClassNotAllowed}, afterOf(t, 403, reset...))
	require.Equal(t, verdict.Verdict{Class: verdict.ClassNotAllowed}, afterOf(t, 403, "Retry-After", "30"))
	require.Equal(t, verdict.Verdict{Class: verdict.ClassRateLimited, After: 30 * time.Second}, afterOf(t, 403, append(reset, "X-RateLimit-Remaining", "0")...))
	require.Equal(t, verdict.Verdict{Class: verdict.ClassOverloaded, After: 5 * time.Second}, afterOf(t, 503, append(reset, "Retry-After", "5")...))
	drained := responseKeptError{answer(403, append(reset, "X-RateLimit-Remaining", "0")...)} //nolint:bodyclose // no server has sent it
	require.Equal(t, verdict.ClassRateLimited, verdict.HTTP(drained).Class)
	require.Equal(t, verdict.ClassRateLimited, verdict.LLM(drained).Class)
}

// Whatever a header says, the delay is from none to ten years.
func FuzzLimits(f *testing.F) {
	for _, value := range []string{"", "0", "30", "1.5", "1700000000", "1700000000000", "6m0s", "2999-01-01T00:00:00Z", "NaN", "inf", "-1", `"a";r=0;t=9`, "r=0;t=inf"} {
		f.Add(value, "0")
	}
	f.Fuzz(func(t *testing.T, value, remaining string) {
		header := http.Header{"X-Ratelimit-Reset": {value}, "X-Ratelimit-Remaining": {remaining}, "Ratelimit": {value}, "Retry-After-Ms": {value}}
		v := verdict.Of(responseKeptError{&http.Response{StatusCode: http.StatusTooManyRequests, Header: header}})
		require.Equal(t, verdict.ClassRateLimited, v.Class)
		require.GreaterOrEqual(t, v.After, time.Duration(0))
		require.LessOrEqual(t, v.After, longest)
	})
}
