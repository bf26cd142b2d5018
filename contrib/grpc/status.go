package registrygrpc

import (
	"errors"
	"net/http"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/capreg/registry"
	"github.com/capreg/registry/registryhttp"
	"github.com/capreg/registry/verdict"
)

// longestRetryInfo bounds the delay that clients are told.
const longestRetryInfo = time.Minute

// StatusOf returns the status with which a server answers an error, as [registryhttp.ProblemOf] says it in HTTP. Of a call
// of a registry it tells nothing that a provider has said, and names none:
//
//	DeadlineExceeded   its time was over, or the providers' was
//	Canceled           the client has left
//	ResourceExhausted  the providers refuse, all for their rates
//	Unavailable        no provider is available, all are overloaded, have failed, or refuse this server's credentials
//	PermissionDenied   the caller is denied every provider
//	the provider's     the request was wrong, such as InvalidArgument and NotFound
//	Internal           any other error
//
// A RetryInfo tells when to come back, where that is known, at most one minute. Any other error with a status keeps it. A nil
// error is OK.
func StatusOf(err error) *status.Status {
	if err == nil {
		return nil
	}
	var call *registry.CallError
	var unavailable *registry.UnavailableError
	ofRegistry := errors.As(err, &call) || errors.As(err, &unavailable)
	if own := statusIn(err); own != nil && !ofRegistry {
		return hide(err, own)
	}
	p := registryhttp.ProblemOf(err)
	s := status.New(codeOf(p.Status, call), p.Detail)
	if p.RetryAfter > 0 {
		if detailed, err := s.WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(min(p.RetryAfter, longestRetryInfo))}); err == nil {
			return detailed
		}
	}
	return s
}

// hide returns the status of an error, without what a provider has said where it is that of a stream over a [Conn].
func hide(err error, own *status.Status) *status.Status {
	var ofStream *rpcError
	if !errors.As(err, &ofStream) {
		return own
	}
	class := verdict.Of(ofStream.err).Class
	switch code := own.Code(); {
	case class.Rule().Blame == verdict.BlameSuccess, code == codes.Canceled, code == codes.DeadlineExceeded, code == codes.ResourceExhausted:
		return status.New(code, class.String())
	}
	return status.New(codes.Unavailable, "the providers have failed")
}

// ofHTTP has the codes for HTTP statuses; for the rest of 4xx it is InvalidArgument.
//
//nolint:gochecknoglobals // immutable data
var ofHTTP = map[int]codes.Code{
	http.StatusGatewayTimeout:      codes.DeadlineExceeded,
	499:                            codes.Canceled, // the client has left
	http.StatusForbidden:           codes.PermissionDenied,
	http.StatusNotFound:            codes.NotFound,
	http.StatusPreconditionFailed:  codes.FailedPrecondition,
	http.StatusTooManyRequests:     codes.ResourceExhausted,
	http.StatusServiceUnavailable:  codes.Unavailable,
	http.StatusBadGateway:          codes.Unavailable,
	http.StatusInternalServerError: codes.Internal,
}

// codeOf returns the code for an HTTP status, or that of the provider where the error is about the request.
func codeOf(httpStatus int, call *registry.CallError) codes.Code {
	if call != nil && len(call.Attempts) > 0 {
		last := call.Attempts[len(call.Attempts)-1]
		if s := statusIn(last.Err); s != nil && last.Class.Rule().Blame == verdict.BlameSuccess {
			return s.Code()
		}
	}
	if code, ok := ofHTTP[httpStatus]; ok {
		return code
	}
	return codes.InvalidArgument
}
