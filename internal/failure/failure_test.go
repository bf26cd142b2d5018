package failure_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/capreg/registry/internal/failure"
	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/refusal"
	"github.com/capreg/registry/internal/sight"
	"github.com/capreg/registry/reason"
	"github.com/capreg/registry/verdict"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	errDown  = errors.New("down")
	errWrong = errors.New("wrong")
	errEnd   = errors.New("end")
	now      = time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)
)

// attempts returns attempts on the providers 0, 1, … with these classes.
func attempts(classes ...verdict.Class) (all []failure.Attempt) {
	for i, class := range classes {
		all = append(all, failure.Attempt{Provider: strconv.Itoa(i), Class: class, Duration: time.Second, Err: fmt.Errorf("error %d", i)})
	}
	return all
}

// left returns the sight of providers 0, 1, … that are refused with these codes.
func left(codes ...reason.Code) *sight.Sight {
	board := sight.NewBoard(len(codes), func(i int) *sight.Record {
		r := &sight.Record{Who: sight.Who{Provider: strconv.Itoa(i)}, Gate: refusal.Unhealthy, Depends: true, Last: &atomic.Pointer[verdict.LastError]{}}
		r.Standing = refusal.Standing{Code: codes[i], Words: string(codes[i]), Err: fmt.Errorf("refused %d: %w", i, errDown)}
		return r
	})
	seen := &sight.Sight{At: now, View: board.View(0, nil)}
	seen.Note(places{}, nil, nil)
	return seen
}

// places says that each provider has one free.
type places struct{}

func (places) Full(int) bool                                                  { return false }
func (places) ThrottledFor(int, string) time.Duration                         { return 0 }
func (places) Bounded() bool                                                  { return false }
func (places) TooSlow(int) (latency, bound, retryIn time.Duration, slow bool) { return 0, 0, 0, false }

func TestCall_TextNamesEachProviderOnceInOneLine(t *testing.T) {
	t.Parallel()
	call := failure.Call{
		Service: "chat", Attempts: attempts(verdict.ClassTransport, verdict.ClassTransport), Ended: []error{context.Canceled},
		OnceOnly: true, Left: left(reason.Unhealthy, reason.Unhealthy, reason.Unhealthy),
	}
	call.Attempts[1].Err = errors.New("two\nlines")
	text := call.Text()
	require.Contains(t, text, `registry: call of service "chat" failed: context canceled: 0: transport after 1s: error 0; 1: transport after 1s: two`)
	require.Contains(t, text, "; 2: "+string(reason.Unhealthy))
	require.Regexp(t, "; not tried elsewhere: once only$", text)
	require.NotContains(t, text, "\n")
	require.NotContains(t, text, "; 0: ", "it was tried")
}

func TestCall_TextHasOnlyWhatThereIsToSay(t *testing.T) {
	t.Parallel()
	require.Equal(t, `registry: call of service "chat" failed`, (&failure.Call{Service: "chat"}).Text())
	require.Equal(t, `registry: call of service "chat" failed: 0: transport after 1s: error 0`,
		(&failure.Call{Service: "chat", Attempts: attempts(verdict.ClassTransport)}).Text())
}

func TestCall_TextIsBoundedWhateverNamesAndErrorsSay(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 1000)
	call := failure.Call{Service: long, Attempts: attempts(verdict.ClassTransport), Left: left(slices.Repeat([]reason.Code{reason.Unhealthy}, 21)...)}
	call.Attempts[0].Err = errors.New(long)
	text := call.Text()
	require.Contains(t, text, `service "`+long[:64]+`…"`)
	require.Contains(t, text, "after 1s: "+long[:300]+"…; ")
	require.Regexp(t, "; 16: unhealthy; and 4 more$", text, "sixteen are named, and the first was tried")
}

func TestCall_SkippedAreThoseLeftThatWereNotTried(t *testing.T) {
	t.Parallel()
	skipped := func(call failure.Call) (names []string) {
		for seen := range call.Skipped() {
			names = append(names, seen.Provider)
		}
		return names
	}
	require.Empty(t, skipped(failure.Call{Attempts: attempts(verdict.ClassTransport)}), "others could still be asked")
	all := failure.Call{Attempts: attempts(verdict.ClassTransport), Left: left(reason.Unhealthy, reason.Unhealthy, reason.Unhealthy)}
	require.Equal(t, []string{"1", "2"}, skipped(all))
	for range all.Skipped() {
		break
	}
}

func TestCall_VerdictIsOfWhatEndedItOrOfTheDecisiveAttempt(t *testing.T) {
	t.Parallel()
	of := func(ended []error, classes ...verdict.Class) verdict.Class {
		return (&failure.Call{Attempts: attempts(classes...), Ended: ended}).Verdict().Class
	}
	failed, wrong := verdict.ClassTransport, verdict.ClassBadRequest
	require.Equal(t, verdict.ClassCancelled, of([]error{context.Canceled}, failed))
	require.Equal(t, verdict.ClassCallerDeadline, of([]error{context.DeadlineExceeded}, wrong))
	require.Equal(t, failed, of(nil, verdict.ClassStalled, failed), "the last one")
	require.Equal(t, wrong, of(nil, wrong, failed), "it got an answer about the request")
	require.Equal(t, verdict.Verdict{}.Class, of(nil))

	asked := verdict.Verdict{Class: verdict.ClassOverloaded, After: time.Minute}
	call := failure.Call{Attempts: attempts(verdict.ClassOverloaded)}
	call.Attempts[0].Err = verdict.As(errDown, asked)
	require.Equal(t, time.Minute, call.Verdict().After, "with the delay that the server asks for")
}

func TestCall_CausesBeginWithWhatEndedItAndTheDecisiveError(t *testing.T) {
	t.Parallel()
	call := failure.Call{
		Attempts: attempts(verdict.ClassTransport, verdict.ClassBadRequest, verdict.ClassForgotten),
		Ended:    []error{errEnd}, Reasons: []error{errWrong}, Left: left(reason.Unhealthy, reason.Unhealthy, reason.Unhealthy, reason.Unhealthy),
	}
	call.Attempts[2].Err = nil // of an attempt that was forgotten
	causes := call.Causes()
	require.Len(t, causes, 5)
	require.Equal(t, []error{errEnd, call.Attempts[1].Err, errWrong, call.Attempts[0].Err}, causes[:4])
	require.ErrorIs(t, causes[4], errDown)
	require.ErrorContains(t, causes[4], "refused 3")
}

func TestCall_CausesAreErrors(t *testing.T) {
	t.Parallel()
	require.Empty(t, (&failure.Call{}).Causes(), "nothing was tried")
	one := failure.Call{Attempts: attempts(verdict.ClassTransport)}
	require.Equal(t, []error{one.Attempts[0].Err}, one.Causes())
	one.Attempts[0].Err = nil // of an attempt that was forgotten
	require.Empty(t, one.Causes())
}

func TestCall_CredentialsAreTheReasonWhereNothingElseIs(t *testing.T) {
	t.Parallel()
	fatal := attempts(verdict.ClassFatal, verdict.ClassFatal)
	parked, ill := left(reason.Parked, reason.Parked, reason.Parked, reason.CapabilityMissing), left(reason.Parked, reason.Parked, reason.Unhealthy)
	for name, row := range map[string]struct {
		call failure.Call
		want bool
	}{
		"all refuse":                     {failure.Call{Attempts: fatal}, true},
		"and the others are parked":      {failure.Call{Attempts: fatal, Left: parked}, true},
		"another one is ill":             {failure.Call{Attempts: fatal, Left: ill}, false},
		"another one could be asked":     {failure.Call{Attempts: fatal, Partial: true}, false},
		"the caller has ended the call":  {failure.Call{Attempts: fatal, Ended: []error{errEnd}}, false},
		"one has failed for another one": {failure.Call{Attempts: attempts(verdict.ClassFatal, verdict.ClassTransport)}, false},
		"nothing was tried":              {failure.Call{Left: parked}, false},
	} {
		require.Equal(t, row.want, row.call.Credentials(), name)
		if row.want {
			require.Contains(t, row.call.Text(), fault.ErrCredentials.Error(), name)
		}
	}
}

func TestCall_EndsEarlyUnlessItsOutcomeWasFinal(t *testing.T) {
	t.Parallel()
	require.True(t, (&failure.Call{Attempts: attempts(verdict.ClassTransport)}).EndedEarly())
	require.False(t, (&failure.Call{Attempts: attempts(verdict.ClassBadRequest)}).EndedEarly())
	require.False(t, (&failure.Call{Attempts: attempts(verdict.ClassTransport), Ended: []error{errEnd}}).EndedEarly())
	require.False(t, (&failure.Call{}).EndedEarly())
}
