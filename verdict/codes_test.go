package verdict_test

import (
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/verdict"
)

// detailedStatus has the shape of *status.Status of google.golang.org/grpc, with details.
type detailedStatus struct {
	code    grpcCode
	details []any
}

func (s *detailedStatus) Code() grpcCode { return s.code }
func (s *detailedStatus) Details() []any { return s.details }

type detailedError struct{ status *detailedStatus }

func (e *detailedError) Error() string               { return "rpc error" }
func (e *detailedError) GRPCStatus() *detailedStatus { return e.status }

// retryInfo, protoDuration and errorInfo have the methods of the messages of those names.
type retryInfo struct{ delay *protoDuration }

func (r *retryInfo) GetRetryDelay() *protoDuration { return r.delay }

type protoDuration struct{ d time.Duration }

func (d *protoDuration) AsDuration() time.Duration { return d.d }

type errorInfo struct{ reason string }

func (e *errorInfo) GetReason() string { return e.reason }

// otherInfo has methods of those names and other shapes.
type otherInfo struct{}

func (otherInfo) GetReason() int             { return 7 }
func (otherInfo) GetRetryDelay(int) struct{} { return struct{}{} }

func TestOf_ReadsDetailsOfGRPC(t *testing.T) {
	t.Parallel()
	wait := &retryInfo{&protoDuration{7 * time.Second}}
	for _, row := range []struct {
		code    grpcCode
		details []any
		want    verdict.Verdict
	}{
		{8, []any{wait}, verdict.Verdict{Class: verdict.ClassRateLimited, After: 7 * time.Second}},
		{14, []any{wait}, verdict.Verdict{Class: verdict.ClassOverloaded, After: 7 * time.Second}},
		{14, nil, verdict.Verdict{Class: verdict.ClassTransport}},
		{3, []any{wait}, verdict.Verdict{Class: verdict.ClassBadRequest}},
		{16, []any{&errorInfo{"API_KEY_INVALID"}}, verdict.Verdict{Class: verdict.ClassFatal}},
		{7, []any{&errorInfo{"RATE_LIMIT_EXCEEDED"}, wait}, verdict.Verdict{Class: verdict.ClassRateLimited, After: 7 * time.Second}},
		{13, []any{&errorInfo{"something of its own"}}, verdict.Verdict{Class: verdict.ClassServerError}},
		{8, []any{nil, otherInfo{}, 7, &retryInfo{}}, verdict.Verdict{Class: verdict.ClassRateLimited}},
	} {
		err := fmt.Errorf("call: %w", &detailedError{&detailedStatus{row.code, row.details}})
		require.Equal(t, row.want, verdict.Of(err), "%d %v", row.code, row.details)
	}
}

// wireError has the shape of errors of JSON-RPC; codedError that of clients that have a method instead.
type wireError struct {
	Code    int64
	Message string
}

func (e *wireError) Error() string { return e.Message }

type codedError int

func (e codedError) Error() string  { return "rpc" }
func (e codedError) ErrorCode() int { return int(e) }

func TestOf_ReadsCodesOfJSONRPC(t *testing.T) {
	t.Parallel()
	for code, want := range map[int64]verdict.Class{
		-32700: verdict.ClassBadRequest, -32600: verdict.ClassBadRequest, -32601: verdict.ClassElsewhere,
		-32602: verdict.ClassBadRequest, -32603: verdict.ClassServerError,
		-32000: verdict.ClassUnknown, -32005: verdict.ClassUnknown, 404: verdict.ClassUnknown, 0: verdict.ClassUnknown,
	} {
		require.Equal(t, want, verdict.Of(fmt.Errorf("call: %w", &wireError{Code: code})).Class, "%d", code)
		require.Equal(t, want, verdict.Of(errors.Join(errCause, codedError(code))).Class, "%d", code)
	}
}

// stateError has the method of drivers of SQL databases.
type stateError string

func (e stateError) Error() string    { return "database" }
func (e stateError) SQLState() string { return string(e) }

func TestOf_ReadsCodesOfSQL(t *testing.T) {
	t.Parallel()
	for state, want := range map[stateError]verdict.Class{
		"02000": verdict.ClassResource, "08006": verdict.ClassTransport, "0A000": verdict.ClassElsewhere,
		"21000": verdict.ClassBadRequest, "22P02": verdict.ClassBadRequest, "23505": verdict.ClassResource,
		"25001": verdict.ClassBadRequest, "25006": verdict.ClassNotForMe, "26000": verdict.ClassBadRequest,
		"28P01": verdict.ClassUnauthenticated, "34000": verdict.ClassBadRequest, "3D000": verdict.ClassNotFound,
		"40001": verdict.ClassElsewhere, "40P01": verdict.ClassElsewhere, "40003": verdict.ClassTransport,
		"42601": verdict.ClassBadRequest, "42501": verdict.ClassNotAllowed, "53300": verdict.ClassOverloaded,
		"54000": verdict.ClassBadRequest, "55P03": verdict.ClassResource, "57014": verdict.ClassAttemptTimeout,
		"57P01": verdict.ClassTransport, "57P02": verdict.ClassTransport, "57P03": verdict.ClassNotSent,
		"57P05": verdict.ClassTransport, "58030": verdict.ClassServerError, "P0001": verdict.ClassResource,
		"XX000": verdict.ClassServerError,
		"57000": verdict.ClassUnknown, "HY000": verdict.ClassUnknown, "": verdict.ClassUnknown, "23": verdict.ClassResource, "233": verdict.ClassUnknown,
	} {
		require.Equal(t, verdict.Verdict{Class: want}, verdict.Of(fmt.Errorf("query: %w", state)), "%q", string(state))
	}
}

// connectionError has the method of errors of connections to databases.
type connectionError bool

func (e connectionError) Error() string     { return "connection" }
func (e connectionError) SafeToRetry() bool { return bool(e) }

func TestOf_KnowsWhetherADatabaseGotTheQuery(t *testing.T) {
	t.Parallel()
	require.Equal(t, verdict.ClassNotSent, verdict.Of(connectionError(true)).Class)
	require.Equal(t, verdict.ClassTransport, verdict.Of(connectionError(false)).Class)
	require.Equal(t, verdict.ClassNotSent, verdict.Of(fmt.Errorf("query: %w", driver.ErrBadConn)).Class)
	require.Equal(t, verdict.ClassResource, verdict.Of(fmt.Errorf("query: %w", sql.ErrNoRows)).Class)
}
