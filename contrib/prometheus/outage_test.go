package registryprom_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	registryprom "github.com/capreg/registry/contrib/prometheus"
	"github.com/capreg/registry/health"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/startup"
	"github.com/capreg/registry/verdict"
)

// most is the number of calls that wait for the card.
const most = 80

const rulesFile, dashboardFile = "rules/registry.yaml", "dashboards/registry.json"

// alerts are those of the rules.
var alerts = []string{
	"RegistryServiceUnserved", "RegistryErrorBudgetBurnsFast", "RegistryErrorBudgetBurns", "RegistryFailsOver", "RegistryBreakerFlaps",
	"RegistryProviderParked", "RegistryProviderNotReady", "RegistryComponentNotReady", "RegistryRetryBudgetSpent", "RegistryQueueGrows",
}

// hurried returns the rules with seconds for minutes and hours: it is the same for what they say.
func hurried(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(rulesFile)
	require.NoError(t, err)
	rules := regexp.MustCompile(`\[\d+[mh]\]`).ReplaceAllString(string(text), "[8s]")
	return regexp.MustCompile(`(for|interval): \d+[ms]`).ReplaceAllString(rules, "$1: 1s")
}

// The services of the program, one for each thing that can go wrong.
var (
	chat   = registry.NewService[*faulty]("chat")   // a provider fails, and another one answers
	mail   = registry.NewService[*faulty]("mail")   // none is eligible
	keys   = registry.NewService[*faulty]("keys")   // the key is refused
	search = registry.NewService[*faulty]("search") // the second provider fails as well, and bears no more of what the first one fails
	gpu    = registry.NewService[*faulty]("gpu")    // calls wait
	lazy   = registry.NewService[*faulty]("lazy")   // no probe succeeds
)

// faulty is a provider that answers unless it is to fail.
type faulty struct{ err atomic.Pointer[error] }

func (f *faulty) fail(err error) { f.err.Store(&err) }

func (f *faulty) ask(context.Context) error {
	if err := f.err.Load(); err != nil {
		return *err
	}
	return nil
}

// program calls its services until it is closed, and counts the calls.
type program struct {
	reg          *registry.Registry
	orchestrator *registry.Orchestrator
	metrics      http.Handler
	providers    map[string]*faulty
	handles      map[string]*registry.Registration
	down         atomic.Bool

	stop, stopped chan struct{}
	answered      map[string]int // calls by service; to be read once it has stopped
	failed        map[string]int
}

func newProgram(t *testing.T) *program {
	t.Helper()
	p := &program{
		providers: make(map[string]*faulty), handles: make(map[string]*registry.Registration),
		stop: make(chan struct{}), stopped: make(chan struct{}), answered: make(map[string]int), failed: make(map[string]int),
	}
	var err error
	p.reg, err = registry.New(registry.Options{})
	require.NoError(t, err)
	probe := func(context.Context) error {
		if p.down.Load() {
			return errors.New("not yet")
		}
		return nil
	}
	p.down.Store(true) // what is to get ready is not
	component := registry.Component{Name: "store", Start: func(context.Context, *startup.Run) error { return nil }, Ready: probe}
	p.orchestrator, err = registry.NewOrchestrator(p.reg, startup.Options{StartTimeout: time.Hour}, component)
	require.NoError(t, err)
	p.metrics = registryprom.New(p.reg, registryprom.Options{Orchestrator: p.orchestrator}).Handler(prometheus.DefaultGatherer)

	flapping := registry.BreakerPolicy{FailureThreshold: 1, RecoveryTimeout: 300 * time.Millisecond, SuccessThreshold: 1}
	steady := registry.BreakerPolicy{FailureThreshold: 1_000_000}
	p.add(t, chat, registry.Provider[*faulty]{Name: "openai", Breaker: flapping})
	p.add(t, chat, registry.Provider[*faulty]{Name: "anthropic"})
	p.add(t, mail, registry.Provider[*faulty]{Name: "smtp"})
	p.add(t, keys, registry.Provider[*faulty]{Name: "vault"})
	p.add(t, search, registry.Provider[*faulty]{Name: "primary", Breaker: steady})
	p.add(t, search, registry.Provider[*faulty]{Name: "secondary", Breaker: steady, Retry: registry.RetryPolicy{Budget: 1, Refund: 0.001, Floor: 0.01}})
	p.add(t, gpu, registry.Provider[*faulty]{Name: "card", Limits: registry.LimitPolicy{MaxConcurrent: 1, MaxQueue: most, MaxWait: time.Hour}})
	p.add(t, lazy, registry.Provider[*faulty]{Name: "model", Health: health.Policy{
		Probe: probe, Interval: 200 * time.Millisecond, FastInterval: 100 * time.Millisecond, StartTime: time.Hour,
	}})
	return p
}

func (p *program) add(t *testing.T, to registry.Service[*faulty], provider registry.Provider[*faulty]) {
	t.Helper()
	provider.Instance = &faulty{}
	p.providers[provider.Name] = provider.Instance
	handle, err := to.Register(t.Context(), p.reg, provider)
	require.NoError(t, err)
	p.handles[provider.Name] = handle
}

// call calls every service but that of the queue, again and again.
func (p *program) call() {
	defer close(p.stopped)
	every := time.NewTicker(100 * time.Millisecond)
	defer every.Stop()
	for {
		for _, service := range []registry.Service[*faulty]{chat, mail, keys, search, lazy} {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			if service.Bind(p.reg, registry.Query{}).Do(ctx, func(ctx context.Context, f *faulty) error { return f.ask(ctx) }) != nil {
				p.failed[service.Name()]++
			} else {
				p.answered[service.Name()]++
			}
			cancel()
		}
		select {
		case <-every.C:
		case <-p.stop:
			return
		}
	}
}

// crowd has calls take the only place of the card and wait for it, one more with each tick. When there are many they
// go, and it begins again, until release is closed. It returns the number of calls.
func crowd(reg *registry.Registry, release <-chan struct{}) (calls int) {
	every := time.NewTicker(250 * time.Millisecond)
	defer every.Stop()
	cards := gpu.Bind(reg, registry.Query{})
	for {
		var all sync.WaitGroup
		leave, released := make(chan struct{}), false
		for range most {
			calls++
			all.Go(func() {
				_ = cards.Do(context.Background(), func(context.Context, *faulty) error {
					<-leave
					return nil
				})
			})
			select {
			case <-every.C:
			case <-release:
				released = true
			}
			if released {
				break
			}
		}
		close(leave)
		all.Wait()
		if released {
			return calls
		}
	}
}

// breaks has everything fail at once, and repairs ends that.
func (p *program) breaks(t *testing.T) {
	t.Helper()
	serverError := verdict.As(errors.New("down"), verdict.Verdict{Class: verdict.ClassServerError})
	p.providers["openai"].fail(serverError)
	p.providers["primary"].fail(serverError)
	p.providers["secondary"].fail(serverError)
	p.providers["vault"].fail(verdict.As(errors.New("key revoked"), verdict.Verdict{Class: verdict.ClassFatal}))
	require.NoError(t, p.handles["smtp"].MarkUnhealthy(errors.New("maintenance")))
}

func (p *program) repairs(t *testing.T) {
	t.Helper()
	p.down.Store(false)
	for _, provider := range p.providers {
		provider.err.Store(nil)
	}
	require.NoError(t, p.handles["smtp"].MarkHealthy())
	require.NoError(t, p.handles["vault"].Reset())
}

func TestRules_AlertsFireInAnOutageAndResolveAfterIt(t *testing.T) {
	t.Parallel()
	p := newProgram(t)
	s := testkit.StartPrometheus(t, expose(t, p.metrics), hurried(t))
	started := make(chan error, 1)
	go func() {
		_, err := p.orchestrator.Start(context.Background())
		started <- err
	}()
	release := make(chan struct{})
	p.breaks(t)
	go p.call()
	crowded := make(chan int, 1)
	go func() { crowded <- crowd(p.reg, release) }()

	for _, alert := range alerts {
		fired := `last_over_time(ALERTS{alertstate="firing", alertname="` + alert + `"}[1h])`
		s.Eventually(t, alert+" fires", fired, func(found []testkit.Series) bool { return len(found) > 0 })
	}
	firing, err := s.Query(t, `ALERTS{alertname="RegistryServiceUnserved", service="chat"}`)
	require.NoError(t, err)
	require.Empty(t, firing, "another provider answers there")
	for what, queries := range map[string]map[string]string{"recorded": recorded(t), "panel": dashboardQueries(t)} {
		for name, expression := range queries {
			s.Eventually(t, what+" "+name, expression, func(found []testkit.Series) bool { return len(found) > 0 })
		}
	}
	testkit.Promtool(t, exposition(t, p.metrics), "check", "metrics")

	p.repairs(t)
	close(release)
	waited := <-crowded
	require.NoError(t, <-started)
	s.Eventually(t, "all is well", `ALERTS{alertstate="firing", alertname=~"Registry.*"}`, func(found []testkit.Series) bool { return len(found) == 0 })

	close(p.stop)
	<-p.stopped
	p.answered[gpu.Name()] = waited
	// Now that nothing moves, the server has what the callers counted.
	for service, answered := range p.answered {
		s.Eventually(t, "answers of "+service, `registry_calls_total{error_type="", service="`+service+`"}`, testkit.Valued(answered))
		s.Eventually(t, "failures of "+service, `sum(registry_calls_total{error_type!="", service="`+service+`"})`, testkit.Valued(p.failed[service]))
	}
	openai := p.handles["openai"].Info()
	s.Eventually(t, "attempts", `sum(registry_selections_total{provider="openai"})`, testkit.Valued(int(openai.Attempts)))
	s.Eventually(t, "failed attempts", `sum(registry_attempt_duration_seconds_count{provider="openai", error_type!=""})`, testkit.Valued(int(openai.Failures)))
	s.Eventually(t, "openings", `registry_circuit_breaker_transitions_total{provider="openai", state="open"}`, testkit.Valued(int(openai.Breaker.Opened)))
	require.NoError(t, p.orchestrator.Stop(context.Background()))
	require.NoError(t, p.reg.Close(context.Background()))
}

// recorded returns the names of the recorded series.
func recorded(t *testing.T) map[string]string {
	t.Helper()
	text, err := os.ReadFile(rulesFile)
	require.NoError(t, err)
	names := make(map[string]string)
	for _, match := range regexp.MustCompile(`record: (\S+)`).FindAllStringSubmatch(string(text), -1) {
		names[match[1]] = match[1]
	}
	require.Len(t, names, 9)
	return names
}

// dashboardQueries returns the queries of the panels by their titles, with the variables as the dashboard would have them.
func dashboardQueries(t *testing.T) map[string]string {
	t.Helper()
	text, err := os.ReadFile(dashboardFile)
	require.NoError(t, err)
	var dashboard struct {
		Annotations struct{ List []struct{ Expr string } }
		Panels      []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	require.NoError(t, json.Unmarshal(text, &dashboard))
	variables := strings.NewReplacer("$job", ".+", "$service", ".+", "$__rate_interval", "8s")
	queries := map[string]string{"annotation": dashboard.Annotations.List[0].Expr}
	for _, panel := range dashboard.Panels {
		for i, target := range panel.Targets {
			queries[fmt.Sprint(panel.Title, " ", i)] = variables.Replace(target.Expr)
		}
	}
	require.Greater(t, len(queries), 20)
	return queries
}

// expose serves the metrics, and returns the address.
func expose(t *testing.T, metrics http.Handler) string {
	t.Helper()
	exposed := httptest.NewServer(metrics)
	t.Cleanup(exposed.Close)
	return exposed.URL
}

// exposition returns what a scrape reads.
func exposition(t *testing.T, metrics http.Handler) []byte {
	t.Helper()
	to := httptest.NewRecorder()
	metrics.ServeHTTP(to, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil))
	require.Equal(t, http.StatusOK, to.Code)
	return to.Body.Bytes()
}

func TestRules_AreValidAndEachAlertIsTested(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(rulesFile)
	require.NoError(t, err)
	var named []string
	for _, match := range regexp.MustCompile(`alert: (\S+)`).FindAllStringSubmatch(string(text), -1) {
		named = append(named, match[1])
	}
	slices.Sort(named)
	tested := slices.Sorted(slices.Values(alerts))
	require.Equal(t, tested, named)
	testkit.Promtool(t, nil, "check", "rules", rulesFile)
}

func TestRules_ErrorsAreWhatIsNotTheCallersDoing(t *testing.T) {
	t.Parallel()
	excused := []string{""} // the answer
	for _, class := range verdict.Classes() {
		callers := class == verdict.ClassCancelled || class == verdict.ClassIgnored || class == verdict.ClassHedgeLoser
		if class != verdict.ClassSuccess && (callers || class.Rule().Tally == verdict.TallySuccess) {
			excused = append(excused, class.String())
		}
	}
	slices.Sort(excused)
	for _, file := range []string{rulesFile, dashboardFile} {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		matches := regexp.MustCompile(`error_type!~\\?"([^"\\]*)\\?"`).FindAllStringSubmatch(string(text), -1)
		require.NotEmpty(t, matches, file)
		for _, match := range matches {
			require.Equal(t, excused, slices.Sorted(slices.Values(strings.Split(match[1], "|"))), file)
		}
	}
}

func TestServer_ReadsNativeHistograms(t *testing.T) {
	t.Parallel()
	reg, _ := newRegistry(t, registryprom.Options{})
	add(t, reg, "a", nil)
	for range 100 {
		require.NoError(t, ask(reg))
	}
	s := testkit.StartPrometheus(t, expose(t, registryprom.New(reg, registryprom.Options{}).Handler()), "", "--enable-feature=native-histograms")
	s.Eventually(t, "the count", `histogram_count(registry_attempt_duration_seconds{provider="a"})`, testkit.Valued(100))
	s.Eventually(t, "a quantile", `histogram_quantile(0.99, registry_attempt_duration_seconds{provider="a"})`, func(found []testkit.Series) bool {
		return len(found) == 1 && found[0].Value > 0 && found[0].Value < 1
	})
}
