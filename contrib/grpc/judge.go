package registrygrpc

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/capreg/registry"
	"github.com/capreg/registry/verdict"
)

const (
	// deadlineSlack bounds how much earlier than here a server may see that the time is over.
	deadlineSlack = 20 * time.Millisecond
	// usualLimit is the size of a message that servers refuse by default.
	usualLimit = 4 << 20
)

var (
	errPanicked = verdict.As(errors.New("registrygrpc: the connection has panicked"), verdict.Verdict{Class: verdict.ClassPanic})
	errNoStream = verdict.As(errors.New("registrygrpc: the connection returned neither a stream nor an error"),
		verdict.Verdict{Class: verdict.ClassMalformed})
)

// judge returns the error with what is known beyond its status:
//
//	the server sees the deadline a moment early   | as the end of the context, for which it waits
//	Unavailable, and there was never a stream     | not sent
//	ResourceExhausted, for the size of a message  | too long for it
//	Internal, for a message that has no encoding  | bad request
func (f *failure) judge() error {
	code := status.Code(f.err)
	switch {
	case f.ctx.Err() != nil:
		return f.err
	case code == codes.DeadlineExceeded:
		f.awaitDeadline()
	case code == codes.Unavailable && f.unsent:
		return verdict.NotSent(f.err)
	case code == codes.ResourceExhausted && f.ofGRPC && f.isOfSize():
		return verdict.As(f.err, verdict.Verdict{Class: verdict.ClassTooLong})
	case code == codes.Internal && f.ofGRPC && len(f.header)+len(f.trailer) == 0 && !encodes(f.request):
		return verdict.Permanent(f.err)
	}
	return f.err
}

// awaitDeadline waits for the end of the context where that is about to come, so that the provider is not blamed for
// the caller's deadline.
func (f *failure) awaitDeadline() {
	if deadline, bounded := f.ctx.Deadline(); bounded && time.Until(deadline) < deadlineSlack {
		<-f.ctx.Done()
	}
}

// isOfSize reports whether a status without details is about the size of a message, which the same code is for as for
// rates and quotas: such a request must not take a provider away from others. Where this client refuses a message, no
// answer has arrived, or one that has begun; a server answers with a trailer alone, mostly at its default limit.
func (f *failure) isOfSize() bool {
	if len(status.Convert(f.err).Proto().GetDetails()) > 0 {
		return false
	}
	if !f.unsent && (len(f.header) > 0 || len(f.trailer) == 0) {
		return true
	}
	message, ok := f.request.(proto.Message)
	return ok && proto.Size(message) > usualLimit
}

// encodes reports whether a message can be sent, as far as is known.
func encodes(message any) bool {
	m, ok := message.(proto.Message)
	if !ok {
		return true
	}
	_, err := proto.Marshal(m)
	return err == nil
}

// ofSend returns the error of a message that the client itself could not send.
func ofSend(err error) error {
	switch status.Code(err) {
	case codes.ResourceExhausted:
		return verdict.As(err, verdict.Verdict{Class: verdict.ClassTooLong})
	case codes.Internal:
		return verdict.Permanent(err)
	default:
		return err
	}
}

// rpcError is the error of an RPC: that of the registry, with a status for gRPC.
type rpcError struct {
	err    error
	status *status.Status
}

// Error returns the text of the registry's error, which names the providers.
func (e *rpcError) Error() string { return e.err.Error() }

// Unwrap returns the registry's error.
func (e *rpcError) Unwrap() error { return e.err }

// GRPCStatus returns the status.
func (e *rpcError) GRPCStatus() *status.Status { return e.status }

// conclude returns the error of an RPC for the client.
func conclude(ctx context.Context, err error) error {
	if err == nil || errors.Is(err, registry.ErrInvalid) && !hasStatus(err) {
		return err
	}
	return &rpcError{err, statusFor(ctx, err)}
}

func hasStatus(err error) bool { return statusIn(err) != nil }

// statusIn returns the status of the outermost error that has one; nil for none.
func statusIn(err error) *status.Status {
	var has interface{ GRPCStatus() *status.Status }
	if errors.As(err, &has) {
		return has.GRPCStatus()
	}
	return nil
}

// statusFor returns the status for the client itself: that of the last provider, as it was sent.
func statusFor(ctx context.Context, err error) *status.Status {
	var call *registry.CallError
	isCall := errors.As(err, &call)
	if !isCall || errors.Is(err, registry.ErrCredentials) {
		return StatusOf(err)
	}
	var last registry.Attempt
	if n := len(call.Attempts); n > 0 {
		last = call.Attempts[n-1]
	}
	if ctx.Err() != nil && (last.Err == nil || last.Class.Rule().Blame != verdict.BlameSuccess) {
		return status.FromContextError(ctx.Err())
	}
	if own := statusIn(last.Err); own != nil && own.Code() != codes.OK {
		return own
	}
	return StatusOf(err)
}

// withCause returns the error of a stream with why its context has ended, and what that means where it was a limit of
// this package.
func withCause(ctx context.Context, err error, cut bool) error {
	cause := context.Cause(ctx)
	if !errors.Is(err, cause) {
		err = fmt.Errorf("%w: %w", cause, err)
	}
	if !errors.Is(cause, ErrFirstMessage) && !errors.Is(cause, ErrStalled) {
		return err
	}
	class := verdict.ClassStalled
	if cut {
		class = verdict.ClassCut
	}
	return verdict.As(err, verdict.Verdict{Class: class})
}

// headerOf returns the header that has arrived.
func headerOf(ended interface{ Header() (metadata.MD, error) }) metadata.MD {
	header, _ := ended.Header()
	return header
}
