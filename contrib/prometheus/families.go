package registryprom

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/capreg/registry/metrics"
	"github.com/capreg/registry/reason"
	"github.com/capreg/registry/status"
)

// family is a metric of every provider: a number, or one for each word of a list.
type family struct {
	of      *prometheus.Desc
	counter bool
	words   *words // nil: one number without a word
	single  bool   // several providers have no sum of it
	add     func(p *metrics.Provider, to cells)
}

// families are sent in this order. A counter of what can happen to a provider begins at 0; the others are shown when
// they are not 0.
//
//nolint:gochecknoglobals // immutable
var families = []family{
	{of: perProvider("attempt_active", "Attempts in progress."), add: func(p *metrics.Provider, to cells) {
		to.add(0, float64(p.InFlight))
	}},
	{of: perProvider("selections_total", "Attempts, by what they were made for.", "reason"), counter: true, words: &whys, add: addSelections},
	{of: perProvider("attempt_rejections_total", "Calls that were turned away by a provider that looked eligible.", "reason"), counter: true, words: &codes, add: addRejections},
	{of: perProvider("circuit_breaker_status", "1 for the present state of the breaker.", "state"), words: &breakers, add: func(p *metrics.Provider, to cells) {
		for word, state := range breakers.texts {
			to.add(word, one(p.Breaker == state))
		}
	}},
	{of: perProvider("circuit_breaker_transitions_total", "Changes of the breaker to the state.", "state"), counter: true, words: &breakers, add: addTransitions},
	{of: perProvider("provider_status", "1 for the present health of the provider.", "state"), words: &healths, add: func(p *metrics.Provider, to cells) {
		for _, word := range healthsFrom0 {
			to.add(word, 0)
		}
		to.add(healths.at[p.Health.String()], 1)
	}},
	{of: perProvider("provider_standing", "1 for the word that says how the provider stands to a call.", "reason"), words: &codes, add: func(p *metrics.Provider, to cells) {
		to.add(codes.at[string(p.Code)], 1)
	}},
	{of: perProvider("provider_back_timestamp_seconds", "When the provider comes back by itself, if that is known."), single: true, add: func(p *metrics.Provider, to cells) {
		if !p.BackAt.IsZero() {
			to.add(0, float64(p.BackAt.UnixMilli())/1000)
		}
	}},
	{of: perProvider("limit_places", "Attempts that the failure domain of the provider admits at a time, if that is limited."), add: func(p *metrics.Provider, to cells) {
		to.addIf(p.Places > 0, 0, float64(p.Places))
	}},
	{of: perProvider("limit_places_used", "Places taken of these."), add: func(p *metrics.Provider, to cells) {
		to.addIf(p.Places > 0, 0, float64(p.InUse.Places))
	}},
	{of: perProvider("queue_limit", "Calls that may wait for a place, if places are limited."), add: func(p *metrics.Provider, to cells) {
		to.addIf(p.Places > 0, 0, float64(p.Queue))
	}},
	{of: perProvider("queue_calls", "Calls that wait for a place, if places are limited."), add: func(p *metrics.Provider, to cells) {
		to.addIf(p.Places > 0, 0, float64(p.InUse.Queued))
	}},
	{of: perProvider("retry_budget_tokens", "Tokens left for further attempts, if these are limited."), add: func(p *metrics.Provider, to cells) {
		to.addIf(p.BudgetSize > 0, 0, p.Budget.Left)
	}},
	{of: perProvider("retry_budget_limit", "Tokens of a full budget, if there is one."), add: func(p *metrics.Provider, to cells) {
		to.addIf(p.BudgetSize > 0, 0, float64(p.BudgetSize))
	}},
}

func perProvider(name, help string, word ...string) *prometheus.Desc {
	return desc(name, help, append([]string{"service", "provider"}, word...)...)
}

func addSelections(p *metrics.Provider, to cells) {
	for word, text := range whys.texts {
		why := reason.Why(text)
		can := why == reason.First || why == reason.Failover || why == reason.Retry && p.Retries > 0
		times := p.Whys[why]
		to.addIf(can || times > 0, word, float64(times))
	}
}

func addRejections(p *metrics.Provider, to cells) {
	to.addIf(p.Authorized, denied, 0)
	to.addIf(p.Rate > 0, throttled, 0)
	to.addIf(p.Places > 0, atCapacity, 0)
	to.addIf(p.BudgetSize > 0, budgetSpent, 0)
	for code, times := range p.Refusals {
		to.addIf(times > 0, codes.at[string(code)], float64(times))
	}
}

// addTransitions shows all of them when there was a first opening: only that can be followed by another one.
func addTransitions(p *metrics.Provider, to cells) {
	to.add(opened, float64(p.Opened))
	to.addIf(p.Opened+p.HalfOpened+p.Closed > 0, halfOpened, float64(p.HalfOpened))
	to.addIf(p.Opened+p.HalfOpened+p.Closed > 0, closed, float64(p.Closed))
}

// Places in the lists of words.
//
//nolint:gochecknoglobals // immutable
var (
	denied, throttled       = codes.at[string(reason.Denied)], codes.at[string(reason.Throttled)]
	budgetSpent, atCapacity = codes.at[string(reason.BudgetSpent)], codes.at[string(reason.AtCapacity)]
	opened, halfOpened      = breakers.at[status.BreakerOpen.String()], breakers.at[status.BreakerHalfOpen.String()]
	closed                  = breakers.at[status.BreakerClosed.String()]
)

// one returns 1 for what is so, and 0 for what is not.
func one(so bool) float64 {
	if so {
		return 1
	}
	return 0
}

// Rooms for the numbers and the classes of outcomes that a provider mostly has.
const usualCells, usualOutcomes = 16, 2

// cell is a number of a row: of a family and, where that has words, of one of them.
type cell struct {
	at    int // the first of its family, and the word
	value float64
}

// cells are those of one family in a row.
type cells struct {
	row   *providerRow
	first int
}

// add adds to a number, which is shown from then on, also as 0.
func (c cells) add(word int, value float64) { c.row.increase(c.first+word, value) }

func (c cells) addIf(can bool, word int, value float64) {
	if can {
		c.add(word, value)
	}
}

func (f *family) width() int {
	if f.words == nil {
		return 1
	}
	return len(f.words.texts)
}

// place says what a number is.
type place struct {
	family *family
	word   int
}

// places are those of all numbers that a row can have.
//
//nolint:gochecknoglobals // immutable
var places = func() (all []place) {
	for i := range families {
		f := &families[i]
		for word := range f.width() {
			all = append(all, place{f, word})
		}
	}
	return all
}()
