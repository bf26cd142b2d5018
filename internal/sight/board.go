// Package sight holds how the providers of a plan stood when a look-up or call was refused, so that the error can say it
// later, whatever has changed meanwhile.
//
// A [Board] has a [Record] of each provider, made once for each change, and a [View] of all of them that refusals share
// until one changes. A [Sight] is a view with what only one look-up knows: its moment, its caller's rates, what it was
// turned away by. Lists, texts and causes are made of it when they are asked for. The reasons themselves are those of
// internal/refusal. It takes no lock: a board belongs to its owner's, and a view never changes. It keeps no provider
// alive.
package sight

import (
	"iter"
	"slices"
	"sync/atomic"
	"time"

	"github.com/capreg/registry/internal/breaker"
	"github.com/capreg/registry/internal/choice"
	"github.com/capreg/registry/internal/query"
	"github.com/capreg/registry/internal/refusal"
	"github.com/capreg/registry/reason"
	"github.com/capreg/registry/verdict"
)

// Who says which provider it is.
type Who struct {
	Provider, Handler, Strategy string
	Group                       int
	Priority                    int8
	Mock                        bool
	Breaker                     breaker.State // as calls see it
	LastError                   *verdict.LastError
}

// Record holds the standing of one provider at some time. It never changes, and does not keep the provider alive.
type Record struct {
	Who
	refusal.Standing // without RetryIn

	Gate       refusal.Gate
	Until      time.Time // when all reasons end by themselves; zero: one does not, or not at a known time
	Depends    bool      // other providers may be the reason
	Last       *atomic.Pointer[verdict.LastError]
	Profile    choice.Profile
	MatchesAny bool                       // every query
	Outages    map[string]*refusal.Reason // by capability
}

// Fix keeps the end of what keeps calls away at that moment, rather than the time until then.
func (r *Record) Fix(at time.Time) {
	if r.RetryIn > 0 {
		r.Until, r.RetryIn = at.Add(r.RetryIn), 0
	}
}

// NoteOutages notes which of its capabilities are out.
func (r *Record) NoteOutages(outage func(capabilities []string) *refusal.Reason) {
	for _, capability := range r.Profile.Capabilities {
		if out := outage([]string{capability}); out != nil {
			if r.Outages == nil {
				r.Outages = make(map[string]*refusal.Reason)
			}
			r.Outages[capability] = out
		}
	}
}

// Mismatch returns the reason why a query does not accept the provider; nil when it does.
func (r *Record) Mismatch(q *query.Query) *refusal.Reason {
	if !r.MatchesAny {
		if why := Unmet(q, &r.Profile); why != nil {
			return why
		}
	}
	for _, wanted := range q.Require {
		if out := r.Outages[wanted]; out != nil {
			return out
		}
	}
	return nil
}

// Unmet returns the reason why a query does not accept a provider of that description; nil when it does.
func Unmet(q *query.Query, p *choice.Profile) *refusal.Reason {
	for _, wanted := range q.Require {
		if !slices.Contains(p.Capabilities, wanted) {
			return refusal.Lacking(wanted)
		}
	}
	if len(q.Only) > 0 && !slices.Contains(q.Only, p.Name) {
		return refusal.NotNamed()
	}
	if code, words := q.Where.Unmet(p); code != "" {
		return refusal.Unmet(code, words)
	}
	return nil
}

// chunkSize is the number of records that are copied for a change of one.
const chunkSize = 64

// chunk has consecutive records. It does not change once it is in a view.
type chunk struct {
	records [chunkSize]*Record // nil beyond the last one
	summary *summary           // nil: out of date
}

// summary says what the records of a chunk, or of a view, have in common.
type summary struct {
	gates    refusal.Gate  // of any
	eligible bool          // any is
	healthy  bool          // any has an empty gate
	depends  bool          // any does
	soonest  time.Time     // the first end of a refusal; zero: none is known
	codes    []reason.Code // of those that are not eligible, each once
}

func (s *summary) add(other *summary) {
	s.gates |= other.gates
	s.eligible, s.healthy, s.depends = s.eligible || other.eligible, s.healthy || other.healthy, s.depends || other.depends
	s.addEnd(other.soonest)
	for _, code := range other.codes {
		s.codes = withCode(s.codes, code)
	}
}

func (c *chunk) summarise() *summary {
	if c.summary == nil {
		c.summary = &summary{}
		for _, r := range c.records {
			if r == nil {
				break
			}
			c.summary.addRecord(r)
		}
	}
	return c.summary
}

func (s *summary) addRecord(r *Record) {
	s.gates, s.eligible = s.gates|r.Gate, s.eligible || r.Eligible
	s.healthy, s.depends = s.healthy || r.Gate == 0, s.depends || r.Depends
	if r.Eligible {
		return
	}
	s.addEnd(r.Until)
	s.codes = withCode(s.codes, r.Code)
}

// addEnd notes the end of a refusal; zero: none is known.
func (s *summary) addEnd(end time.Time) {
	if !end.IsZero() && (s.soonest.IsZero() || end.Before(s.soonest)) {
		s.soonest = end
	}
}

// Board has the records of providers in their order, as they are now. Its methods are called with the lock of its
// owner held, but for [Board.Latest]. A view of it costs nothing for a record that has not changed since the view
// before, and a change copies [chunkSize] of them.
type Board struct {
	size   int
	chunks []*chunk
	viewed []bool // the chunk is in a view
	causes uint64 // that the records follow
	view   atomic.Pointer[View]
}

// NewBoard returns the board of that many providers, whose records come from the function.
func NewBoard(size int, record func(i int) *Record) *Board {
	b := &Board{size: size}
	for i := range size {
		if i%chunkSize == 0 {
			b.chunks = append(b.chunks, &chunk{})
		}
		b.chunks[i/chunkSize].records[i%chunkSize] = record(i)
	}
	b.viewed = make([]bool, len(b.chunks))
	return b
}

// Set replaces the record of provider i.
func (b *Board) Set(i int, r *Record) {
	at := i / chunkSize
	if b.viewed[at] {
		copied := *b.chunks[at]
		b.chunks[at], b.viewed[at] = &copied, false
	}
	b.chunks[at].records[i%chunkSize], b.chunks[at].summary = r, nil
	b.view.Store(nil)
}

// Latest returns the view of the records as they are now; nil if none was made since they have changed, or since
// causes has grown, where other providers may be the reason. It takes no lock and may be called at any time.
func (b *Board) Latest(causes uint64) *View {
	if made := b.view.Load(); made != nil && (!made.summary.depends || made.causes == causes) {
		return made
	}
	return nil
}

// View returns the records as they are now. All callers share it until the next change. The records of which others
// may be the reason come from the function, once causes has grown.
func (b *Board) View(causes uint64, record func(i int) *Record) *View {
	if made := b.Latest(causes); made != nil {
		return made
	}
	if b.causes != causes {
		b.causes = causes
		b.follow(record)
	}
	v := &View{size: b.size, chunks: slices.Clone(b.chunks), causes: causes}
	for i, c := range b.chunks {
		v.summary.add(c.summarise())
		b.viewed[i] = true
	}
	b.view.Store(v)
	return v
}

// follow replaces the records of which other providers may be the reason.
func (b *Board) follow(record func(i int) *Record) {
	for at, c := range b.chunks {
		if !c.summarise().depends {
			continue
		}
		for i, r := range c.records {
			if r != nil && r.Depends {
				b.Set(at*chunkSize+i, record(at*chunkSize+i))
			}
		}
	}
}

// View has the records of a [Board] at one moment. It never changes.
type View struct {
	size    int
	chunks  []*chunk
	summary summary
	causes  uint64
}

// Len returns the number of records.
func (v *View) Len() int { return v.size }

// At returns record i.
func (v *View) At(i int) *Record { return v.chunks[i/chunkSize].records[i%chunkSize] }

// Any reports whether any record has one of the reasons.
func (v *View) Any(of refusal.Gate) bool { return v.summary.gates&of != 0 }

// AnyHealthy reports whether nothing at all keeps calls away from any.
func (v *View) AnyHealthy() bool { return v.summary.healthy }

// AnyEligible reports whether any is eligible.
func (v *View) AnyEligible() bool { return v.summary.eligible }

// Soonest returns when the first refusal ends by itself; zero when none does, or not at a known time.
func (v *View) Soonest() time.Time { return v.summary.soonest }

// Codes returns the codes of those that are not eligible, each once. They must not be changed.
func (v *View) Codes() []reason.Code { return v.summary.codes }

// Eligible yields the records of eligible providers with their numbers. It looks only where there are any.
func (v *View) Eligible() iter.Seq2[int, *Record] {
	return func(yield func(int, *Record) bool) {
		if !v.summary.eligible {
			return
		}
		for at, c := range v.chunks {
			if !c.summary.eligible {
				continue
			}
			for i, r := range c.records {
				if r != nil && r.Eligible && !yield(at*chunkSize+i, r) {
					return
				}
			}
		}
	}
}
