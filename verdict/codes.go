package verdict

import (
	"reflect"
	"time"
)

// grpcClasses has the classes of the gRPC status codes; OK and Canceled say nothing.
//
//nolint:gochecknoglobals // immutable data
var grpcClasses = [...]Class{
	3:  ClassBadRequest,      // InvalidArgument
	4:  ClassAttemptTimeout,  // DeadlineExceeded
	5:  ClassResource,        // NotFound
	6:  ClassResource,        // AlreadyExists
	7:  ClassNotAllowed,      // PermissionDenied
	8:  ClassRateLimited,     // ResourceExhausted
	9:  ClassResource,        // FailedPrecondition
	10: ClassServerError,     // Aborted
	11: ClassBadRequest,      // OutOfRange
	12: ClassElsewhere,       // Unimplemented
	13: ClassServerError,     // Internal
	14: ClassTransport,       // Unavailable
	15: ClassMalformed,       // DataLoss
	16: ClassUnauthenticated, // Unauthenticated
}

// OfGRPCCode classifies a gRPC status code; OK and Canceled are [ClassUnknown].
func OfGRPCCode(code uint32) Verdict {
	if uint64(code) < uint64(len(grpcClasses)) {
		return Verdict{Class: grpcClasses[code]}
	}
	return Verdict{}
}

// ofGRPC classifies an error with GRPCStatus() *status.Status, without importing gRPC for its type. A reason in the
// details says more than the code, and a server that is unavailable and tells for how long is overloaded.
func ofGRPC(err error) (v Verdict, ok bool) {
	status, ok := result(reflect.ValueOf(err).MethodByName("GRPCStatus"))
	if !ok || (status.Kind() == reflect.Interface || status.Kind() == reflect.Pointer) && status.IsNil() {
		return Verdict{}, false
	}
	code, ok := result(status.MethodByName("Code"))
	if !ok || code.Kind() != reflect.Uint32 {
		return Verdict{}, false
	}
	var f facts
	if details, ok := result(status.MethodByName("Details")); ok {
		f.readGRPCDetails(details)
	}
	if v, known := f.ofWords(); known {
		return v, true
	}
	class := OfGRPCCode(uint32(code.Uint())).Class //nolint:gosec // its kind is uint32
	if class == ClassTransport && f.body > 0 {
		class = ClassOverloaded
	}
	return f.with(class), true
}

// readGRPCDetails reads the reason of an ErrorInfo and the delay of a RetryInfo.
func (f *facts) readGRPCDetails(details reflect.Value) {
	if details.Kind() != reflect.Slice {
		return
	}
	for i := range min(details.Len(), treeSize) {
		detail := details.Index(i)
		if detail.Kind() == reflect.Interface {
			detail = detail.Elem()
		}
		if !detail.IsValid() { // a nil
			continue
		}
		if reason, ok := result(detail.MethodByName("GetReason")); ok && reason.Kind() == reflect.String {
			f.addWord(reason.String())
		}
		delay, ok := result(detail.MethodByName("GetRetryDelay"))
		if !ok || delay.Kind() != reflect.Pointer || delay.IsNil() {
			continue
		}
		if after, ok := result(delay.MethodByName("AsDuration")); ok && after.Type() == typeDuration {
			f.setBodyDelay(min(time.Duration(after.Int()), longestDelay))
		}
	}
}

// result returns what a method without arguments returns; false where there is no such method. Methods are looked up by
// constant names: with any other a linker has to keep all methods of all types.
func result(method reflect.Value) (value reflect.Value, ok bool) {
	if !method.IsValid() || method.Type().NumIn() != 0 || method.Type().NumOut() != 1 {
		return value, false
	}
	return method.Call(nil)[0], true
}

// rpcClasses has the codes that JSON-RPC defines. Those of servers mean something else to each of them.
//
//nolint:gochecknoglobals // immutable data
var rpcClasses = map[int64]Class{
	-32700: ClassBadRequest,  // parse error
	-32600: ClassBadRequest,  // invalid request
	-32601: ClassElsewhere,   // no such method
	-32602: ClassBadRequest,  // invalid parameters
	-32603: ClassServerError, // internal error
}

// rpcCode returns the code of the outermost error that has one of JSON-RPC.
func (t *tree) rpcCode() (code int64, ok bool) {
	for _, node := range t.all() {
		value := reflect.ValueOf(node)
		if code, isMethod := result(value.MethodByName("ErrorCode")); isMethod && code.CanInt() {
			if _, ok := rpcClasses[code.Int()]; ok {
				return code.Int(), true
			}
		}
		s := shapeOf(value.Type())
		if value = reflect.Indirect(value); value.Kind() != reflect.Struct {
			continue
		}
		if field, ok := at(value, s.code); ok && field.CanInt() {
			if _, ok := rpcClasses[field.Int()]; ok {
				return field.Int(), true
			}
		}
	}
	return 0, false
}

// sqlStates has the classes of SQLSTATE: of codes, and of the two characters that group them. A constraint that is
// violated is the answer; so is a lock that is held.
//
//nolint:gochecknoglobals // immutable data
var sqlStates = map[string]Class{
	"02": ClassResource,        // no data
	"08": ClassTransport,       // connection
	"0A": ClassElsewhere,       // feature not supported
	"21": ClassBadRequest,      // cardinality
	"22": ClassBadRequest,      // data
	"23": ClassResource,        // constraint
	"25": ClassBadRequest,      // state of the transaction
	"26": ClassBadRequest,      // name of a statement
	"28": ClassUnauthenticated, // authorization
	"34": ClassBadRequest,      // name of a cursor
	"40": ClassElsewhere,       // rolled back: deadlock, serialization
	"42": ClassBadRequest,      // syntax, names
	"53": ClassOverloaded,      // resources, connections
	"54": ClassBadRequest,      // limits of a statement
	"55": ClassResource,        // state of an object
	"58": ClassServerError,     // system
	"P0": ClassResource,        // raised by a procedure
	"XX": ClassServerError,     // internal

	"25006": ClassNotForMe,       // read-only: another one can write
	"40003": ClassTransport,      // not known whether it was rolled back
	"3D000": ClassNotFound,       // no such database
	"42501": ClassNotAllowed,     // no right
	"57014": ClassAttemptTimeout, // cancelled, by the server's own limit
	"57P01": ClassTransport,      // shut down
	"57P02": ClassTransport,      // crashed
	"57P03": ClassNotSent,        // not accepting connections yet
	"57P05": ClassTransport,      // idle for too long
}

// ofSQLState classifies a SQLSTATE; one that is not known is [ClassUnknown].
func ofSQLState(state string) Verdict {
	if class, ok := sqlStates[state]; ok {
		return Verdict{Class: class}
	}
	if len(state) == 5 {
		return Verdict{Class: sqlStates[state[:2]]}
	}
	return Verdict{}
}
