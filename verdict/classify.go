package verdict

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"reflect"
	"syscall"
)

// Of classifies err by the first of these that applies, and among nested errors by the outermost:
//
//   - the marks of [As] and its shorthands, and errors with a method Verdict() Verdict;
//   - errors of the clients of HTTP APIs. They are known by methods and exported fields, such as
//     HTTPStatusCode, StatusCode, Response, Code, Type, RawJSON and RetryAfter, whatever package they
//     are of. A code or type that APIs of language models use decides, as [LLM] says; else
//     the status does, as [HTTP] says;
//   - errors with GRPCStatus(), as those of gRPC: see [OfGRPCCode];
//   - timeouts, and errors of the network and of TLS;
//   - errors that say nothing but how long to wait are rate limits.
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
		if code, ok := grpcCode(node); ok {
			return OfGRPCCode(code)
		}
	}
	switch {
	case t.isDialRefused(): // also when the dial timed out
		return Verdict{Class: ClassNotSent}
	case t.is(context.DeadlineExceeded):
		// The registry checks the contexts first: neither the caller's nor the
		// attempt's has ended, so this is a timeout of the provider's own client.
		return Verdict{Class: ClassAttemptTimeout}
	case t.isTransport():
		return Verdict{Class: ClassTransport}
	case f.after > 0 && f.status == 0:
		return Verdict{Class: ClassRateLimited, After: f.after}
	}
	return Verdict{}
}

// grpcCode reads the code of an error with GRPCStatus() *status.Status, without
// importing gRPC for its type.
func grpcCode(err error) (uint32, bool) {
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

// isDialRefused reports whether no connection was established, so that nothing was sent.
func (t *tree) isDialRefused() bool {
	if t.is(syscall.ECONNREFUSED) {
		return true
	}
	op, ok := find[*net.OpError](t)
	return ok && op.Op == "dial"
}

func (t *tree) isTransport() bool {
	return t.is(io.ErrUnexpectedEOF, io.EOF, net.ErrClosed, syscall.ECONNRESET, syscall.EPIPE, io.ErrClosedPipe) ||
		has[net.Error](t) || has[tls.AlertError](t) || has[tls.RecordHeaderError](t) ||
		has[*tls.CertificateVerificationError](t) || has[x509.UnknownAuthorityError](t)
}
