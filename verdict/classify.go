package verdict

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/capreg/registry/internal/errtree"
)

// marked is an error with an explicit verdict.
type marked struct {
	error

	verdict Verdict
}

func (m *marked) Unwrap() error { return m.error }

func (m *marked) Verdict() Verdict { return m.verdict }

// As wraps err with the verdict v, which every classification of the result returns. The result
// wraps err and has its text. A nil err stays nil.
func As(err error, v Verdict) error {
	if err == nil {
		return nil
	}
	return &marked{error: err, verdict: v}
}

// Stated returns the verdict that [As] or one of its shorthands gave to err. It reports false
// when there is none, or when an error around the mark has a verdict of its own.
func Stated(err error) (v Verdict, stated bool) {
	var speaks interface{ Verdict() Verdict }
	if !errors.As(errtree.Bound(err), &speaks) {
		return Verdict{}, false
	}
	mark, stated := speaks.(*marked)
	if !stated {
		return Verdict{}, false
	}
	return mark.verdict, true
}

// NotSent marks err as one of a request that certainly never reached the provider, so that even
// a once-only call may go to the next one. A nil err stays nil.
func NotSent(err error) error { return As(err, Verdict{Class: ClassNotSent}) }

// Permanent marks err as the fault of the caller's request: the call ends with this error and
// the provider is not blamed. A nil err stays nil.
func Permanent(err error) error { return As(err, Verdict{Class: ClassBadRequest}) }

// RateLimited marks err as a request of the provider to be left alone for the given time; zero
// or less leaves the time to the registry. A nil err stays nil.
func RateLimited(err error, after time.Duration) error {
	return As(err, Verdict{Class: ClassRateLimited, After: max(after, 0)})
}

// Fatal marks err as a failure that only an operator can fix (credentials, quota, billing): the
// provider is parked for the given time. Zero or less leaves the time to the registry: minutes,
// growing. A nil err stays nil.
func Fatal(err error, parkFor time.Duration) error {
	return As(err, Verdict{Class: ClassFatal, After: max(parkFor, 0)})
}

// Ignore marks err as saying nothing about the provider; it ends the call, and the breaker
// records neither success nor failure. A nil err stays nil.
func Ignore(err error) error { return As(err, Verdict{Class: ClassIgnored}) }

// Of classifies err by the first of these that applies, and among nested errors by the outermost:
//
//   - the marks of [As] and its shorthands, and errors with a method Verdict() Verdict;
//   - errors with HTTPStatusCode() int, and RetryAfter() time.Duration where they have it: see
//     [OfHTTPStatus];
//   - errors with GRPCStatus(), as those of gRPC: see [OfGRPCCode];
//   - timeouts, and errors of the network and of TLS.
//
// A nil error is [ClassSuccess], an error that is not recognised [ClassUnknown].
func Of(err error) Verdict {
	if err == nil {
		return Verdict{Class: ClassSuccess}
	}
	err = errtree.Bound(err)
	var speaks interface{ Verdict() Verdict }
	if errors.As(err, &speaks) {
		return speaks.Verdict()
	}
	var status interface{ HTTPStatusCode() int }
	if errors.As(err, &status) {
		var delay interface{ RetryAfter() time.Duration }
		var after time.Duration
		if errors.As(err, &delay) {
			after = max(delay.RetryAfter(), 0)
		}
		if v := OfHTTPStatus(status.HTTPStatusCode(), after); v.Class != ClassUnknown {
			return v
		}
	}
	if code, ok := grpcCode(err); ok {
		return OfGRPCCode(code)
	}
	switch {
	case isDialRefused(err): // also when the dial timed out
		return Verdict{Class: ClassNotSent}
	case errors.Is(err, context.DeadlineExceeded):
		// The registry checks the contexts first: neither the caller's nor the
		// attempt's has ended, so this is a timeout of the provider's own client.
		return Verdict{Class: ClassAttemptTimeout}
	case isTransport(err):
		return Verdict{Class: ClassTransport}
	}
	return Verdict{}
}

// OfHTTPStatus classifies an HTTP status code and the delay of its Retry-After header, zero
// without one. A code below 400 is [ClassUnknown].
func OfHTTPStatus(code int, retryAfter time.Duration) Verdict {
	switch {
	case code == http.StatusTooManyRequests:
		return Verdict{Class: ClassRateLimited, After: retryAfter}
	case code == http.StatusServiceUnavailable && retryAfter > 0, code == 529:
		return Verdict{Class: ClassOverloaded, After: retryAfter}
	case code == http.StatusServiceUnavailable:
		return Verdict{Class: ClassUnavailable}
	case code == http.StatusRequestTimeout, code >= 500 && code <= 599:
		return Verdict{Class: ClassServerError, After: retryAfter}
	case code == http.StatusUnauthorized, code == http.StatusPaymentRequired, code == http.StatusForbidden:
		return Verdict{Class: ClassFatal, After: retryAfter}
	case code == http.StatusNotFound:
		return Verdict{Class: ClassNotFound, After: retryAfter}
	case code == http.StatusRequestEntityTooLarge:
		return Verdict{Class: ClassTooLong}
	case code >= 400 && code <= 499:
		return Verdict{Class: ClassBadRequest}
	}
	return Verdict{}
}

// OfGRPCCode classifies a gRPC status code; OK and Canceled are [ClassUnknown].
func OfGRPCCode(code uint32) Verdict {
	classes := [...]Class{
		3:  ClassBadRequest,     // InvalidArgument
		4:  ClassAttemptTimeout, // DeadlineExceeded
		5:  ClassNotFound,
		6:  ClassBadRequest, // AlreadyExists
		7:  ClassFatal,      // PermissionDenied
		8:  ClassRateLimited,
		9:  ClassBadRequest, // FailedPrecondition
		10: ClassServerError,
		11: ClassBadRequest, // OutOfRange
		12: ClassNotFound,   // Unimplemented
		13: ClassServerError,
		14: ClassTransport, // Unavailable
		15: ClassMalformed, // DataLoss
		16: ClassFatal,     // Unauthenticated
	}
	if int(code) < len(classes) {
		return Verdict{Class: classes[code]}
	}
	return Verdict{}
}

// grpcCode reads the code of an error with GRPCStatus() *status.Status, without
// importing gRPC for its type.
func grpcCode(err error) (uint32, bool) {
	if err == nil {
		return 0, false
	}
	if code, ok := ownGRPCCode(err); ok {
		return code, true
	}
	switch wrapper := err.(type) { //nolint:errorlint // this visits the whole tree
	case interface{ Unwrap() error }:
		return grpcCode(wrapper.Unwrap())
	case interface{ Unwrap() []error }:
		for _, wrapped := range wrapper.Unwrap() {
			if code, ok := grpcCode(wrapped); ok {
				return code, true
			}
		}
	}
	return 0, false
}

func ownGRPCCode(err error) (uint32, bool) {
	method := reflect.ValueOf(err).MethodByName("GRPCStatus")
	if !method.IsValid() || method.Type().NumIn() != 0 || method.Type().NumOut() != 1 {
		return 0, false
	}
	status := method.Call(nil)[0]
	if kind := status.Kind(); (kind == reflect.Interface || kind == reflect.Pointer) && status.IsNil() {
		return 0, false
	}
	code := status.MethodByName("Code")
	if !code.IsValid() || code.Type().NumIn() != 0 || code.Type().NumOut() != 1 || code.Type().Out(0).Kind() != reflect.Uint32 {
		return 0, false
	}
	return uint32(code.Call(nil)[0].Uint()), true //nolint:gosec // its kind is uint32
}

// RetryAfter parses the value of a Retry-After header in both its forms, seconds and an HTTP
// date. It returns zero for any other value and for a time that has passed.
func RetryAfter(header string) time.Duration {
	header = strings.TrimSpace(header)
	if seconds, err := strconv.ParseFloat(header, 64); err == nil {
		if !(seconds > 0) {
			return 0
		}
		return time.Duration(min(seconds, longestDelay.Seconds()) * float64(time.Second))
	}
	if date, err := http.ParseTime(header); err == nil {
		return min(max(time.Until(date), 0), longestDelay)
	}
	return 0
}

// longestDelay bounds the delay that a server can ask for in a header.
const longestDelay = 10 * 365 * 24 * time.Hour

// isDialRefused reports whether no connection was established, so that nothing was sent.
func isDialRefused(err error) bool {
	if errors.Is(err, syscall.ECONNREFUSED) {
		return true
	}
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

func isTransport(err error) bool {
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, io.ErrClosedPipe) {
		return true
	}
	var network net.Error
	var alert tls.AlertError
	var record tls.RecordHeaderError
	var verification *tls.CertificateVerificationError
	var authority x509.UnknownAuthorityError
	return errors.As(err, &network) || errors.As(err, &alert) || errors.As(err, &record) ||
		errors.As(err, &verification) || errors.As(err, &authority)
}
