package registrygrpc_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/capreg/registry"
	registrygrpc "github.com/capreg/registry/contrib/grpc"
	"github.com/capreg/registry/contrib/grpc/internal/wordspb"
	"github.com/capreg/registry/verdict"
)

func statusError(code codes.Code, message string) error { return status.Error(code, message) }

func TestStatusOf_SaysWhatAServerMayTell(t *testing.T) {
	t.Parallel()
	failed := func(class verdict.Class, err error) error {
		return &registry.CallError{Service: "words", Attempts: []registry.Attempt{{Provider: "a", Class: class, Err: err}}}
	}
	for _, c := range []struct {
		err  error
		want codes.Code
	}{
		{nil, codes.OK},
		{errors.New("own"), codes.Internal},
		{fmt.Errorf("around: %w", statusError(codes.FailedPrecondition, "own")), codes.FailedPrecondition},
		{context.DeadlineExceeded, codes.DeadlineExceeded},
		{context.Canceled, codes.Canceled},
		{&registry.UnavailableError{Service: "words"}, codes.Unavailable},
		{failed(verdict.ClassBadRequest, statusError(codes.OutOfRange, "x")), codes.OutOfRange},
		{failed(verdict.ClassResource, statusError(codes.NotFound, "x")), codes.NotFound},
		{failed(verdict.ClassBadRequest, errors.New("x")), codes.InvalidArgument},
		{failed(verdict.ClassTransport, statusError(codes.Unavailable, "x")), codes.Unavailable},
		{failed(verdict.ClassUnauthenticated, statusError(codes.Unauthenticated, "x")), codes.Unavailable},
		{failed(verdict.ClassRateLimited, statusError(codes.ResourceExhausted, "x")), codes.ResourceExhausted},
		{failed(verdict.ClassAttemptTimeout, statusError(codes.DeadlineExceeded, "x")), codes.DeadlineExceeded},
	} {
		s := registrygrpc.StatusOf(c.err)
		require.Equal(t, c.want, s.Code(), "%v", c.err)
		var call *registry.CallError
		if errors.As(c.err, &call) {
			require.NotContains(t, s.Message(), "x", "nothing of the provider's")
		}
	}
}

func TestStatusOf_TellsWhenToComeBack(t *testing.T) {
	t.Parallel()
	for in, want := range map[time.Duration]time.Duration{time.Second: time.Second, time.Hour: time.Minute} {
		details := registrygrpc.StatusOf(&registry.UnavailableError{Service: "words", RetryIn: in}).Details()
		require.Len(t, details, 1)
		retry, ok := details[0].(*errdetails.RetryInfo)
		require.True(t, ok)
		require.Equal(t, want, retry.GetRetryDelay().AsDuration())
	}
}

func TestStatusOf_HidesWhatTheProviderOfAStreamSays(t *testing.T) {
	t.Parallel()
	for code, want := range map[codes.Code]codes.Code{
		codes.PermissionDenied: codes.Unavailable, codes.NotFound: codes.NotFound, codes.ResourceExhausted: codes.ResourceExhausted,
	} {
		cut := &server{}
		cut.spell = func(request *wordspb.SayRequest, stream spelling) error {
			return errors.Join(stream.Send(cut.reply(request.GetWord())), nil, statusError(code, "secret"))
		}
		s := with(t, cut)
		stream, err := s.client(registrygrpc.Options{}).Spell(t.Context(), word("x"))
		require.NoError(t, err)
		_, _, err = drain(stream)
		require.Equal(t, code, status.Code(err))
		told := registrygrpc.StatusOf(err)
		require.Equal(t, want, told.Code())
		require.NotContains(t, told.Message(), "secret")
	}
}
