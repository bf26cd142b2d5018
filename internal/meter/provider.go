package meter

import (
	"slices"
	"sync/atomic"
	"time"

	"github.com/capreg/registry/internal/histogram"
	"github.com/capreg/registry/internal/record"
	"github.com/capreg/registry/internal/striped"
	"github.com/capreg/registry/metrics"
	"github.com/capreg/registry/reason"
	"github.com/capreg/registry/verdict"
)

// off is the end of the slice of a provider whose durations are not measured: it is always over.
const off = 0

// Provider measures the attempts on one provider. It is a field of its provider: use [Provider.Init] before anything
// else, and do not copy it. All other methods are safe for concurrent use.
type Provider struct {
	service  *Service
	joined   time.Duration
	counts   striped.Cells[record.Outcomes]
	turn     atomic.Int64 // the end of the slice of the minute, or off
	minute   atomic.Pointer[minute]
	slow     outcomes         // but for the answers of quick calls
	whys     [8]atomic.Uint64 // by the place in [reason.Whys]; the first ones are derived
	refusals record.Counter[reason.Code]
}

// Init prepares the meter of a provider of the service that joins now. Without durations only counts are kept.
func (p *Provider) Init(s *Service, now time.Duration, durations bool) {
	p.service, p.joined = s, now
	if durations {
		p.turn.Store(1)
	}
}

// Cell returns the cell in which an attempt is to be counted; nil for the first one, which uses [Provider.FirstCell].
// It is small, to be inlined.
func (p *Provider) Cell() *record.Outcomes { return p.counts.At(striped.Here()) }

// FirstCell makes the cells, and has the service read them.
func (p *Provider) FirstCell() *record.Outcomes {
	p.service.mu.Lock()
	defer p.service.mu.Unlock()
	cell := p.counts.Local()
	p.service.live[p] = struct{}{}
	return cell
}

// Left tells the service of a provider that has no call any more, and will have none.
func (p *Provider) Left() {
	p.service.mu.Lock()
	defer p.service.mu.Unlock()
	if _, live := p.service.live[p]; live {
		p.addQuick(&p.service.gone)
		delete(p.service.live, p)
	}
}

// Due reports whether an attempt that ends now is to be passed by [Provider.Turn], before it is counted. It is small,
// to be inlined.
func (p *Provider) Due(now time.Duration) bool { return int64(now) >= p.turn.Load() }

// Turn begins a slice of the minute, and returns the duration to count: zero where none are measured.
func (p *Provider) Turn(took, now time.Duration) time.Duration {
	if p.turn.Load() == off {
		return 0
	}
	p.nextSlice(now)
	return took
}

// Ended notes the end of an attempt that is not quick, which is counted in its cell.
func (p *Provider) Ended(class verdict.Class, took, now time.Duration) {
	if p.Due(now) {
		took = p.Turn(took, now)
	}
	p.slow.add(class, took)
}

// Answered counts the end of an attempt that had an answer and is not quick.
func (p *Provider) Answered(cell *record.Outcomes, took, now time.Duration) {
	p.Ended(verdict.ClassSuccess, took, now)
	cell.Latency.Add(uint64(max(took, 0)))
	cell.Successes.Add(1)
}

// Entered notes what an attempt is made for.
func (p *Provider) Entered(why reason.Why) {
	if why != reason.First {
		p.whys[slices.Index(reason.Whys(), why)].Add(1)
	}
}

// Attempted returns how many attempts were made for that.
func (p *Provider) Attempted(why reason.Why) uint64 {
	return p.whys[slices.Index(reason.Whys(), why)].Load()
}

// Refused counts a call that was turned away for that reason.
func (p *Provider) Refused(code reason.Code) { p.refusals.Add(code) }

// Totals returns the sums of all attempts.
func (p *Provider) Totals() record.Totals { return record.Sum(&p.counts) }

// addQuick adds the quick calls.
func (p *Provider) addQuick(c *histogram.Counts) {
	for cell := range p.counts.Each {
		if cell.Untouched() {
			continue
		}
		c.AddBuckets(&cell.Quick)
		c.Sum += time.Duration(cell.QuickLatency.Load()) //nolint:gosec // a sum of durations
	}
}

// Read fills in what is measured here, but for the parts of [Provider.Totals] and the last minute; begun is the number of
// attempts of these totals.
func (p *Provider) Read(shown *metrics.Provider, begun uint64) {
	var quick histogram.Counts
	p.addQuick(&quick)
	shown.Attempts, shown.Refusals = p.slow.read(&quick), p.refusals.ByReason()
	shown.Whys = make(map[reason.Why]uint64)
	first := begun
	for _, why := range reason.Whys()[1:] {
		shown.Whys[why] = p.Attempted(why)
		first -= min(shown.Whys[why], first)
	}
	shown.Whys[reason.First] = first
}
