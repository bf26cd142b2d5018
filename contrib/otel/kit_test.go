package registryotel_test

import (
	"context"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	api "go.opentelemetry.io/otel/trace"

	"github.com/capreg/registry"
	registryotel "github.com/capreg/registry/contrib/otel"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/verdict"
)

// recorded keeps the spans of a registry in memory.
type recorded struct {
	spans    *tracetest.InMemoryExporter
	provider *trace.TracerProvider
	tracer   api.Tracer // of the program
}

func record(options ...trace.TracerProviderOption) *recorded {
	spans := tracetest.NewInMemoryExporter()
	provider := trace.NewTracerProvider(append([]trace.TracerProviderOption{trace.WithSyncer(spans)}, options...)...)
	return &recorded{spans, provider, provider.Tracer("program")}
}

// bubble runs a test in virtual time, with a registry whose calls are traced.
func bubble(t *testing.T, options registry.Options, test func(t *testing.T, reg *registry.Registry, r *recorded)) {
	t.Helper()
	r := record()
	testkit.Bubble(t, options, func(t *testing.T, reg *registry.Registry) {
		observer, err := registryotel.Observe(reg, registryotel.Options{TracerProvider: r.provider})
		require.NoError(t, err)
		test(t, reg, r)
		require.NoError(t, observer.Close(t.Context()))
	})
}

// failsAs returns an error of that class.
func failsAs(class verdict.Class) error {
	return verdict.As(testkit.ErrDown, verdict.Verdict{Class: class})
}

// ask asks a model, with a span of the model's own client.
func (r *recorded) ask(ctx context.Context, m testkit.ChatModel) (string, error) {
	ctx, span := r.tracer.Start(ctx, "client")
	defer span.End()
	return m.Chat(ctx, "")
}

// tree returns the spans as lines, each below its parent, in the order of their beginnings. Attributes are in the order of
// their names, without those that all have.
func (r *recorded) tree() []string {
	spans := r.spans.GetSpans()
	r.spans.Reset()
	below := make(map[api.SpanID][]tracetest.SpanStub)
	ids := make(map[api.SpanID]string)
	for _, s := range spans {
		ids[s.SpanContext.SpanID()] = s.Name
	}
	for _, s := range spans {
		parent := s.Parent.SpanID()
		if ids[parent] == "" {
			parent = api.SpanID{}
		}
		below[parent] = append(below[parent], s)
	}
	var lines []string
	var list func(parent api.SpanID, indent string)
	list = func(parent api.SpanID, indent string) {
		slices.SortStableFunc(below[parent], func(a, b tracetest.SpanStub) int { return a.StartTime.Compare(b.StartTime) })
		for _, s := range below[parent] {
			lines = append(lines, indent+line(s, ids))
			list(s.SpanContext.SpanID(), indent+"  ")
		}
	}
	list(api.SpanID{}, "")
	return lines
}

func line(s tracetest.SpanStub, ids map[api.SpanID]string) string {
	attributes := make(map[string]string)
	for _, a := range s.Attributes {
		name := strings.TrimPrefix(string(a.Key), "registry.")
		attributes[name] = a.Value.String()
	}
	delete(attributes, "service.name")
	if strings.HasSuffix(attributes["attempt.delay"], "e-09") { // of a retry at once
		delete(attributes, "attempt.delay")
	}
	words := []string{s.Name}
	for _, name := range slices.Sorted(maps.Keys(attributes)) {
		words = append(words, name+"="+attributes[name])
	}
	for _, l := range s.Links {
		words = append(words, "linked to "+ids[l.SpanContext.SpanID()])
	}
	if s.Status.Code == codes.Error {
		words = append(words, "ERROR")
	}
	return strings.Join(words, " ")
}
