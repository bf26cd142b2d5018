package registryprom_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	registryprom "github.com/capreg/registry/contrib/prometheus"
)

// scraped is the answer to a scrape that asks for what a Prometheus server asks for.
func scraped(t *testing.T, by http.Handler, accept string) *httptest.ResponseRecorder {
	t.Helper()
	request := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil)
	request.Header.Set("Accept", accept)
	request.Header.Set("Accept-Encoding", "gzip")
	to := httptest.NewRecorder()
	by.ServeHTTP(to, request)
	return to
}

const acceptText = "text/plain;version=1.0.0;escaping=allow-utf-8"

// collected returns a collector of a registry with providers that have had calls.
func collected(t *testing.T, options registryprom.Options) *registryprom.Collector {
	t.Helper()
	reg, err := registry.New(registry.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, reg.Close(context.Background())) })
	for i := range 4 {
		add(t, reg, fmt.Sprint("p", i), []error{errors.New("down"), nil}[i%2])
	}
	for range 20 {
		require.NoError(t, ask(reg))
	}
	return registryprom.New(reg, options)
}

// own returns a registry with a counter of that name, as a program has of its own.
func own(t *testing.T, name string) *prometheus.Registry {
	t.Helper()
	r := prometheus.NewRegistry()
	require.NoError(t, r.Register(prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: "Counts."})))
	return r
}

func TestHandler_AnswersWithWhatOneRegistryOfAllWouldHave(t *testing.T) {
	t.Parallel()
	collector := collected(t, registryprom.Options{})
	first, last := own(t, "a_first_total"), own(t, "z_last_total")
	require.NoError(t, first.Register(collector))
	whole := scraped(t, promhttp.HandlerFor(prometheus.Gatherers{first, last}, promhttp.HandlerOpts{DisableCompression: true}), acceptText)
	require.True(t, first.Unregister(collector))
	answer := scraped(t, collector.Handler(first, nil, last), acceptText)
	require.Equal(t, http.StatusOK, answer.Code)
	require.Equal(t, whole.Header(), answer.Header(), "it is not compressed")
	require.Equal(t, steady(whole.Body.String()), steady(answer.Body.String()))
	var names []string
	for line := range strings.Lines(answer.Body.String()) {
		if name, is := strings.CutPrefix(line, "# TYPE "); is {
			names = append(names, strings.Fields(name)[0])
		}
	}
	require.True(t, slices.IsSorted(names), names)
	require.Equal(t, "a_first_total", names[0])
	require.Equal(t, "z_last_total", names[len(names)-1])
}

func TestHandler_AnswersInTheFormatThatIsAskedFor(t *testing.T) {
	t.Parallel()
	handler := collected(t, registryprom.Options{}).Handler(own(t, "a_first_total"))
	answer := scraped(t, handler, "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited")
	from := expfmt.NewDecoder(answer.Body, expfmt.ResponseFormat(answer.Header()))
	seen := make(map[string]*dto.MetricFamily)
	for family := new(dto.MetricFamily); from.Decode(family) == nil; family = new(dto.MetricFamily) {
		seen[family.GetName()] = family
	}
	require.Contains(t, seen, "a_first_total")
	require.Positive(t, seen["registry_attempt_duration_seconds"].GetMetric()[0].GetHistogram().GetZeroThreshold(), "it has native histograms")
	require.Contains(t, scraped(t, handler, "application/openmetrics-text").Header().Get("Content-Type"), "text/plain")

	traced := collected(t, registryprom.Options{Exemplar: traceOf}).Handler()
	answer = scraped(t, traced, "application/openmetrics-text")
	require.Contains(t, answer.Header().Get("Content-Type"), "openmetrics", "exemplars need it")
	require.True(t, strings.HasSuffix(answer.Body.String(), "# EOF\n"))
}

func TestHandler_MergesFamiliesOfOneName(t *testing.T) {
	t.Parallel()
	here, there := collected(t, registryprom.Options{}), collected(t, registryprom.Options{})
	other := prometheus.NewRegistry()
	require.NoError(t, prometheus.WrapRegistererWith(prometheus.Labels{"tenant": "there"}, other).Register(there))
	answer := scraped(t, here.Handler(other), acceptText)
	require.Equal(t, http.StatusOK, answer.Code, answer.Body)
	for _, line := range []string{
		`registry_calls_total{error_type="",service="llm"} 20`,
		`registry_calls_total{error_type="",service="llm",tenant="there"} 20`,
	} {
		require.True(t, strings.Contains(answer.Body.String(), "\n"+line+"\n"), line) //nolint:testifylint // it is long
	}
	require.Equal(t, 1, strings.Count(answer.Body.String(), "# TYPE registry_calls_total "))
}

func TestHandler_FailsWithAnotherGathererOrForASeriesOfTwo(t *testing.T) {
	t.Parallel()
	collector := collected(t, registryprom.Options{})
	failing := prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) { return nil, errors.New("no disk") })
	answer := scraped(t, collector.Handler(failing), acceptText)
	require.Equal(t, http.StatusInternalServerError, answer.Code)
	require.Contains(t, answer.Body.String(), "no disk")

	answer = scraped(t, collector.Handler(collector), acceptText)
	require.Equal(t, http.StatusInternalServerError, answer.Code)
	require.Contains(t, answer.Body.String(), "was collected before with the same name and label values")
}

func TestHandler_NamesOfARequestAreTheFamiliesWanted(t *testing.T) {
	t.Parallel()
	request := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics?name[]=registry_calls_total&name[]=a_first_total", nil)
	answer := httptest.NewRecorder()
	collected(t, registryprom.Options{}).Handler(own(t, "a_first_total")).ServeHTTP(answer, request)
	require.Equal(t, 2, strings.Count(answer.Body.String(), "# TYPE "))
	require.Contains(t, answer.Body.String(), "\na_first_total 0\n")
	require.Contains(t, answer.Body.String(), "# TYPE registry_calls_total counter\n")
}

// broken has a family with these series, before or after those of the collector.
func broken(name string, series ...*dto.Metric) prometheus.Gatherer {
	return prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) {
		return []*dto.MetricFamily{{Name: &name, Type: dto.MetricType_GAUGE.Enum(), Metric: series}}, nil
	})
}

func TestHandler_CutsOffAnAnswerThatCannotBeWhole(t *testing.T) {
	t.Parallel()
	collector := collected(t, registryprom.Options{})
	for name, gatherer := range map[string]prometheus.Gatherer{
		"no series, first": broken("a_first"), "no series, last": broken("z_last"),
		"a series of nothing, first": broken("a_first", nil), "a series of nothing, last": broken("z_last", nil),
	} {
		server := httptest.NewUnstartedServer(collector.Handler(gatherer))
		server.Config.ErrorLog = log.New(io.Discard, "", 0)
		server.Start()
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL, nil)
		require.NoError(t, err)
		answer, err := server.Client().Do(request)
		if err == nil {
			_, err = io.Copy(io.Discard, answer.Body)
			require.NoError(t, answer.Body.Close())
		}
		require.Error(t, err, name)
		server.Close()
	}
}

// gone is the answer to a client that has gone.
type gone struct{ http.ResponseWriter }

func (gone) Write([]byte) (int, error) { return 0, errors.New("connection reset") }

func TestHandler_EndsWhenTheClientHasGone(t *testing.T) {
	t.Parallel()
	handler := collected(t, registryprom.Options{}).Handler()
	request := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil)
	require.NotPanics(t, func() { handler.ServeHTTP(gone{httptest.NewRecorder()}, request) })
}
