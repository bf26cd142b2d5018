package attemptctx

import (
	"context"
	"time"

	"github.com/capreg/registry/internal/fault"
)

// Caller is the context that a call was made with. Its deadline is asked for once.
type Caller struct {
	Ctx         context.Context //nolint:containedctx // lives as long as the call
	Deadline    time.Time
	HasDeadline bool
}

// CallerOf returns the caller with that context, whose methods are a user's.
func CallerOf(ctx context.Context) Caller {
	c := Caller{Ctx: ctx}
	c.Deadline, c.HasDeadline = ctx.Deadline()
	return c
}

// Err returns the error of the caller's context, also when its deadline has passed and its timer has yet to fire.
func (c *Caller) Err() error {
	if err := fault.EndOf(c.Ctx); err != nil {
		return fault.Bound(err)
	}
	if c.HasDeadline && !time.Now().Before(c.Deadline) {
		return context.DeadlineExceeded
	}
	return nil
}
