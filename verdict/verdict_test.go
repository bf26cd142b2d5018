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
	table := map[verdict.Class]verdict.Rule{
		verdict.ClassUnknown:         {verdict.RetryYes, verdict.NextYes, false, verdict.BlameFailure, verdict.CooldownNone, verdict.ScopeProvider, verdict.TallyFailure},
		verdict.ClassSuccess:         {verdict.RetryNo, verdict.NextNo, false, verdict.BlameSuccess, verdict.CooldownReset, verdict.ScopeDomain, verdict.TallySuccess},
		verdict.ClassSlow:            {verdict.RetryNo, verdict.NextNo, false, verdict.BlameWhenSlow, verdict.CooldownNone, verdict.ScopeProvider, verdict.TallySuccess},
		verdict.ClassCancelled:       {verdict.RetryNo, verdict.NextNo, false, verdict.BlameNeutral, verdict.CooldownNone, verdict.ScopeProvider, verdict.TallyIgnored},
		verdict.ClassCallerDeadline:  {verdict.RetryNo, verdict.NextNo, false, verdict.BlameWhenLong, verdict.CooldownNone, verdict.ScopeProvider, verdict.TallyIgnored},
		verdict.ClassCut:             {verdict.RetryNo, verdict.NextYes, false, verdict.BlameWhenHanging, verdict.CooldownNone, verdict.ScopeProvider, verdict.TallyIgnored},
		verdict.ClassAttemptTimeout:  {verdict.RetryNo, verdict.NextYes, false, verdict.BlameFailure, verdict.CooldownNone, verdict.ScopeProvider, verdict.TallyFailure},
		verdict.ClassStalled:         {verdict.RetryNo, verdict.NextBeforeFirstItem, false, verdict.BlameFailure, verdict.CooldownNone, verdict.ScopeProvider, verdict.TallyFailure},
		verdict.ClassNotSent:         {verdict.RetryYes, verdict.NextYes, true, verdict.BlameFailure, verdict.CooldownNone, verdict.ScopeProvider, verdict.TallyFailure},
		verdict.ClassTransport:       {verdict.RetryYes, verdict.NextYes, false, verdict.BlameFailure, verdict.CooldownNone, verdict.ScopeProvider, verdict.TallyFailure},
		verdict.ClassServerError:     {verdict.RetryYes, verdict.NextYes, false, verdict.BlameFailure, verdict.CooldownNone, verdict.ScopeProvider, verdict.TallyFailure},
		verdict.ClassOverloaded:      {verdict.RetryNo, verdict.NextYes, false, verdict.BlameNeutral, verdict.CooldownShort, verdict.ScopeProvider, verdict.TallyLimited},
		verdict.ClassRateLimited:     {verdict.RetryWhenWaiting, verdict.NextYes, true, verdict.BlameNeutral, verdict.CooldownAsked, verdict.ScopeDomain, verdict.TallyLimited},
		verdict.ClassFatal:           {verdict.RetryNo, verdict.NextYes, true, verdict.BlameNeutral, verdict.CooldownLong, verdict.ScopeDomain, verdict.TallyLimited},
		verdict.ClassUnauthenticated: {verdict.RetryNo, verdict.NextYes, true, verdict.BlameNeutral, verdict.CooldownThird, verdict.ScopeDomain, verdict.TallyLimited},
		verdict.ClassNotAllowed:      {verdict.RetryNo, verdict.NextYes, true, verdict.BlameNeutral, verdict.CooldownNone, verdict.ScopeProvider, verdict.TallyLimited},
		verdict.ClassNotFound:        {verdict.RetryNo, verdict.NextYes, true, verdict.BlameNeutral, verdict.CooldownModel, verdict.ScopeProvider, verdict.TallyIgnored},
		verdict.ClassResource:        {verdict.RetryNo, verdict.NextNo, false, verdict.BlameSuccess, verdict.CooldownNone, verdict.ScopeProvider, verdict.TallySuccess},
		verdict.ClassElsewhere:       {verdict.RetryYes, verdict.NextYes, true, verdict.BlameNeutral, verdict.CooldownNone, verdict.ScopeProvider, verdict.TallyIgnored},
		verdict.ClassTooLong:         {verdict.RetryNo, verdict.NextLargerWindow, true, verdict.BlameSuccess, verdict.CooldownNone, verdict.ScopeProvider, verdict.TallySuccess},
		verdict.ClassRefused:         {verdict.RetryNo, verdict.NextWhenAllowed, false, verdict.BlameSuccess, verdict.CooldownNone, verdict.ScopeProvider, verdict.TallySuccess},
		verdict.ClassBadRequest:      {verdict.RetryNo, verdict.NextNo, false, verdict.BlameSuccess, verdict.CooldownNone, verdict.ScopeProvider, verdict.TallySuccess},
		verdict.ClassUnsupported:     {verdict.RetryNo, verdict.NextYes, false, verdict.BlameSuccess, verdict.CooldownNone, verdict.ScopeProvider, verdict.TallySuccess},
		verdict.ClassNotForMe:        {verdict.RetryNo, verdict.NextYes, true, verdict.BlameNeutral, verdict.CooldownNone, verdict.ScopeProvider, verdict.TallyIgnored},
		verdict.ClassCannot:          {verdict.RetryNo, verdict.NextFree, true, verdict.BlameNotRecorded, verdict.CooldownNone, verdict.ScopeProvider, verdict.TallyNone},
		verdict.ClassMalformed:       {verdict.RetryNo, verdict.NextBeforeFirstItem, false, verdict.BlameFailure, verdict.CooldownNone, verdict.ScopeProvider, verdict.TallyFailure},
		verdict.ClassPanic:           {verdict.RetryNo, verdict.NextByOption, false, verdict.BlameFailure, verdict.CooldownNone, verdict.ScopeProvider, verdict.TallyFailure},
		verdict.ClassExit:            {verdict.RetryNo, verdict.NextNo, false, verdict.BlameFailure, verdict.CooldownNone, verdict.ScopeProvider, verdict.TallyFailure},
		verdict.ClassHedgeLoser:      {verdict.RetryNo, verdict.NextNo, false, verdict.BlameNeutral, verdict.CooldownNone, verdict.ScopeProvider, verdict.TallyIgnored},
		verdict.ClassForgotten:       {verdict.RetryNo, verdict.NextNo, false, verdict.BlameFailure, verdict.CooldownNone, verdict.ScopeProvider, verdict.TallyFailure},
		verdict.ClassRemoved:         {verdict.RetryNo, verdict.NextYes, false, verdict.BlameNeutral, verdict.CooldownNone, verdict.ScopeProvider, verdict.TallyIgnored},
		verdict.ClassIgnored:         {verdict.RetryNo, verdict.NextNo, false, verdict.BlameNeutral, verdict.CooldownNone, verdict.ScopeProvider, verdict.TallyIgnored},
	}
	require.Len(t, verdict.Classes(), len(table))
	for _, class := range verdict.Classes() {
		require.Equal(t, table[class], class.Rule(), "%v", class)
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
		{verdict.Cannot(errCause), verdict.Verdict{Class: verdict.ClassNotForMe}},
		{verdict.Ignore(errCause), verdict.Verdict{Class: verdict.ClassIgnored}},
		{verdict.As(errCause, verdict.Verdict{Class: verdict.ClassTooLong}), verdict.Verdict{Class: verdict.ClassTooLong}},
	} {
		wrapped := fmt.Errorf("outer: %w", c.err)
		require.Equal(t, c.want, verdict.Of(wrapped))
		require.ErrorIs(t, wrapped, errCause)
		require.Equal(t, "outer: cause", wrapped.Error())
	}
	for _, nothing := range []error{
		verdict.NotSent(nil), verdict.Permanent(nil), verdict.RateLimited(nil, 1), verdict.Fatal(nil, 1), verdict.Ignore(nil), verdict.Cannot(nil),
	} {
		require.NoError(t, nothing)
	}
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
		4: verdict.ClassAttemptTimeout, 5: verdict.ClassResource, 6: verdict.ClassResource, 7: verdict.ClassNotAllowed,
		8: verdict.ClassRateLimited, 9: verdict.ClassResource, 10: verdict.ClassServerError, 11: verdict.ClassBadRequest,
		12: verdict.ClassElsewhere, 13: verdict.ClassServerError, 14: verdict.ClassTransport, 15: verdict.ClassMalformed,
		16: verdict.ClassUnauthenticated, 99: verdict.ClassUnknown,
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

func TestScope_HasNames(t *testing.T) {
	t.Parallel()
	for scope, name := range map[verdict.Scope]string{
		verdict.ScopeDefault: "default", verdict.ScopeProvider: "provider", verdict.ScopeDomain: "domain",
	} {
		text, err := scope.MarshalText()
		require.NoError(t, err)
		require.Equal(t, name, string(text))
		var read verdict.Scope
		require.NoError(t, read.UnmarshalText(text))
		require.Equal(t, scope, read)
	}
	require.Equal(t, "scope(9)", verdict.Scope(9).String())
	var read verdict.Scope
	require.ErrorContains(t, read.UnmarshalText([]byte("town")), `scope is "town": want one of default, provider, domain`)
}
