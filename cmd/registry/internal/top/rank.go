package top

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/capreg/registry/cmd/registry/internal/plain"
	"github.com/capreg/registry/reason"
)

// tone is the colour of a state, which its shape and its word say too.
type tone int

const (
	good tone = iota
	idle
	warning
	bad
)

// mark shows a state by a shape, a word and a colour; a lower rank is worse.
type mark struct {
	glyph, word string
	tone        tone
	rank        int
}

// markOf returns the mark of a provider.
func markOf(p *Provider) mark {
	switch code := reason.Code(p.Code); code {
	case reason.Unhealthy:
		return mark{"✖", "unhealthy", bad, 0}
	case reason.BreakerOpen:
		return mark{"▲", "breaker open", bad, 0}
	case reason.Parked:
		return mark{"◼", "parked", bad, 0}
	case reason.TrialsFull, reason.Trial:
		return mark{"◐", "half-open", warning, 1}
	case reason.CoolingDown:
		return mark{"◔", "cooling down", warning, 1}
	case reason.AtCapacity:
		return mark{"▣", "no free place", warning, 2}
	case reason.NoTraffic:
		return mark{"◇", "drained", idle, 3}
	case reason.Eligible:
		if p.State == "degraded" {
			return mark{"◆", "degraded", warning, 2}
		}
		return mark{"●", "healthy", good, 5}
	default:
		return mark{"○", strings.ReplaceAll(plain.Line(p.Code), "_", " "), idle, 3}
	}
}

// serviceMark returns the mark of a service, all of whose providers are known.
func serviceMark(s *Service) mark {
	switch {
	case s.Eligible == 0:
		return mark{"✖", "NO PROVIDER", bad, -1}
	case s.State == "healthy":
		return mark{"●", "healthy", good, 5}
	case s.State == "unhealthy":
		return mark{"✖", "unhealthy", bad, 0}
	}
	return mark{"◆", plain.Line(s.State), warning, 2}
}

// line is one of the list: a service, or with a provider that one.
type line struct {
	service  *Service
	provider *Provider
}

// id tells lines of several snapshots apart.
type id struct{ service, provider string }

func (l line) id() id {
	if l.provider == nil {
		return id{service: l.service.Name}
	}
	return id{l.service.Name, l.provider.Name}
}

// rank returns that of the service and of the worst of its providers.
func (s *Service) rank() int {
	rank := serviceMark(s).rank
	if rank < 0 {
		return rank // without an eligible provider it is before all others
	}
	for i := range s.Providers {
		rank = min(rank, markOf(&s.Providers[i]).rank)
	}
	return rank
}

// linesOf returns services and their providers that have a text, worst first.
func linesOf(s *Snapshot, filter string) (lines []line) {
	services := make([]*Service, 0, len(s.Services))
	ranks := make(map[*Service]int, len(s.Services))
	for i := range s.Services {
		service := &s.Services[i]
		services, ranks[service] = append(services, service), service.rank()
	}
	slices.SortStableFunc(services, func(a, b *Service) int {
		return cmp.Or(cmp.Compare(ranks[a], ranks[b]), cmp.Compare(a.Name, b.Name))
	})
	filter = strings.ToLower(filter)
	for _, service := range services {
		named, providers := contains(filter, service.Name), service.with(filter)
		if !named && len(providers) == 0 {
			continue
		}
		lines = append(lines, line{service: service})
		for _, p := range providers {
			lines = append(lines, line{service, p})
		}
	}
	return lines
}

// with returns the providers that have a text, all where the service has it in its name, worst first.
func (s *Service) with(filter string) (providers []*Provider) {
	named := contains(filter, s.Name)
	for i := range s.Providers {
		if p := &s.Providers[i]; named || p.has(filter) {
			providers = append(providers, p)
		}
	}
	slices.SortStableFunc(providers, func(a, b *Provider) int {
		return cmp.Or(cmp.Compare(markOf(a).rank, markOf(b).rank), cmp.Compare(a.Group, b.Group), cmp.Compare(a.Name, b.Name))
	})
	return providers
}

// has reports whether a text is in what is shown of the provider.
func (p *Provider) has(filter string) bool {
	return contains(filter, p.Name, markOf(p).word, p.Code, p.Reason, p.lastError())
}

func contains(filter string, texts ...string) bool {
	return slices.ContainsFunc(texts, func(text string) bool { return strings.Contains(strings.ToLower(text), filter) })
}

func (p *Provider) lastError() string {
	if p.LastError == nil {
		return ""
	}
	return p.LastError.Text
}

// breakerText says how the breaker is, with the time until its next trial, or until the end of a cooldown.
func (p *Provider) breakerText(now time.Time) string {
	text := plain.Line(p.Breaker.State)
	if p.Breaker.Forced {
		text = "forced"
	}
	if next := p.Breaker.NextTrial; !next.IsZero() {
		return text + ", trial " + in(next, now)
	}
	if p.Cooldown != nil && p.Cooldown.Until.After(now) {
		return text + ", rest " + in(p.Cooldown.Until, now)
	}
	return text
}

// in says how far away a moment is.
func in(at, now time.Time) string {
	left := at.Sub(now).Round(time.Second)
	switch {
	case left <= 0:
		return "now"
	case left < time.Minute:
		return fmt.Sprintf("in %d s", left/time.Second)
	case left < time.Hour:
		return fmt.Sprintf("in %d min", left/time.Minute)
	}
	return fmt.Sprintf("in %d h", left/time.Hour)
}
