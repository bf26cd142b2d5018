package probe

import (
	"slices"
	"time"

	"github.com/capreg/registry/health"
	"github.com/capreg/registry/internal/record"
)

const historyLength = 32 // transitions that are remembered, for each provider

// Condition is the health of one provider: what its probes have found, the mark of the program, and the state that was
// published last. Use [Condition.Begin] before anything else. The lock of the host guards all of it.
type Condition struct {
	Policy health.Policy // with its defaults
	Watch  *Watch        // nil: there never was anything to probe or to recover

	mark      error // of the program; nil: none
	markText  string
	published health.State
	since     time.Time
	reason    string                            // that was published last
	history   *record.Latest[health.Transition] // nil before the first transition
}

// Begin makes it that of a provider that is healthy as far as is known.
func (c *Condition) Begin(policy health.Policy) {
	c.Policy, c.since, c.published = policy, time.Now(), health.Healthy
}

// Mark makes the provider unhealthy for that reason, whatever its probes say; nil ends that, and counts as the successes
// that an unhealthy provider needs.
func (c *Condition) Mark(unhealthy error, text string) {
	if c.mark, c.markText = unhealthy, text; unhealthy == nil {
		c.Watch.MarkHealthy()
	}
}

// State returns the present state: draining for a provider that has left, else the mark, else the result of the probes.
func (c *Condition) State(left bool) (state health.State, reason string, cause error) {
	switch {
	case left:
		return health.Draining, "", nil
	case c.mark != nil:
		return health.Unhealthy, c.markText, c.mark
	}
	return c.Watch.State()
}

// Answers reports whether the provider is healthy or degraded.
func (c *Condition) Answers(left bool) bool {
	state, _, _ := c.State(left)
	return state == health.Healthy || state == health.Degraded
}

// Score returns the score of the present state.
func (c *Condition) Score() float64 {
	if c.mark != nil {
		return 0
	}
	return c.Watch.Score()
}

// Status returns all that is known; because is asked where it is not well.
func (c *Condition) Status(left bool, because func() []string) health.Status {
	s := c.Watch.Status()
	s.State, s.Reason, s.Err = c.State(left)
	s.Since, s.Score, s.Groups = c.since, c.Score(), slices.Clone(c.Policy.Groups)
	if s.State != health.Healthy && s.State != health.Draining {
		s.Because = slices.Clone(because())
	}
	return s
}

// History returns the last transitions, oldest first.
func (c *Condition) History() []health.Transition { return c.history.Values() }

// AwaitFirst makes unknown the state that counts as published, if it is unknown, and reports whether it is.
func (c *Condition) AwaitFirst() bool {
	state, _, _ := c.Watch.State()
	if state == health.Unknown {
		c.published = health.Unknown
	}
	return state == health.Unknown
}

// IsUnhealthy reports whether unhealthy is the state that was published last, and UnhealthySince whether it has been
// since then.
func (c *Condition) IsUnhealthy() bool { return c.published == health.Unhealthy }

// UnhealthySince is described with [Condition.IsUnhealthy].
func (c *Condition) UnhealthySince(since time.Time) bool {
	return c.IsUnhealthy() && c.since.Equal(since)
}

// Changed reports whether the present state is another one than was published.
func (c *Condition) Changed(left bool) bool {
	state, _, _ := c.State(left)
	return state != c.published
}

// Publish makes the present state the published one, and returns the change to tell; false: there is none. One more
// failure in the same state is no change, but another mark is. words completes the reason of a state that is not well.
func (c *Condition) Publish(left bool, words func(reason string) string) (t health.Transition, cause error, tell bool) {
	state, reason, cause := c.State(left)
	if state != health.Healthy {
		reason = words(reason)
	}
	t = health.Transition{Time: c.since, From: c.published, To: state, Reason: reason}
	switch {
	case state == c.published && (state != health.Unhealthy || reason == c.reason):
		return t, nil, false
	case state == c.published:
		c.reason = reason
		return t, cause, c.mark != nil
	}
	c.reason, c.published, c.since = reason, state, time.Now()
	if c.history == nil {
		c.history = record.NewLatest[health.Transition](historyLength)
	}
	t.Time, t.Score = c.since, c.Score()
	c.history.Add(t)
	if t.From == health.Unhealthy {
		c.Watch.ResetRecovery()
	}
	return t, cause, true
}
