package control

import (
	"cmp"
	"context"
	"errors"
	"strings"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/capreg/registry/admin/action"
	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/oneline"
)

// Party is the side that asks, made once for each request.
type Party struct {
	// Authorize decides about an action and returns the name of the actor. Nil: reading is allowed, changing is not.
	Authorize func(a action.Action) (actor string, err error)
	// Remote is the network address of the party, without its port.
	Remote string
}

// Ask is one request for a change.
type Ask struct {
	Party

	// Match is the tag of the state that the change is based on, or several with commas between; "*": any. Empty: none was given, which is refused
	// unless the change is Unconditional.
	Match string
	// Unconditional allows the change without a tag.
	Unconditional bool
	// Reason is the one that the actor gives.
	Reason string
}

// longestReason bounds reasons, in bytes.
const longestReason = 256

// MayRead returns an error where the party may not read.
func (c *Control) MayRead(p Party) error {
	if p.Authorize == nil {
		return nil
	}
	_, err := decide(p, action.Action{Verb: action.Read})
	return err
}

// MayPlan returns an error where the party may not plan documents.
func (c *Control) MayPlan(p Party) error {
	_, err := decide(p, action.Action{Verb: action.Plan})
	return err
}

// MayChange reports whether the party may do that, or may after it has been asked for credentials, for pages that offer
// it. Nothing is recorded.
func (c *Control) MayChange(p Party, a action.Action) bool {
	_, err := decide(p, a)
	var refusal *Error
	return err == nil || errors.As(err, &refusal) && refusal.Kind == Unauthenticated
}

// decide asks the authoriser.
func decide(p Party, a action.Action) (actor string, err error) {
	if p.Authorize == nil {
		return "", &Error{Kind: ReadOnly, Text: "nothing can be changed here: the program has given no authoriser"}
	}
	failed := fault.Run(func() error { actor, err = p.Authorize(a); return nil })
	switch err = cmp.Or(failed, err); {
	case err == nil:
		return oneline.Short(actor, longestName), nil
	case errors.Is(err, action.ErrUnauthenticated):
		return oneline.Short(actor, longestName), &Error{Kind: Unauthenticated, Text: "credentials are missing or wrong"}
	}
	return oneline.Short(actor, longestName), &Error{Kind: Denied, Text: "this is not allowed to you", Err: err}
}

// admit decides about a change: whether the party may make it, and whether it comes too fast. It returns the record of
// it, which is written with its outcome.
func (c *Control) admit(ask Ask, a action.Action) (action.Record, error) {
	r := action.Record{Action: a, Remote: oneline.Short(ask.Remote, longestName), Reason: oneline.Short(ask.Reason, longestReason)}
	var err error
	if r.Actor, err = decide(ask.Party, a); err != nil {
		if wait := c.refusals.wait("refused " + ask.Remote); wait > 0 {
			c.suppressed.Add(1) // a record of each would be a way to fill the log
			return r, &Error{Kind: TooMany, Text: "too many refused requests", RetryIn: wait}
		}
		return r, c.write(r, err)
	}
	if wait := c.changes.wait(r.Actor); wait > 0 {
		return r, c.write(r, &Error{Kind: TooMany, Text: "too many changes", RetryIn: wait})
	}
	return r, nil
}

// write completes a record with the outcome and publishes it. It returns the error as a refusal.
func (c *Control) write(r action.Record, err error) error {
	r.Outcome = action.Done
	refusal := refusalOf(err)
	if refusal != nil {
		r.Outcome, r.Detail = refusal.outcome(), refusal.Error()
	}
	r.Detail = oneline.Short(r.Detail, 1024)
	r.Time = time.Now()
	r.Suppressed = c.suppressed.Swap(0)
	r = c.feed.audit(r)
	c.log(r)
	if c.options.Audit != nil {
		_ = fault.Run(func() error { c.options.Audit(r); return nil })
	}
	if refusal != nil {
		return refusal
	}
	return nil
}

// log writes a record as one line.
func (c *Control) log(r action.Record) {
	if c.options.Logger == nil {
		return
	}
	level := zapcore.InfoLevel
	if r.Outcome == action.Refused || r.Outcome == action.Failed {
		level = zapcore.WarnLevel
	}
	_ = fault.Run(func() error {
		c.options.Logger.Log(level, "registry changed by an operator",
			zap.String("action", string(r.Verb)), zap.String("outcome", string(r.Outcome)), zap.String("actor", r.Actor),
			zap.String("remote", r.Remote), zap.String("service", r.Service), zap.String("provider", r.Provider),
			zap.String("component", r.Component), zap.String("reason", r.Reason), zap.String("detail", r.Detail),
			zap.Uint64("suppressed", r.Suppressed))
		return nil
	})
}

// do makes a change that the party may make, one at a time, and writes the record of it. The function returns what was
// changed, in words; it does not block.
func (c *Control) do(ask Ask, a action.Action, change func(actor string) (detail string, err error)) error {
	r, err := c.admit(ask, a)
	if err != nil {
		return err
	}
	c.mu.Lock()
	r.Detail, err = change(r.Actor)
	c.mu.Unlock()
	c.snapshots.forget()
	return c.write(r, err)
}

// doSlowly is do for a change that may block, within ctx.
func (c *Control) doSlowly(ctx context.Context, ask Ask, a action.Action, change func(ctx context.Context, actor string) (string, error)) error {
	r, err := c.admit(ask, a)
	if err != nil {
		return err
	}
	r.Detail, err = change(ctx, r.Actor)
	c.snapshots.forget()
	return c.write(r, err)
}

// matches checks what a change is based on against what is there.
func (ask Ask) matches(tag string) error {
	for match := range strings.SplitSeq(ask.Match, ",") {
		if match = strings.TrimSpace(match); match == "*" || match == tag {
			return nil
		}
	}
	if ask.Match == "" {
		if ask.Unconditional {
			return nil
		}
		return &Error{Kind: Unconditional, Text: "say what the change is based on, with If-Match: the ETag that was read, or *", Tag: tag}
	}
	return &Error{Kind: Stale, Text: "it was changed meanwhile", Tag: tag}
}
