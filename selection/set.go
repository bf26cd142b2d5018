package selection

import (
	"slices"
	"time"

	"github.com/capreg/registry/health"
	"github.com/capreg/registry/internal/choice"
)

// set has the candidates of one group for one kind of query, in order. It is immutable except
// for the measurements.
type set struct {
	request    *Request
	candidates []candidate
	equal      bool // all weights are the same
	total      float64
	ramp       ramp
}

// candidate is the data behind a [Candidate].
type candidate struct {
	vitals    *choice.Vitals
	context   *choice.Track
	weight    float64
	fit       float64
	proximity float64
	thrift    float64
	id        uint64
	profile   choice.Profile
	ramp      *ramp // nil: no slow start
}

// ramp is the slow start of a policy.
type ramp struct {
	window time.Duration
	floor  float64
	power  float64
}

// View returns a view of the members for the request, with none eligible, from which [View.With] makes those of picks.
// Registries make one for each group and kind of query.
func (r Request) View(p Policy, members []choice.Member) View {
	s := &set{request: &r, candidates: make([]candidate, len(members)), equal: true}
	s.ramp = p.ramp()
	dearest := 0.0
	for i := range members {
		dearest = max(dearest, members[i].Profile.Cost)
	}
	for i, m := range members {
		c := &s.candidates[i]
		*c = candidate{
			vitals: m.Vitals, context: m.Context, profile: m.Profile, weight: m.Profile.Weight,
			id: hashOf(m.Profile.Service, m.Profile.Handler, m.Profile.Name), fit: fitOf(&r, &m.Profile),
			proximity: proximityOf(r.Near, m.Profile.Region), thrift: 1,
		}
		if !(c.weight > 0) {
			c.weight = 1
		}
		c.weight = min(max(c.weight, lightest), heaviest)
		if dearest > 0 {
			c.thrift = 1 - c.profile.Cost/dearest
		}
		if c.vitals == nil {
			c.vitals = choice.Unmeasured
		} else if s.ramp.window > 0 {
			c.ramp = &s.ramp
		}
		s.equal = s.equal && c.weight == s.candidates[0].weight
		s.total += c.weight
	}
	return View{set: s}
}

// The weights that count as they are: sums and shares of them are numbers.
const (
	lightest = 1e-100
	heaviest = 1e100
)

// fitOf returns the share of the preferred words that the provider has.
func fitOf(r *Request, p *choice.Profile) float64 {
	if len(r.Prefer) == 0 {
		return 1
	}
	has := 0
	for _, word := range r.Prefer {
		if slices.Contains(p.Capabilities, word) || slices.Contains(p.Tags, word) {
			has++
		}
	}
	return float64(has) / float64(len(r.Prefer))
}

// Candidate is one provider as a selector sees it at one moment. It is a small value; its
// methods take no lock and allocate nothing.
type Candidate struct {
	*candidate

	now time.Duration
}

// Name returns the name of the provider.
func (c Candidate) Name() string { return c.profile.Name }

// Handler returns the handler that the provider is registered for; "" for all handlers.
func (c Candidate) Handler() string { return c.profile.Handler }

// Version returns the version of the provider.
func (c Candidate) Version() string { return c.profile.Version }

// Region returns the location of the provider.
func (c Candidate) Region() string { return c.profile.Region }

// Metadata returns one value of the provider's metadata.
func (c Candidate) Metadata(key string) string { return c.profile.Metadata[key] }

// HasTag reports whether the provider has the tag.
func (c Candidate) HasTag(tag string) bool { return slices.Contains(c.profile.Tags, tag) }

// HasCapability reports whether the provider declares the capability.
func (c Candidate) HasCapability(capability string) bool {
	return slices.Contains(c.profile.Capabilities, capability)
}

// Cost returns the cost of a request.
func (c Candidate) Cost() float64 { return c.profile.Cost }

// ID returns a hash of service, handler and name: the same in every process and after every
// restart.
func (c Candidate) ID() uint64 { return c.id }

// Weight returns the weight of the provider, reduced by [Candidate.Ramp].
func (c Candidate) Weight() float64 {
	if c.ramp == nil {
		return c.weight
	}
	return c.weight * c.Ramp()
}

// FullWeight returns the weight of the provider without slow start.
func (c Candidate) FullWeight() float64 { return c.weight }

// Ramp returns the slow-start factor of the provider after it has become eligible again, from
// the floor of [Policy.SlowStart] to 1; see there for the formula.
func (c Candidate) Ramp() float64 {
	if c.ramp == nil {
		return 1
	}
	return c.ramp.at(c.RecoveredFor())
}

// RecoveredFor returns the time since the provider became eligible again, after its breaker or
// its health had blocked calls, or since it was registered.
func (c Candidate) RecoveredFor() time.Duration {
	return max(c.now-c.vitals.ReadyAt(), 0)
}

// InFlight returns the number of attempts and leases of the provider that have not ended.
func (c Candidate) InFlight() int { return c.vitals.InFlight() }

// Cold reports whether the provider has no measurements yet.
func (c Candidate) Cold() bool {
	_, _, measured := c.vitals.Performance(0, nil)
	return !measured
}

// Latency returns the peak-sensitive moving average of the time that answers took, without
// queues; zero before the first. A sample that is longer than the average replaces it, a
// shorter one moves it by 1−w, and the value returned decays with its age:
//
//	average ← sample                          where sample > average
//	average ← sample·(1−w) + average·w        else, w = exp(−age/decay)
//	Latency = average·exp(−age/decay)
//
// A provider that was slow therefore gets another chance, sooner the less slow it was. This is
// the peak EWMA of Finagle. Streams and hedges count until the first item.
func (c Candidate) Latency() time.Duration {
	latency, _ := c.Performance()
	return time.Duration(latency)
}

// Failing returns a moving average of failures, from 0 to 1: each failure, refusal and attempt
// that took longer than answers do without one moves it by a fifth of the way to 1,
// each answer by a fifth of the way to 0, and it decays with time as [Candidate.Latency] does.
func (c Candidate) Failing() float64 {
	_, failing := c.Performance()
	return failing
}

// Performance returns Latency, in nanoseconds, and Failing in one reading.
func (c Candidate) Performance() (latency, failing float64) {
	latency, failing, _ = c.vitals.Performance(c.now, nil)
	return latency, failing
}

// PerformanceHere returns Performance for queries of this kind, and the overall one as long as
// no such query was measured.
func (c Candidate) PerformanceHere() (latency, failing float64) {
	latency, failing, _ = c.vitals.Performance(c.now, c.context)
	return latency, failing
}

// Measured returns all measurements of candidate i in one reading, which is the fastest way to
// read every candidate: [Candidate.PerformanceHere], the number of attempts in flight, and the
// score and the trend of its health.
func (v *View) Measured(i int) (latency, failing, inFlight, score float64, trend health.Trend) {
	if v.look.Now == 0 {
		v.readClock()
	}
	c := &v.set.candidates[i]
	return c.vitals.Measured(v.look.Now, c.context)
}

// Traits returns [Candidate.Proximity], [Candidate.Fit] and [Candidate.Thrift] of
// candidate i.
func (v *View) Traits(i int) (proximity, fit, thrift float64) {
	c := &v.set.candidates[i]
	return c.proximity, c.fit, c.thrift
}

// Health returns the score of the provider's health, from 0 to 1; see [health.Score].
func (c Candidate) Health() float64 {
	score, _ := c.vitals.Health()
	return score
}

// Trend returns the trend of the provider's health.
func (c Candidate) Trend() health.Trend {
	_, trend := c.vitals.Health()
	return trend
}

// Fit returns the share of the words preferred by the query that the provider has as capability
// or tag, from 0 to 1; 1 when the query prefers none.
func (c Candidate) Fit() float64 { return c.fit }

// Proximity returns how near the provider is to the caller, from 0 to 1: the share of the labels of [Request.Near],
// which are separated by dashes, that its region begins with. "eu-west-1" is 2/3 near to "eu-west-2". Without a Near it
// is 1, and for a provider without a region 1/2.
func (c Candidate) Proximity() float64 { return c.proximity }

// Thrift returns how cheap the provider is: 1 − cost / the highest cost of the group. It is 1
// where all are free.
func (c Candidate) Thrift() float64 { return c.thrift }

// hashOf returns a hash of the parts, with a fixed seed: FNV-1a, mixed.
func hashOf(parts ...string) uint64 {
	const offset, prime = 0xcbf29ce484222325, 0x100000001b3
	sum := uint64(offset)
	for i, part := range parts {
		if i > 0 {
			sum *= prime // a zero byte separates: no name contains one
		}
		for j := range len(part) {
			sum = (sum ^ uint64(part[j])) * prime
		}
	}
	return choice.Mix(sum)
}

// Hash returns a hash of the text that is the same in every process, for selectors that stick
// to a key.
func Hash(text string) uint64 { return hashOf(text) }
