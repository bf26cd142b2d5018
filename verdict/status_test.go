package verdict_test

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/verdict"
)

type status struct {
	code  int
	after time.Duration
}

func (s status) Error() string             { return "status" }
func (s status) HTTPStatusCode() int       { return s.code }
func (s status) RetryAfter() time.Duration { return s.after }

// Both profiles, status by status, once more and independently of the tables.
func TestHTTPAndLLM_EveryStatusHasItsClass(t *testing.T) {
	t.Parallel()
	type row struct{ http, llm verdict.Class }
	both := func(class verdict.Class) row { return row{class, class} }
	rows := map[int]row{
		401: both(verdict.ClassUnauthenticated),
		402: both(verdict.ClassNotAllowed), 403: both(verdict.ClassNotAllowed), 407: both(verdict.ClassNotAllowed),
		404: {verdict.ClassResource, verdict.ClassNotForMe}, 410: {verdict.ClassResource, verdict.ClassNotForMe},
		405: both(verdict.ClassResource), 406: both(verdict.ClassResource), 412: both(verdict.ClassResource),
		415: both(verdict.ClassResource), 423: both(verdict.ClassResource), 428: both(verdict.ClassResource),
		451: both(verdict.ClassResource), 409: {verdict.ClassResource, verdict.ClassElsewhere},
		421: both(verdict.ClassElsewhere), 425: both(verdict.ClassElsewhere), 501: both(verdict.ClassElsewhere),
		408: both(verdict.ClassServerError), 424: both(verdict.ClassServerError),
		429: both(verdict.ClassRateLimited), 499: both(verdict.ClassCancelled), 529: both(verdict.ClassOverloaded),
		413: {verdict.ClassBadRequest, verdict.ClassTooLong},
	}
	for code := 400; code <= 599; code++ {
		want, listed := rows[code]
		switch {
		case listed:
		case code < 500:
			want = both(verdict.ClassBadRequest)
		default:
			want = both(verdict.ClassServerError)
		}
		err := fmt.Errorf("sdk: %w", status{code: code})
		require.Equal(t, verdict.Verdict{Class: want.http}, verdict.OfHTTPStatus(code, 0), "%d", code)
		require.Equal(t, verdict.Verdict{Class: want.http}, verdict.Of(err), "%d", code)
		require.Equal(t, verdict.Verdict{Class: want.http}, verdict.HTTP(err), "%d", code)
		require.Equal(t, verdict.Verdict{Class: want.llm}, verdict.LLM(err), "%d", code)
	}
	for _, code := range []int{200, 302, 304, 399, 0, -1, 600, math.MaxInt} {
		for _, classify := range []verdict.Classifier{verdict.Of, verdict.HTTP, verdict.LLM} {
			require.Zero(t, classify(status{code: code}), "%d", code)
		}
	}
}

// A delay keeps a provider away where it is about the provider, and not where it is about one request.
func TestOfHTTPStatus_DelayCountsWhereItIsTheProviders(t *testing.T) {
	t.Parallel()
	for code, want := range map[int]verdict.Verdict{
		429: {Class: verdict.ClassRateLimited, After: time.Second}, 503: {Class: verdict.ClassOverloaded, After: time.Second},
		529: {Class: verdict.ClassOverloaded, After: time.Second}, 500: {Class: verdict.ClassServerError, After: time.Second},
		401: {Class: verdict.ClassUnauthenticated}, 403: {Class: verdict.ClassNotAllowed}, 404: {Class: verdict.ClassResource},
		400: {Class: verdict.ClassBadRequest}, 409: {Class: verdict.ClassResource}, 421: {Class: verdict.ClassElsewhere},
	} {
		require.Equal(t, want, verdict.OfHTTPStatus(code, time.Second), "%d", code)
		require.Equal(t, want, verdict.Of(status{code, time.Second}), "%d", code)
	}
	require.Zero(t, verdict.Of(status{code: 429, after: -time.Second}).After)
}
