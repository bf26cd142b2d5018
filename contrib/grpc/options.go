package registrygrpc

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/capreg/registry"
	"github.com/capreg/registry/registryhttp"
)

// The keys of gRPC metadata by which [Options.Propagate] and the interceptors of servers pass on what belongs to an RPC.
// The deadline has a field of its own in gRPC.
const (
	// KeyCorrelation has the identifier that the log lines of one request share.
	KeyCorrelation = "x-request-id"
	// KeyTraceParent and KeyTraceState have the place in a trace, as W3C Trace Context defines them.
	KeyTraceParent = "traceparent"
	KeyTraceState  = "tracestate"
)

const (
	defaultTimeout   = 24 * time.Hour
	defaultMaxReplay = 1 << 20
	// messageOverhead counts for each message that is kept, so that empty ones are bounded as well.
	messageOverhead = 64
)

// Options configure a [Conn]. The zero value of each field is its default.
type Options struct {
	// Call are options of each RPC, such as [registry.WaitForCooldown]; see [With] for those of one. Default: none.
	Call []registry.CallOption
	// Propagate sends the correlation and the trace of the attempt's context ([registryhttp.WithMetadata]) with each RPC
	// that has no such metadata: for servers of one's own. A place in a trace that a hook has given the attempt, as
	// contrib/otel does, replaces that of the RPC. Default: they are not sent.
	Propagate bool
	// FirstTimeout bounds a read of the first message of a stream. Default: none, as streams may be silent; where the
	// client has sent all and its deadline has to leave time for another provider, that bounds it, as an attempt of [registry.Call].
	FirstTimeout time.Duration
	// StallTimeout bounds each further read. Default: none.
	StallTimeout time.Duration
	// Timeout bounds a whole stream, instead of the provider's attempt timeout. After the first message its end says
	// nothing about the provider. Default: 24 h.
	Timeout time.Duration
	// MaxReplay bounds the bytes of messages that a stream keeps, to send them again. Default: 1 MiB; negative: none.
	MaxReplay int
}

func (o Options) withDefaults() (Options, error) {
	for _, field := range []struct {
		name  string
		value time.Duration
		usual string
	}{
		{"Options.FirstTimeout", o.FirstTimeout, "none"},
		{"Options.StallTimeout", o.StallTimeout, "none"},
		{"Options.Timeout", o.Timeout, defaultTimeout.String()},
	} {
		if field.value < 0 {
			return o, refuse(field.name, field.value, fmt.Sprintf("0 (default %s) or more", field.usual))
		}
	}
	if err := checkCall("Options.Call", o.Call); err != nil {
		return o, err
	}
	o.Timeout = cmp.Or(o.Timeout, defaultTimeout)
	o.MaxReplay = max(cmp.Or(o.MaxReplay, defaultMaxReplay), 0)
	return o, nil
}

// checkCall refuses what makes no sense for RPCs that run at once.
func checkCall(field string, options []registry.CallOption) error {
	for i, option := range options {
		if option.IsReportTo() {
			return refuse(fmt.Sprintf("%s[%d]", field, i), option, "options that make sense for RPCs at once")
		}
	}
	return nil
}

func refuse(field string, value any, bound string) error {
	return &registry.FieldError{Field: field, Value: fmt.Sprint(value), Bound: bound, Err: registry.ErrInvalid}
}

// callOption is an option of an RPC that only a Conn reads.
type callOption struct {
	grpc.EmptyCallOption

	options []registry.CallOption
}

// With returns an option of one RPC over a [Conn], such as With([registry.OnceOnly]()) for an RPC with side
// effects. Other connections ignore it.
func With(options ...registry.CallOption) grpc.CallOption { return callOption{options: options} }

// rpc holds what belongs to all attempts of one RPC.
type rpc struct {
	client    context.Context //nolint:containedctx // as it was given
	propagate bool
	method    string
	call      []registry.CallOption
	options   []grpc.CallOption // of each attempt
	finished  []func(error)
}

// newRPC sorts the options of an RPC: those of the registry, those of each attempt, and those for its end.
func newRPC(ctx context.Context, own Options, method string, options []grpc.CallOption) *rpc {
	r := &rpc{client: ctx, propagate: own.Propagate, method: method, call: slices.Clip(own.Call)}
	if caller := registryhttp.MetadataOf(ctx).Caller; caller != "" {
		r.call = append(r.call, registry.Caller(caller))
	}
	r.options = make([]grpc.CallOption, 0, len(options)+3)
	for _, option := range options {
		switch o := option.(type) {
		case callOption:
			r.call = append(r.call, o.options...)
		case grpc.OnFinishCallOption:
			r.finished = append(r.finished, o.OnFinish)
		default:
			r.options = append(r.options, option)
		}
	}
	return r
}

// reset clears what the attempt before has left for the client.
func (r *rpc) reset() {
	for _, option := range r.options {
		switch o := option.(type) {
		case grpc.HeaderCallOption:
			*o.HeaderAddr = nil
		case grpc.TrailerCallOption:
			*o.TrailerAddr = nil
		case grpc.PeerCallOption:
			o.PeerAddr.Addr, o.PeerAddr.LocalAddr, o.PeerAddr.AuthInfo = nil, nil, nil
		}
	}
}

// finish tells the end of the RPC.
func (r *rpc) finish(err error) {
	for _, finished := range r.finished {
		finished(err)
	}
}

// outgoing adds the metadata of the context of an attempt to those of the RPC that lack them. A place in a trace that a
// hook has given the attempt replaces that of the RPC.
func (r *rpc) outgoing(ctx context.Context) context.Context {
	if !r.propagate {
		return ctx
	}
	m := registryhttp.MetadataOf(ctx)
	has, _ := metadata.FromOutgoingContext(ctx) // a copy
	if m.TraceParent != registryhttp.MetadataOf(r.client).TraceParent {
		has.Delete(KeyTraceParent)
		has.Delete(KeyTraceState)
		ctx = metadata.NewOutgoingContext(ctx, has)
	}
	var more []string
	if m.Correlation != "" && len(has.Get(KeyCorrelation)) == 0 {
		more = append(more, KeyCorrelation, m.Correlation)
	}
	if m.TraceParent != "" && len(has.Get(KeyTraceParent)) == 0 {
		more = append(more, KeyTraceParent, m.TraceParent)
		if m.TraceState != "" && len(has.Get(KeyTraceState)) == 0 {
			more = append(more, KeyTraceState, m.TraceState)
		}
	}
	if len(more) == 0 {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, more...)
}
