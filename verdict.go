package registry

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/capreg/registry/event"
	"github.com/capreg/registry/internal/schedule"
	"github.com/capreg/registry/verdict"
)

// classifyError asks the provider's classifier, the registry's and the built-in one.
func (p *provider) classifyError(err error) verdict.Verdict {
	for _, classify := range []verdict.Classifier{p.classify, p.registry.options.Classify} {
		if classify == nil {
			continue
		}
		var v verdict.Verdict
		if guard(func() error { v = classify(err); return nil }) == nil && v != (verdict.Verdict{}) {
			return v
		}
	}
	var v verdict.Verdict
	if guard(func() error { v = verdict.Of(err); return nil }) != nil {
		return verdict.Verdict{} // an error whose own methods panic
	}
	return v
}

// The cooldowns that no server has stated: first, then doubled each time up to
// the last.
const (
	firstShortCooldown = time.Second
	lastShortCooldown  = 30 * time.Second
	firstAskedCooldown = 2 * time.Second
	lastAskedCooldown  = time.Minute
	firstModelCooldown = time.Minute
	lastModelCooldown  = 10 * time.Minute
	firstLongCooldown  = 5 * time.Minute
	lastLongCooldown   = time.Hour

	longestCooldown = 24 * time.Hour // whatever a server says
)

// cooldown is how long a provider is left alone. Guarded by Registry.mu.
type cooldown struct {
	until  time.Time // zero: not cooling down
	class  verdict.Class
	reason error
	grown  int // cooldowns since the last success
	timer  *schedule.Timer
}

// cool leaves the provider alone as the verdict says. The latest deadline wins;
// outcomes during a cooldown prolong it at most and do not make it grow.
func (p *provider) cool(v verdict.Verdict, kind verdict.Cooldown, cause error) {
	p.registry.mu.Lock()
	defer p.registry.mu.Unlock()
	if p.gateNow()&gateGone != 0 {
		return
	}
	c := &p.cooldown
	length := v.After
	switch kind {
	case verdict.CooldownShort:
		length = c.length(v.After, firstShortCooldown, lastShortCooldown)
	case verdict.CooldownAsked:
		length = c.length(v.After, firstAskedCooldown, lastAskedCooldown)
	case verdict.CooldownModel:
		length = c.length(v.After, firstModelCooldown, lastModelCooldown)
	case verdict.CooldownLong:
		length = c.length(v.After, firstLongCooldown, lastLongCooldown)
	case verdict.CooldownNone, verdict.CooldownReset:
	}
	length = min(length, longestCooldown)
	until := time.Now().Add(length)
	cooling := !c.until.IsZero()
	if length <= 0 || cooling && !until.After(c.until) {
		return
	}
	if !cooling && kind != verdict.CooldownNone {
		c.grown++
		p.grown.Store(true)
	}
	// A provider that is parked stays so in name when a rate limit prolongs it.
	if !cooling || c.class != verdict.ClassFatal {
		c.class, c.reason = v.Class, cause
	}
	c.until = until
	if c.timer != nil {
		c.timer.Stop()
	}
	c.timer = p.registry.schedule.After(length, p.cooled)
	var change *event.Event
	if parks := v.Class == verdict.ClassFatal; parks || !cooling {
		change = &event.Event{Kind: event.Cooling, Reason: v.Class.String(), Until: until, Err: cause}
		if parks {
			change.Kind = event.Parked
		}
	}
	p.shiftLocked(0, gateCooling, change)
}

// length is what the server asked for plus up to a tenth, never less, so that
// its clients do not return together; without that, a growing length of which
// up to a half is random.
func (c *cooldown) length(asked, first, last time.Duration) time.Duration {
	if asked > 0 {
		asked = min(asked, longestCooldown)
		return asked + rand.N(asked/10+1) //nolint:gosec // jitter
	}
	grown := last
	if c.grown < 16 && first<<c.grown < last {
		grown = first << c.grown
	}
	return grown/2 + rand.N(grown/2+1) //nolint:gosec // jitter
}

// cooled ends the cooldown when its time is over.
func (p *provider) cooled() {
	p.registry.mu.Lock()
	defer p.registry.mu.Unlock()
	if !p.cooldown.until.IsZero() && !time.Now().Before(p.cooldown.until) {
		p.endCooldownLocked("its time is over")
	}
}

func (p *provider) endCooldownLocked(reason string) {
	c := &p.cooldown
	if c.until.IsZero() {
		return
	}
	c.until, c.reason = time.Time{}, nil
	if c.timer != nil {
		c.timer.Stop()
		c.timer = nil
	}
	p.shiftLocked(gateCooling, 0, &event.Event{Kind: event.CooldownEnded, Reason: reason})
}

// endCooldown ends the cooldown and its growth.
func (p *provider) endCooldown() {
	p.registry.mu.Lock()
	defer p.registry.mu.Unlock()
	p.cooldown.grown = 0
	p.grown.Store(false)
	p.endCooldownLocked("reset")
}

// parked says that only an operator can end the reason for the cooldown.
func (c *cooldown) parked() bool { return c.class == verdict.ClassFatal }

// forgive ends the growth of cooldowns after a success; one in progress stays.
func (p *provider) forgive() {
	p.registry.mu.Lock()
	defer p.registry.mu.Unlock()
	p.cooldown.grown = 0
	p.grown.Store(false)
}

// judge says what an outcome means. The contexts come first: a caller that went
// away blames nobody, and the attempt's own timeout is told from the caller's.
func (a *attempt) judge(err error) verdict.Verdict {
	if err == nil {
		return verdict.Verdict{Class: verdict.ClassSuccess}
	}
	if ended := a.caller.Err(); ended != nil {
		if errors.Is(ended, context.DeadlineExceeded) {
			return verdict.Verdict{Class: verdict.ClassCallerDeadline}
		}
		return verdict.Verdict{Class: verdict.ClassCancelled}
	}
	if a.own != nil {
		switch cause := a.own.cause(); {
		case errors.Is(cause, ErrAttemptTimeout):
			a.ended = cause
			return verdict.Verdict{Class: verdict.ClassAttemptTimeout}
		case errors.Is(cause, ErrClosed):
			a.ended = cause
			return verdict.Verdict{Class: verdict.ClassRemoved}
		}
	}
	return a.provider.classifyError(err)
}
