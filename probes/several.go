package probes

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/capreg/registry/health"
	"github.com/capreg/registry/internal/oneline"
)

var (
	errNothing = errors.New("no probes")
	errExited  = errors.New("the probe ended its goroutine (runtime.Goexit)")
	errEnough  = errors.New("another probe is healthy")
)

// All returns a probe that is healthy when all of the given ones are. They run at once, each in
// a goroutine of its own, under the context of the probe. It returns when all have returned, so
// they must heed that context.
//
// The error names the failed probes, in the order of their names; without a failure, the
// degraded ones, and is then a degraded answer itself. A probe that panics or ends its
// goroutine fails, and the others go on. Of a resource that several report with [health.Use]
// the highest share is reported. named is copied; an empty one is healthy.
func All(named map[string]health.Probe) health.Probe {
	named = maps.Clone(named)
	return func(ctx context.Context) error {
		parts := run(ctx, named, func(*part) {})
		reportUsage(ctx, shares(parts))
		if failed := those(parts, fails); len(failed) > 0 {
			return joined(failed)
		}
		return health.Limp(joined(those(parts, limps)))
	}
}

// Any returns a probe that is healthy when one of the given ones is. They run at once, each in
// a goroutine of its own. The first healthy one ends the context of the others. The probe
// returns when all have returned, so they must heed that context.
//
// When none is healthy the error names all of them, in the order of their names; it is a
// degraded answer when one of them is. A probe that panics or ends its goroutine fails, and the
// others go on. The reported usage is that of the healthy probe, else of the degraded ones,
// else of all: see [All]. named is copied; an empty one fails.
func Any(named map[string]health.Probe) health.Probe {
	named = maps.Clone(named)
	return func(ctx context.Context) error {
		if len(named) == 0 {
			return errNothing
		}
		race, end := context.WithCancelCause(ctx)
		defer end(nil)
		var first sync.Once
		var winner []*part
		parts := run(race, named, func(p *part) {
			if p.outcome == well {
				first.Do(func() {
					winner = []*part{p}
					end(errEnough)
				})
			}
		})
		limping := those(parts, limps)
		switch {
		case winner != nil:
			reportUsage(ctx, shares(winner))
			return nil
		case len(limping) > 0:
			reportUsage(ctx, shares(limping))
			return health.Limp(unlessAllOut(parts))
		}
		reportUsage(ctx, shares(parts))
		return unlessAllOut(parts)
	}
}

// unlessAllOut returns the errors of the parts as one, which is no [health.Out] while one of them may come back: then
// those that are out leave the mark behind.
func unlessAllOut(parts []*part) error {
	if slices.ContainsFunc(parts, func(p *part) bool { return !p.out }) {
		for _, p := range parts {
			for p.out && p.err != nil && health.IsOut(p.err) {
				p.err = errors.Unwrap(p.err) // nil where it has several causes
			}
		}
	}
	return joined(parts)
}

// outcome is the result of one of several probes.
type outcome uint8

const (
	fails outcome = iota
	limps
	well
)

// part is one of several probes.
type part struct {
	name    string
	probe   health.Probe
	outcome outcome
	out     bool // a failure that counts at once
	err     error
	text    string

	// mu guards shares: a probe may have goroutines of its own.
	mu     sync.Mutex
	shares map[string]float64
}

// run runs the probes, calls ended in the goroutine of each, and returns when all
// have ended, in the order of their names.
func run(ctx context.Context, named map[string]health.Probe, ended func(*part)) []*part {
	parts := make([]*part, 0, len(named))
	var running sync.WaitGroup
	for _, name := range slices.Sorted(maps.Keys(named)) {
		p := &part{name: name, probe: named[name]}
		parts = append(parts, p)
		running.Go(func() {
			defer ended(p)
			p.run(ctx)
		})
	}
	running.Wait()
	return parts
}

func (p *part) run(ctx context.Context) {
	returned := false
	defer func() {
		if returned {
			return
		}
		p.outcome, p.out, p.err = fails, false, errExited
		if value := recover(); value != nil {
			// The value may be an error made by Limp, which must not become a cause.
			p.err = fmt.Errorf("the probe panicked: %v", value)
		}
		p.text = textOf(p.err)
	}()
	p.err = errNoProbe
	if p.probe != nil {
		p.err = p.probe(health.WithUse(ctx, p.use))
	}
	// The methods of the error are user code, too.
	switch {
	case p.err == nil:
		p.outcome = well
	case health.IsLimp(p.err):
		p.outcome, p.text = limps, textOf(p.err)
	default:
		p.outcome, p.out, p.text = fails, health.IsOut(p.err), textOf(p.err)
	}
	returned = true
}

func (p *part) use(resource string, share float64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.shares == nil {
		p.shares = make(map[string]float64)
	}
	p.shares[resource] = share
}

func those(parts []*part, are outcome) []*part {
	var found []*part
	for _, p := range parts {
		if p.outcome == are {
			found = append(found, p)
		}
	}
	return found
}

// joined returns the errors of the parts as one, nil for none.
func joined(parts []*part) error {
	if len(parts) == 0 {
		return nil
	}
	texts, causes := make([]string, len(parts)), make([]error, 0, len(parts))
	for i, p := range parts {
		texts[i] = oneline.Of(p.name) + ": " + p.text
		if p.err != nil {
			causes = append(causes, p.err)
		}
	}
	return &failure{text: strings.Join(texts, "; "), causes: causes}
}

// shares returns the usage of the parts; of a resource that several use, the highest share.
func shares(parts []*part) map[string]float64 {
	highest := make(map[string]float64)
	for _, p := range parts {
		p.mu.Lock()
		for resource, share := range p.shares {
			highest[resource] = max(highest[resource], share)
		}
		p.mu.Unlock()
	}
	return highest
}

// reportUsage reports the usage, always in the same order.
func reportUsage(ctx context.Context, shares map[string]float64) {
	for _, resource := range slices.Sorted(maps.Keys(shares)) {
		health.Use(ctx, resource, shares[resource])
	}
}
