package verdict_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/capreg/registry/verdict"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errCause = errors.New("cause")

// The table, once more and independently: what users can rely on.
func TestRule_EveryClassHasARow(t *testing.T) {
	t.Parallel()
	type row struct {
		retry    verdict.Retry
		next     verdict.Next
		blame    verdict.Blame
		cooldown verdict.Cooldown
		tally    verdict.Tally
	}
	const (
		no, yes            = verdict.RetryNo, verdict.RetryYes
		stop, on           = verdict.NextNo, verdict.NextYes
		neutral            = verdict.BlameNeutral
		success, failure   = verdict.BlameSuccess, verdict.BlameFailure
		none               = verdict.CooldownNone
		succeeded, failed  = verdict.TallySuccess, verdict.TallyFailure
		ignored, wasLimted = verdict.TallyIgnored, verdict.TallyLimited
	)
	table := map[verdict.Class]row{
		verdict.ClassSuccess:        {no, stop, success, verdict.CooldownReset, succeeded},
		verdict.ClassSlow:           {no, stop, verdict.BlameWhenSlow, none, succeeded},
		verdict.ClassCancelled:      {no, stop, neutral, none, ignored},
		verdict.ClassCallerDeadline: {no, stop, verdict.BlameWhenLong, none, ignored},
		verdict.ClassCut:            {no, on, verdict.BlameWhenHanging, none, ignored},
		verdict.ClassAttemptTimeout: {no, on, failure, none, failed},
		verdict.ClassStalled:        {no, verdict.NextBeforeFirstItem, failure, none, failed},
		verdict.ClassNotSent:        {yes, verdict.NextAlways, failure, none, failed},
		verdict.ClassTransport:      {yes, on, failure, none, failed},
		verdict.ClassServerError:    {yes, on, failure, none, failed},
		verdict.ClassOverloaded:     {no, on, neutral, verdict.CooldownShort, wasLimted},
		verdict.ClassRateLimited:    {verdict.RetryWhenWaiting, on, neutral, verdict.CooldownAsked, wasLimted},
		verdict.ClassFatal:          {no, on, neutral, verdict.CooldownLong, wasLimted},
		verdict.ClassNotFound:       {no, on, neutral, verdict.CooldownModel, ignored},
		verdict.ClassTooLong:        {no, verdict.NextLargerWindow, success, none, succeeded},
		verdict.ClassRefused:        {no, verdict.NextWhenAllowed, success, none, succeeded},
		verdict.ClassBadRequest:     {no, stop, success, none, succeeded},
		verdict.ClassCannot:         {no, verdict.NextFree, verdict.BlameNotRecorded, none, verdict.TallyNone},
		verdict.ClassMalformed:      {no, verdict.NextBeforeFirstItem, failure, none, failed},
		verdict.ClassPanic:          {no, verdict.NextByOption, failure, none, failed},
		verdict.ClassExit:           {no, stop, failure, none, failed},
		verdict.ClassHedgeLoser:     {no, stop, neutral, none, ignored},
		verdict.ClassForgotten:      {no, stop, failure, none, failed},
		verdict.ClassUnavailable:    {no, on, failure, verdict.CooldownShort, failed},
		verdict.ClassRemoved:        {no, on, neutral, none, ignored},
		verdict.ClassIgnored:        {no, stop, neutral, none, ignored},
		verdict.ClassUnknown:        {yes, on, failure, none, failed},
	}
	require.Len(t, verdict.Classes(), len(table))
	for _, class := range verdict.Classes() {
		want := table[class]
		require.Equal(t, verdict.Rule{
			RetryHere: want.retry, Next: want.next, Blame: want.blame, Cooldown: want.cooldown, Tally: want.tally,
		}, class.Rule(), "%v", class)
	}
}

func TestClass_MarshalsAsItsName(t *testing.T) {
	t.Parallel()
	seen := make(map[string]bool)
	for _, class := range verdict.Classes() {
		text, err := json.Marshal(class)
		require.NoError(t, err)
		require.False(t, seen[string(text)], "%s names two classes", text)
		seen[string(text)] = true
		var back verdict.Class
		require.NoError(t, json.Unmarshal(text, &back))
		require.Equal(t, class, back)
	}
	var untouched verdict.Class
	require.Error(t, untouched.UnmarshalText([]byte("nonsense")))
	require.Equal(t, "class(200)", verdict.Class(200).String())
	require.Equal(t, verdict.ClassUnknown.Rule(), verdict.Class(200).Rule())
}

func TestOf_FindsMarksThroughAnyWrapping(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err  error
		want verdict.Verdict
	}{
		{verdict.NotSent(errCause), verdict.Verdict{Class: verdict.ClassNotSent}},
		{verdict.Permanent(errCause), verdict.Verdict{Class: verdict.ClassBadRequest}},
		{verdict.RateLimited(errCause, time.Second), verdict.Verdict{Class: verdict.ClassRateLimited, After: time.Second}},
		{verdict.RateLimited(errCause, -1), verdict.Verdict{Class: verdict.ClassRateLimited}},
		{verdict.Fatal(errCause, time.Hour), verdict.Verdict{Class: verdict.ClassFatal, After: time.Hour}},
		{verdict.Ignore(errCause), verdict.Verdict{Class: verdict.ClassIgnored}},
		{verdict.As(errCause, verdict.Verdict{Class: verdict.ClassTooLong}), verdict.Verdict{Class: verdict.ClassTooLong}},
	} {
		wrapped := fmt.Errorf("outer: %w", c.err)
		require.Equal(t, c.want, verdict.Of(wrapped))
		require.ErrorIs(t, wrapped, errCause)
		require.Equal(t, "outer: cause", wrapped.Error())
	}
	for _, nothing := range []error{
		verdict.NotSent(nil), verdict.Permanent(nil), verdict.RateLimited(nil, 1), verdict.Fatal(nil, 1), verdict.Ignore(nil),
	} {
		require.NoError(t, nothing)
	}
}

type status struct {
	code  int
	after time.Duration
}

func (s status) Error() string             { return "status" }
func (s status) HTTPStatusCode() int       { return s.code }
func (s status) RetryAfter() time.Duration { return s.after }

func TestOfHTTPStatus_Classes(t *testing.T) {
	t.Parallel()
	for code, want := range map[int]verdict.Verdict{
		400: {Class: verdict.ClassBadRequest}, 401: {Class: verdict.ClassFatal}, 402: {Class: verdict.ClassFatal},
		403: {Class: verdict.ClassFatal}, 404: {Class: verdict.ClassNotFound}, 408: {Class: verdict.ClassServerError},
		413: {Class: verdict.ClassTooLong}, 422: {Class: verdict.ClassBadRequest}, 429: {Class: verdict.ClassRateLimited},
		500: {Class: verdict.ClassServerError}, 502: {Class: verdict.ClassServerError},
		503: {Class: verdict.ClassUnavailable}, 504: {Class: verdict.ClassServerError},
		529: {Class: verdict.ClassOverloaded}, 599: {Class: verdict.ClassServerError},
		200: {}, 302: {}, 0: {}, -1: {}, 600: {},
	} {
		require.Equal(t, want, verdict.Of(fmt.Errorf("sdk: %w", status{code: code})), "%d", code)
	}
	for code, want := range map[int]verdict.Class{
		429: verdict.ClassRateLimited, 503: verdict.ClassOverloaded, 500: verdict.ClassServerError, 401: verdict.ClassFatal,
	} {
		require.Equal(t, verdict.Verdict{Class: want, After: 7 * time.Second},
			verdict.Of(status{code: code, after: 7 * time.Second}), "%d", code)
	}
	require.Zero(t, verdict.Of(status{code: 429, after: -time.Second}).After)
}

func TestOf_NetworkErrorsAreTransportOrNotSent(t *testing.T) {
	t.Parallel()
	for _, err := range []error{
		io.ErrUnexpectedEOF, io.EOF, net.ErrClosed, syscall.ECONNRESET, syscall.EPIPE, io.ErrClosedPipe,
		&net.OpError{Op: "read", Err: errCause}, tls.AlertError(40),
		tls.RecordHeaderError{},
		&tls.CertificateVerificationError{Err: errCause},
		x509.UnknownAuthorityError{},
	} {
		require.Equal(t, verdict.ClassTransport, verdict.Of(fmt.Errorf("client: %w", err)).Class, "%T", err)
	}
	for _, err := range []error{syscall.ECONNREFUSED, &net.OpError{Op: "dial", Err: errCause}} {
		require.Equal(t, verdict.ClassNotSent, verdict.Of(fmt.Errorf("client: %w", err)).Class, "%T", err)
	}
	require.Equal(t, verdict.ClassAttemptTimeout, verdict.Of(fmt.Errorf("client: %w", context.DeadlineExceeded)).Class)
	require.Equal(t, verdict.ClassUnknown, verdict.Of(errCause).Class)
	require.Equal(t, verdict.ClassSuccess, verdict.Of(nil).Class)
}

func TestOf_RecognisesRealSocketsThatRefuseOrBreak(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		connection, _, err := http.NewResponseController(w).Hijack()
		if err == nil {
			_ = connection.Close()
		}
	}))
	client := server.Client()
	get := func() error {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL, nil)
		require.NoError(t, err)
		response, err := client.Do(request)
		if err == nil {
			_ = response.Body.Close()
		}
		return err
	}
	require.Equal(t, verdict.ClassTransport, verdict.Of(get()).Class)
	server.Close()
	require.Equal(t, verdict.ClassNotSent, verdict.Of(get()).Class)
}

func TestRetryAfter_ParsesBothForms(t *testing.T) {
	t.Parallel()
	for header, want := range map[string]time.Duration{
		"7": 7 * time.Second, " 0.5 ": 500 * time.Millisecond, "0": 0, "-3": 0, "": 0, "soon": 0, "NaN": 0, "Inf": 10 * 365 * 24 * time.Hour,
		"1e300": 10 * 365 * 24 * time.Hour, "Mon, 02 Jan 2006 15:04:05 GMT": 0,
	} {
		require.Equal(t, want, verdict.RetryAfter(header), header)
	}
	synctest.Test(t, func(t *testing.T) {
		date := time.Now().Add(90 * time.Second).UTC().Format(http.TimeFormat)
		require.InDelta(t, 90*time.Second, verdict.RetryAfter(date), float64(time.Second))
	})
}

// grpcStatus has the shape of *status.Status of google.golang.org/grpc.
type grpcStatus struct{ code grpcCode }

type grpcCode uint32

func (s *grpcStatus) Code() grpcCode { return s.code }

// grpcError has the shape of its errors.
type grpcError struct{ status *grpcStatus }

func (e *grpcError) Error() string           { return "rpc error" }
func (e *grpcError) GRPCStatus() *grpcStatus { return e.status }

// otherError has a method of that name and another shape.
type otherError struct{}

func (otherError) Error() string             { return "other" }
func (otherError) GRPCStatus(int) (int, int) { return 0, 0 }

func TestOfGRPCCode_Classes(t *testing.T) {
	t.Parallel()
	for code, want := range map[grpcCode]verdict.Class{
		0: verdict.ClassUnknown, 1: verdict.ClassUnknown, 2: verdict.ClassUnknown, 3: verdict.ClassBadRequest,
		4: verdict.ClassAttemptTimeout, 5: verdict.ClassNotFound, 7: verdict.ClassFatal, 8: verdict.ClassRateLimited,
		13: verdict.ClassServerError, 14: verdict.ClassTransport, 15: verdict.ClassMalformed, 16: verdict.ClassFatal, 99: verdict.ClassUnknown,
	} {
		err := fmt.Errorf("call: %w", &grpcError{&grpcStatus{code}})
		require.Equal(t, verdict.Verdict{Class: want}, verdict.Of(err), "%d", code)
	}
	require.Equal(t, verdict.Verdict{}, verdict.Of(otherError{}))
}

type speaker struct{ error }

func (speaker) Verdict() verdict.Verdict { return verdict.Verdict{Class: verdict.ClassTooLong} }

func TestOf_PrefersTheOutermostVerdict(t *testing.T) {
	t.Parallel()
	inner := speaker{errCause}
	require.Equal(t, verdict.ClassTooLong, verdict.Of(fmt.Errorf("x: %w", inner)).Class)
	require.Equal(t, verdict.ClassFatal, verdict.Of(verdict.Fatal(inner, 0)).Class)
	require.Equal(t, verdict.ClassTooLong, verdict.Of(speaker{verdict.Fatal(errCause, 0)}).Class)
}

func TestOf_FindsGRPCCodesBehindJoinedErrors(t *testing.T) {
	t.Parallel()
	invalid := &grpcError{&grpcStatus{3}}
	for _, err := range []error{
		invalid, fmt.Errorf("%w: %w", errCause, invalid), errors.Join(errCause, invalid), fmt.Errorf("mine: %w", errors.Join(nil, invalid)),
	} {
		require.Equal(t, verdict.ClassBadRequest, verdict.Of(err).Class, err)
	}
}

func TestOf_DialTimeoutIsNotSent(t *testing.T) {
	t.Parallel()
	err := &net.OpError{Op: "dial", Net: "tcp", Err: context.DeadlineExceeded}
	require.Equal(t, verdict.ClassNotSent, verdict.Of(err).Class)
}

func TestStated_IgnoresVerdictsOfTheErrorItself(t *testing.T) {
	t.Parallel()
	marked := verdict.Permanent(errCause)
	for _, err := range []error{marked, fmt.Errorf("around: %w", marked), errors.Join(errCause, marked)} {
		v, stated := verdict.Stated(err)
		require.True(t, stated)
		require.Equal(t, verdict.ClassBadRequest, v.Class)
	}
	for _, err := range []error{nil, errCause, speaking{marked}} {
		_, stated := verdict.Stated(err)
		require.False(t, stated, err)
	}
}

// speaking says its own verdict, whatever it wraps.
type speaking struct{ error }

func (s speaking) Unwrap() error            { return s.error }
func (s speaking) Verdict() verdict.Verdict { return verdict.Verdict{} }
