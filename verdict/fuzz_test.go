package verdict_test

import (
	"math"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/verdict"
)

const longest = 10 * 365 * 24 * time.Hour

// A Retry-After is a time from none to ten years, and a whole number of seconds is that.
func FuzzRetryAfter(f *testing.F) {
	for _, header := range []string{
		"", "0", "1", " 120 ", "-1", "1.5", "1e3", "inf", "NaN", "0x10p4", "1_000", "99999999999999999999", "-inf",
		"Fri, 31 Dec 1999 23:59:59 GMT", "Fri, 31 Dec 2999 23:59:59 GMT", "Friday, 31-Dec-99 23:59:59 GMT", "tomorrow", "1s", "\x00",
	} {
		f.Add(header)
	}
	f.Fuzz(func(t *testing.T, header string) {
		after := verdict.RetryAfter(header)
		require.GreaterOrEqual(t, after, time.Duration(0))
		require.LessOrEqual(t, after, longest)
		if seconds, err := strconv.ParseUint(strings.TrimSpace(header), 10, 64); err == nil {
			require.Equal(t, min(seconds, uint64(longest/time.Second)), uint64(after/time.Second))
		}
	})
}

func FuzzClass_RoundTrips(f *testing.F) {
	for _, class := range verdict.Classes() {
		f.Add(class.String())
	}
	f.Add("")
	f.Add("class(7)")
	f.Fuzz(func(t *testing.T, text string) {
		class := verdict.ClassSlow
		if err := class.UnmarshalText([]byte(text)); err != nil {
			require.Equal(t, verdict.ClassSlow, class, "nothing is changed")
			require.NotContains(t, err.Error(), "\n")
			return
		}
		written, err := class.MarshalText()
		require.NoError(t, err)
		require.Equal(t, text, string(written))
	})
}

// Whatever number a server or a client sends as its status, it is no success, asks for no
// negative time, and means something that has a rule.
func FuzzStatus(f *testing.F) {
	for _, code := range []int{0, 200, 400, 404, 429, 500, 503, 529, 599, 600, -1, math.MaxInt, math.MinInt} {
		f.Add(code, int64(time.Second))
	}
	f.Fuzz(func(t *testing.T, code int, after int64) {
		v := verdict.OfHTTPStatus(code, time.Duration(after))
		require.NotEqual(t, verdict.ClassSuccess, v.Class)
		require.Contains(t, verdict.Classes(), v.Class)
		require.Equal(t, code < 400 || code > 599, v.Class == verdict.ClassUnknown, "%d is %v", code, v.Class)
		require.True(t, v.After == 0 || v.After == time.Duration(after))
		grpc := verdict.OfGRPCCode(uint32(code))
		require.Contains(t, verdict.Classes(), grpc.Class)
		require.NotEqual(t, verdict.ClassSuccess, grpc.Class)
	})
}
