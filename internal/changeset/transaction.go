package changeset

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/capreg/registry/internal/comeback"
	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/limit"
	"github.com/capreg/registry/selection"
	"github.com/capreg/registry/status"
)

// Host has the members that a [Transaction] changes, each change by its index. Its methods are called with its lock
// held, but for those that say so.
type Host interface {
	sync.Locker
	// Open returns the error of a host that takes no changes any more.
	Open() error
	// Complete fills in what a change says of its provider. It may be called more than once.
	Complete(i int, c *Change) error
	// Accept returns the error of a change that fits the set, but not its provider.
	Accept(i int) error
	// Make makes the newcomer of a change, which is no member yet. It has to prove itself within that time, unless that
	// is zero. Prove, called without the lock, begins the proof.
	Make(i int) (within time.Duration)
	Prove(i int)
	// Proof tells how far a newcomer has proven itself, and Changed returns a channel that is closed when that of any may
	// have changed. Unproven returns the error of one that has not, or not in time.
	Proof(i int) Proof
	Changed() <-chan struct{}
	Unproven(i int, late bool) error
	// Prepare is called for each change before the first is applied, and Apply then makes it. It cannot fail.
	Prepare(i int)
	Apply(i int)
	// SetStrategy and SetLimits set what the provider brings, if it is not so already.
	SetStrategy(by status.ProviderID, strategy selection.Strategy)
	SetLimits(by status.ProviderID, policy limit.Policy)
	// Done is called when all changes are made.
	Done()
	// Refuse returns the error of a refused change, and Join one of several; none: nil. They need no lock.
	Refuse(no Refusal) error
	Join(errs []error) error
}

// Transaction makes the changes of a set at one moment, or none of them. It is for one [Transaction.Run].
//
//	state    | next, where all is well               | otherwise
//	new      | made: the newcomers, which fit        | refused
//	made     | proven: none of them has failed       | refused
//	proven   | applied, if the set still fits        | refused
type Transaction struct {
	Host    Host
	World   World
	Rules   Rules
	Changes []Change

	plan    Plan
	proofs  Proofs // of the newcomers that have to prove themselves
	applied bool
}

// Run makes the changes. It blocks while newcomers prove themselves, within ctx. Where it returns an error, or panics
// as a context of a user may, the newcomers remain to be dropped, unless the host is done.
func (t *Transaction) Run(ctx context.Context) error {
	if err := t.begin(); err != nil || t.applied {
		return err
	}
	for _, i := range t.proofs.All() {
		t.Host.Prove(i)
	}
	for began := time.Now(); ; {
		left, changed, err := t.applyIfProven(time.Since(began))
		if err != nil || t.applied {
			return err
		}
		if comeback.Await(ctx, left, changed) == comeback.Cancelled {
			return t.giveUp(fault.OfContext(ctx))
		}
	}
}

// Check returns the error that Run would return now, as far as it is known before the newcomers are made. It changes
// nothing of the members.
func (t *Transaction) Check() error {
	t.Host.Lock()
	defer t.Host.Unlock()
	return t.check()
}

// begin checks the set, makes the newcomers and, unless one of them has to prove itself, applies the set.
func (t *Transaction) begin() error {
	t.Host.Lock()
	defer t.Host.Unlock()
	if err := t.check(); err != nil {
		return err
	}
	for i := range t.Changes {
		if t.Changes[i].Kind != Join {
			continue
		}
		if within := t.Host.Make(i); within > 0 {
			t.proofs.Add(i, within)
		}
	}
	if len(t.proofs.All()) == 0 {
		t.apply()
	}
	return nil
}

// check checks the set against the present members, whatever was checked before.
func (t *Transaction) check() error {
	if err := t.Host.Open(); err != nil {
		return err
	}
	var errs []error
	for i := range t.Changes {
		if err := t.Host.Complete(i, &t.Changes[i]); err != nil {
			errs = append(errs, err)
		}
	}
	if len(errs) > 0 {
		return t.Host.Join(errs)
	}
	plan, refused := Resolve(t.World, t.Changes, t.Rules)
	for _, no := range refused {
		errs = append(errs, t.Host.Refuse(no))
	}
	for i := range t.Changes {
		if len(refused) > 0 {
			break
		}
		if err := t.Host.Accept(i); err != nil {
			errs = append(errs, err)
		}
	}
	t.plan = plan
	return t.Host.Join(errs)
}

// applyIfProven applies the set if all have proven themselves. Otherwise it returns a channel that is closed when that
// may be so, and the time until the first of them is late.
func (t *Transaction) applyIfProven(after time.Duration) (left time.Duration, changed <-chan struct{}, err error) {
	t.Host.Lock()
	defer t.Host.Unlock()
	if err := t.Host.Open(); err != nil {
		return 0, nil, err
	}
	failed, left, proven := t.proofs.Look(after, t.Host.Proof)
	switch {
	case len(failed) > 0:
		return 0, nil, t.Host.Join(t.unproven(failed, after))
	case !proven:
		return left, t.Host.Changed(), nil
	}
	if err = t.check(); err == nil {
		t.apply()
	}
	return 0, nil, err
}

func (t *Transaction) unproven(all []int, after time.Duration) (errs []error) {
	for _, i := range all {
		errs = append(errs, t.Host.Unproven(i, t.proofs.Late(i, after)))
	}
	return errs
}

// giveUp returns the error of a set whose context ended before all had proven themselves.
func (t *Transaction) giveUp(causes []error) error {
	t.Host.Lock()
	defer t.Host.Unlock()
	pending := slices.DeleteFunc(slices.Clone(t.proofs.All()), func(i int) bool { return t.Host.Proof(i) == Proven })
	return fault.Join("registry: ", append(append(causes, fault.ErrNotReady), t.unproven(pending, 0)...))
}

// apply makes the changes that were checked.
func (t *Transaction) apply() {
	for i := range t.Changes { // first: what is still iterated over stays as it was
		t.Host.Prepare(i)
	}
	for _, i := range t.plan.Order {
		t.Host.Apply(i)
	}
	for _, brought := range t.plan.Strategies {
		t.Host.SetStrategy(brought.By, brought.Value)
	}
	for _, brought := range t.plan.Limits {
		t.Host.SetLimits(brought.By, brought.Value)
	}
	t.Host.Done()
	t.applied = true
}
