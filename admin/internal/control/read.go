package control

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/capreg/registry"
	"github.com/capreg/registry/health"
	"github.com/capreg/registry/metrics"
	"github.com/capreg/registry/reason"
	"github.com/capreg/registry/status"
	"github.com/capreg/registry/verdict"
)

// Row is a provider in few words, for lists.
type Row struct {
	Service      string             `json:"service"`
	Provider     string             `json:"provider"`
	Generation   uint64             `json:"generation"`
	Handler      string             `json:"handler,omitempty"`
	Capabilities []string           `json:"capabilities,omitempty"`
	Group        int                `json:"priority_group"`
	Priority     registry.Priority  `json:"priority"`
	Strategy     string             `json:"strategy"`
	Weight       float64            `json:"weight"`
	Mock         bool               `json:"mock,omitempty"`
	LastResort   bool               `json:"last_resort,omitempty"`
	State        health.State       `json:"state"`
	StateSince   time.Time          `json:"state_since"`
	Trend        health.Trend       `json:"trend"`
	Eligible     bool               `json:"eligible"`
	Code         reason.Code        `json:"code"`
	Reason       string             `json:"reason,omitempty"`
	Breaker      Breaker            `json:"circuit_breaker"`
	Cooldown     *status.Cooldown   `json:"cooldown,omitempty"`
	InFlight     uint64             `json:"in_flight"`
	Places       int                `json:"places_taken"`
	MaxPlaces    int                `json:"max_concurrent,omitempty"`
	Queued       int                `json:"queued"`
	MaxQueue     int                `json:"max_queue,omitempty"`
	Attempts     uint64             `json:"attempts"`
	Failures     uint64             `json:"failures"`
	LastMinute   metrics.Minute     `json:"last_minute"`
	LastError    *verdict.LastError `json:"last_error,omitempty"`
}

// Breaker is the state of a breaker in few words.
type Breaker struct {
	State  status.BreakerState `json:"state"`
	Since  time.Time           `json:"since"`
	Reason string              `json:"reason,omitempty"`
	Forced bool                `json:"forced,omitempty"`
	// NextTrial is the moment at which an open breaker admits trials.
	NextTrial time.Time `json:"next_trial,omitzero"`
	// Failures counts those in a row, and Threshold is the number that opens the breaker; zero: a rate does.
	Failures  int `json:"failures"`
	Threshold int `json:"failure_threshold"`
}

// Drained reports whether the provider gets no traffic.
func (r *Row) Drained() bool { return r.Weight == 0 }

// RowOf returns a provider in few words.
func RowOf(i *registry.Info, now time.Time) Row {
	r := Row{
		Service: i.Service, Provider: i.Name, Generation: i.Generation, Handler: i.Handler, Capabilities: i.Capabilities,
		Group: i.Group, Priority: i.Priority, Strategy: i.Strategy.String(), Weight: weightOf(i), Mock: i.Mock, LastResort: i.LastResort,
		State: i.Health.State, StateSince: i.Health.Since, Trend: i.Health.Trend, Eligible: i.Eligible, Code: i.Code, Reason: i.Reason,
		Breaker: Breaker{
			State: i.Breaker.State, Since: i.Breaker.Since, Reason: i.Breaker.Reason, Forced: i.Breaker.Forced,
			Failures: i.Breaker.ConsecutiveFailures, Threshold: i.Breaker.Policy.FailureThreshold,
		},
		InFlight: i.InFlight, Places: i.InUse.Places, MaxPlaces: i.Limits.MaxConcurrent, Queued: i.InUse.Queued, MaxQueue: i.Limits.MaxQueue,
		Attempts: i.Attempts, Failures: i.Failures, LastMinute: i.LastMinute, LastError: i.LastError,
	}
	if i.Breaker.State == status.BreakerOpen {
		r.Breaker.NextTrial = now.Add(i.Breaker.RetryIn).Round(100 * time.Millisecond)
	}
	if !i.Cooldown.Until.IsZero() {
		r.Cooldown = &i.Cooldown
	}
	return r
}

func weightOf(i *registry.Info) float64 {
	if i.NoTraffic {
		return 0
	}
	return i.Weight
}

// Service is a service in few words, with its providers.
type Service struct {
	Name     string       `json:"name"`
	State    health.State `json:"state"`
	Reason   string       `json:"reason,omitempty"`
	Required bool         `json:"required,omitempty"`
	// Eligible is the number of providers that could be given a call now, OpenBreakers the number of breakers that are
	// not closed.
	Eligible     int   `json:"eligible"`
	OpenBreakers int   `json:"open_breakers"`
	Providers    []Row `json:"providers"`
}

// Unserved reports whether no provider of the service can be given a call.
func (s *Service) Unserved() bool { return s.Eligible == 0 }

// Snapshot is the registry at one moment. It is shared by its readers and not to be changed.
type Snapshot struct {
	Totals status.Totals `json:"totals"`
	State  health.State  `json:"overall_health"`
	Reason string        `json:"reason,omitempty"`
	// Services are in the order of their names.
	Services []Service `json:"services"`
	// Time is the moment, which the tag does not depend on.
	Time time.Time `json:"-"`

	text func() (text []byte, tag string)
}

// Text returns the JSON form and its tag, made once for all readers. It is not to be changed.
func (s *Snapshot) Text() (text []byte, tag string) { return s.text() }

// Service returns the named service; nil: there is none.
func (s *Snapshot) Service(name string) *Service {
	i, ok := slices.BinarySearchFunc(s.Services, name, func(s Service, name string) int { return cmp.Compare(s.Name, name) })
	if !ok {
		return nil
	}
	return &s.Services[i]
}

// snapshots makes a snapshot at most once in its time, whatever the number of readers.
type snapshots struct {
	make func() *Snapshot

	mu     sync.Mutex // guards latest, and is held while one is made: others wait for it, and make none
	latest *Snapshot
}

func (s *snapshots) get() *Snapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.latest == nil || time.Since(s.latest.Time) >= snapshotAge {
		s.latest = s.make()
	}
	return s.latest
}

func (s *snapshots) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.latest = nil
}

// Snapshot returns the registry as it was at most a quarter of a second ago, and after the last change made here.
func (c *Control) Snapshot() *Snapshot { return c.snapshots.get() }

func (c *Control) build() *Snapshot {
	now := time.Now()
	overall := c.registry.Health()
	s := &Snapshot{Totals: c.registry.Stats(), State: overall.State, Reason: overall.Reason, Time: now}
	there := make(map[uint64]bool)
	services := make(map[string]*Service, len(overall.Services))
	s.Services = make([]Service, 0, len(overall.Services))
	for _, h := range overall.Services {
		s.Services = append(s.Services, Service{
			Name: h.Name, State: h.State, Reason: h.Reason, Required: h.Required, Eligible: h.Eligible, Providers: []Row{},
		})
	}
	for i := range s.Services {
		services[s.Services[i].Name] = &s.Services[i]
	}
	for info := range c.registry.All() {
		service := services[info.Service]
		if service == nil {
			continue // it came between the two readings
		}
		row := RowOf(&info, now)
		if service.Providers = append(service.Providers, row); row.Breaker.State != status.BreakerClosed {
			service.OpenBreakers++
		}
		there[info.Generation] = true
	}
	c.revisions.keep(there)
	type result struct {
		text []byte
		tag  string
	}
	made := sync.OnceValue(func() result {
		text, _ := json.Marshal(s) // plain data
		return result{text, tagOf(text)}
	})
	s.text = func() ([]byte, string) { r := made(); return r.text, r.tag }
	return s
}

// Filter selects providers. The zero value of each field selects all.
type Filter struct {
	Service string
	// State is a state of health, Code a reason, Breaker a state of a breaker.
	State   string
	Code    string
	Breaker string
	// Capability is one that the provider declares, and Text a part of its name, its service's or of its last error, in any case.
	Capability string
	Text       string
	// Ineligible selects those that no call can be given to.
	Ineligible bool
}

func (f *Filter) accepts(r *Row) bool {
	return (f.Service == "" || f.Service == r.Service) && (f.State == "" || f.State == r.State.String()) &&
		(f.Code == "" || f.Code == string(r.Code)) && (f.Breaker == "" || f.Breaker == r.Breaker.State.String()) &&
		(f.Capability == "" || slices.Contains(r.Capabilities, f.Capability)) && (!f.Ineligible || !r.Eligible) && f.hasText(r)
}

func (f *Filter) hasText(r *Row) bool {
	text := strings.ToLower(f.Text)
	has := func(s string) bool { return strings.Contains(strings.ToLower(s), text) }
	return text == "" || has(r.Provider) || has(r.Service) || has(r.Reason) || r.LastError != nil && has(r.LastError.Text)
}

// place tells the end of a page.
type place struct {
	Offset   int    `json:"o"`
	Service  string `json:"s"`
	Provider string `json:"p"`
}

// Providers returns a page of the providers that the filter selects, in the order of all listings, and their number. The
// token is that of the page before, or empty; the one that is returned is empty after the last page.
func (c *Control) Providers(f Filter, token string, limit int) (page []Row, next string, total int, err error) {
	after, err := placeOf(token)
	if err != nil {
		return nil, "", 0, err
	}
	found := c.Snapshot().Rows(f)
	from := after.Offset
	for i, row := range found {
		if row.Service == after.Service && row.Provider == after.Provider {
			from = i + 1 // it may stand elsewhere than it did
		}
	}
	page = make([]Row, 0, limit)
	for from < len(found) && len(page) < limit {
		page = append(page, *found[from])
		from++
	}
	if from < len(found) && len(page) > 0 {
		last := page[len(page)-1]
		text, _ := json.Marshal(place{from, last.Service, last.Provider}) // plain data
		next = base64.RawURLEncoding.EncodeToString(text)
	}
	return page, next, len(found), nil
}

// placeOf reads a token; an empty one is the beginning.
func placeOf(token string) (after place, err error) {
	text, err := base64.RawURLEncoding.DecodeString(token)
	if err == nil && token != "" {
		err = json.Unmarshal(text, &after)
	}
	if err != nil || after.Offset < 0 {
		return place{}, &Error{Kind: Invalid, Text: "the page token is not one of a page", Field: "page_token"}
	}
	return after, nil
}

// Rows returns the providers that the filter selects, which are those of the snapshot.
func (s *Snapshot) Rows(f Filter) (found []*Row) {
	for i := range s.Services {
		for j := range s.Services[i].Providers {
			if row := &s.Services[i].Providers[j]; f.accepts(row) {
				found = append(found, row)
			}
		}
	}
	return found
}

// Detail is all that is known of one provider.
type Detail struct {
	Info registry.Info `json:"info"`
	// History are the last transitions of its health, oldest first.
	History []health.Transition `json:"health_history"`
	// DrainedFrom is the weight that an undrain gives back; zero: it is not drained.
	DrainedFrom float64 `json:"drained_from,omitempty"`
	// Tag is that of the settings, for changes that are based on them.
	Tag string `json:"-"`
}

// Provider returns all that is known of a provider.
func (c *Control) Provider(t Target) (*Detail, error) {
	handle, _, err := c.find(t)
	if err != nil {
		return nil, err
	}
	d := &Detail{Info: handle.Info(), History: handle.HealthHistory()}
	d.Tag = c.tag(handle, &d.Info)
	c.mu.Lock()
	defer c.mu.Unlock()
	if weightOf(&d.Info) == 0 {
		d.DrainedFrom = cmp.Or(c.weights[d.Info.Generation], 1)
	}
	return d, nil
}

// Health is the health of the registry with what to do about it.
type Health struct {
	Overall   health.State     `json:"overall_health"`
	Reason    string           `json:"reason,omitempty"`
	Timestamp time.Time        `json:"timestamp"`
	Total     int              `json:"total_services"`
	Healthy   int              `json:"healthy_services"`
	Degraded  int              `json:"degraded_services"`
	Unhealthy int              `json:"unhealthy_services"`
	Details   []health.Service `json:"details"`
	// Recommendations say what an operator can do, worst first; none where nothing is wrong.
	Recommendations []string `json:"recommendations"`
}

// mostRecommendations bounds the list.
const mostRecommendations = 50

// Health returns the health of the registry.
func (c *Control) Health() Health {
	c.looking.Lock()
	defer c.looking.Unlock()
	overall := c.registry.Health()
	h := Health{
		Overall: overall.State, Reason: overall.Reason, Timestamp: time.Now(), Total: len(overall.Services),
		Healthy: overall.Healthy, Degraded: overall.Degraded, Unhealthy: overall.Unhealthy, Details: overall.Services,
		Recommendations: []string{},
	}
	if h.Details == nil {
		h.Details = []health.Service{}
	}
	s := c.build() // of now, as the rest
	var unserved, others []string
	for i := range s.Services {
		service := &s.Services[i]
		if service.Unserved() {
			unserved = append(unserved, fmt.Sprintf("service %q has no provider for a call: %s", service.Name, cmp.Or(service.Reason, "none is registered")))
		}
		for j := range service.Providers {
			if advice := Advice(&service.Providers[j]); advice != "" {
				others = append(others, advice)
			}
		}
	}
	all := slices.Concat(unserved, others)
	if more := len(all) - mostRecommendations; more > 0 {
		all = append(all[:mostRecommendations], fmt.Sprintf("and %d more", more))
	}
	h.Recommendations = append(h.Recommendations, all...)
	return h
}

// Advice says what can be done about a provider that no call can be given to; empty: nothing, or it is as it should be.
func Advice(r *Row) string {
	about := fmt.Sprintf("provider %q of service %q", r.Provider, r.Service)
	switch r.Code {
	case reason.NoTraffic:
		return about + " is drained: undrain it when its work is done"
	case reason.Unhealthy:
		return about + " is unhealthy: " + cmp.Or(r.Reason, "its probes fail") + "; it comes back when its probes succeed or it is marked healthy"
	case reason.BreakerOpen, reason.TrialsFull:
		return fmt.Sprintf("%s has its breaker %v: %s; it is tried again by itself, and a reset closes it now", about, r.Breaker.State, cmp.Or(r.Breaker.Reason, r.Reason))
	case reason.Parked:
		return about + " refuses this program (credentials, quota or billing): mend that, then reset it"
	case reason.CoolingDown:
		return about + " has asked to be left alone; it is asked again by itself"
	case reason.NotReady, reason.Starting:
		return about + " is not ready: " + r.Reason
	case reason.AtCapacity:
		return about + " has no free place: raise its limits, or add providers"
	default:
		return ""
	}
}
