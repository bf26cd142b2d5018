package registryotel_test

import (
	"compress/gzip"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/trace"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/capreg/registry"
	registryotel "github.com/capreg/registry/contrib/otel"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/verdict"
)

// receiver is a collector that keeps the spans that it receives over OTLP.
type receiver struct {
	mu    sync.Mutex
	spans map[string]*otlp.Span // by name
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	body := io.Reader(request.Body)
	if request.Header.Get("Content-Encoding") == "gzip" {
		unzipped, err := gzip.NewReader(body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		body = unzipped
	}
	var received collector.ExportTraceServiceRequest
	text, err := io.ReadAll(body)
	if err == nil {
		err = proto.Unmarshal(text, &received)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, resource := range received.GetResourceSpans() {
		for _, scope := range resource.GetScopeSpans() {
			for _, span := range scope.GetSpans() {
				r.spans[span.GetName()] = span
			}
		}
	}
}

func texts(span *otlp.Span) map[string]string {
	attributes := make(map[string]string)
	for _, a := range span.GetAttributes() {
		attributes[a.GetKey()] = a.GetValue().GetStringValue()
	}
	return attributes
}

func TestObserve_CollectorReceivesTheTreeOverOTLP(t *testing.T) {
	t.Parallel()
	got := &receiver{spans: make(map[string]*otlp.Span)}
	server := httptest.NewServer(got)
	t.Cleanup(server.Close)
	client := &http.Client{Transport: &http.Transport{}}
	t.Cleanup(client.CloseIdleConnections)
	exporter, err := otlptracehttp.New(t.Context(), otlptracehttp.WithEndpointURL(server.URL+"/v1/traces"),
		otlptracehttp.WithHTTPClient(client), otlptracehttp.WithCompression(otlptracehttp.GzipCompression))
	require.NoError(t, err)
	provider := trace.NewTracerProvider(trace.WithBatcher(exporter))
	reg := testkit.New(t, registry.Options{})
	t.Cleanup(func() { require.NoError(t, reg.Close(context.Background())) })
	observer, err := registryotel.Observe(reg, registryotel.Options{TracerProvider: provider})
	require.NoError(t, err)
	testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Fails(failsAs(verdict.ClassTransport))})
	testkit.Add(t, reg, testkit.Provider{Name: "b", Instance: testkit.Fails(failsAs(verdict.ClassRateLimited))})
	testkit.Add(t, reg, testkit.Provider{Name: "c"})
	_, err = registry.Call(t.Context(), testkit.Bind(reg), func(ctx context.Context, m testkit.ChatModel) (string, error) { return m.Chat(ctx, "") })
	require.NoError(t, err)
	require.NoError(t, observer.Close(t.Context()))
	require.NoError(t, provider.Shutdown(t.Context()))

	require.Len(t, got.spans, 4)
	call := got.spans["call chat"]
	require.Equal(t, "c", texts(call)["registry.provider.name"])
	require.Equal(t, otlp.Span_SPAN_KIND_INTERNAL, call.GetKind())
	for name, class := range map[string]verdict.Class{"a": verdict.ClassTransport, "b": verdict.ClassRateLimited, "c": verdict.ClassSuccess} {
		attempt := got.spans["attempt "+name]
		require.Equal(t, call.GetSpanId(), attempt.GetParentSpanId(), name)
		require.Equal(t, call.GetTraceId(), attempt.GetTraceId(), name)
		require.Equal(t, class.String(), texts(attempt)["registry.class"])
		failed := class != verdict.ClassSuccess
		require.Equal(t, failed, attempt.GetStatus().GetCode() == otlp.Status_STATUS_CODE_ERROR, name)
		if failed {
			require.Equal(t, class.String(), texts(attempt)["error.type"])
		}
	}
}
