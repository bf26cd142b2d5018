package verdict

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"database/sql/driver"
	"encoding/json"
	"io"
	"net"
	"syscall"
)

// Of classifies err by the first of these that applies, and among nested errors by the outermost:
//
//   - the marks of [As] and its shorthands, and errors with a method Verdict() Verdict;
//   - errors of the clients of HTTP APIs. They are known by methods and exported fields, such as
//     HTTPStatusCode, StatusCode, Response, Code, Type, RawJSON and RetryAfter, whatever package they
//     are of. A code or type that APIs of language models use decides, as [LLM] says; else
//     the status does, as [HTTP] says;
//   - errors with GRPCStatus(), as those of gRPC, by the reason and the delay in their details, else as [OfGRPCCode] says;
//   - the codes that JSON-RPC defines, and those of SQL, of errors with SQLState();
//   - timeouts, and errors of the network and of TLS;
//   - [sql.ErrNoRows] is the answer, and answers that are not the JSON that was expected are malformed;
//   - errors that say nothing but how long to wait, or whose type is RateLimitError or the like, are rate limits.
//
// A nil error is [ClassSuccess], an error that is not recognised [ClassUnknown]. So is one whose methods
// panic. The message is never read, and of a tree of errors only the first 64 are looked at.
func Of(err error) (v Verdict) {
	if err == nil {
		return Verdict{Class: ClassSuccess}
	}
	defer func() {
		if recover() != nil {
			v = Verdict{}
		}
	}()
	var t tree
	t.grow(err)
	if speaks, ok := find[interface{ Verdict() Verdict }](&t); ok {
		return speaks.Verdict()
	}
	f := t.facts()
	if v := f.verdict(); v.Class != ClassUnknown {
		return v
	}
	for _, node := range t.all() {
		if v, ok := ofGRPC(node); ok {
			return v
		}
	}
	if code, ok := t.rpcCode(); ok {
		return Verdict{Class: rpcClasses[code]}
	}
	if state, ok := find[interface{ SQLState() string }](&t); ok {
		return ofSQLState(state.SQLState())
	}
	switch {
	case t.isNotSent(): // also when the dial timed out
		return Verdict{Class: ClassNotSent}
	case t.is(context.DeadlineExceeded):
		// The registry checks the contexts first: neither the caller's nor the
		// attempt's has ended, so this is a timeout of the provider's own client.
		return Verdict{Class: ClassAttemptTimeout}
	case t.isTransport():
		return Verdict{Class: ClassTransport}
	case t.is(sql.ErrNoRows):
		return Verdict{Class: ClassResource}
	case has[*json.SyntaxError](&t) || has[*json.UnmarshalTypeError](&t) || f.named == ClassMalformed:
		return Verdict{Class: ClassMalformed}
	case f.wait(ClassOverloaded) > 0 && f.status == 0:
		return f.with(ClassRateLimited)
	}
	return Verdict{}
}

// isNotSent reports whether nothing was sent, such as where no connection was established.
func (t *tree) isNotSent() bool {
	if t.is(syscall.ECONNREFUSED, driver.ErrBadConn) {
		return true
	}
	if before, ok := find[interface{ SafeToRetry() bool }](t); ok && before.SafeToRetry() {
		return true // of a driver of a database
	}
	op, ok := find[*net.OpError](t)
	return ok && op.Op == "dial"
}

func (t *tree) isTransport() bool {
	return has[interface{ SafeToRetry() bool }](t) || // of a driver of a database: not safe
		t.is(io.ErrUnexpectedEOF, io.EOF, net.ErrClosed, syscall.ECONNRESET, syscall.EPIPE, io.ErrClosedPipe) ||
		has[net.Error](t) || has[tls.AlertError](t) || has[tls.RecordHeaderError](t) ||
		has[*tls.CertificateVerificationError](t) || has[x509.UnknownAuthorityError](t)
}
