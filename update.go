package registry

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/capreg/registry/health"
	"github.com/capreg/registry/internal/changeset"
	"github.com/capreg/registry/internal/limit"
	"github.com/capreg/registry/selection"
	"github.com/capreg/registry/status"
)

// Update is a set of changes that [Registry.Update] makes as one: registrations ([Service.AddTo]), removals and
// changes of settings, of any services.
//
// The zero value is an empty set, ready to use. Collecting changes never fails, blocks or changes a registry: what is
// wrong with one of them is an error of [Registry.Update]. A set can be used again, after an error or for another
// registry. It is not safe for concurrent use.
//
// The set is checked against what is there after it, so the order of its changes does not matter: a name that is
// removed can be registered again (as a new provider, with a place of its own), and a group's strategy or a domain's
// limits can change together with all members, either because each of them is replaced by one that says so, or by
// SetStrategy or SetLimits for one that stays. Each setting of a provider can change once; one that is removed,
// replaced or added by the set has no other changes in it.
type Update struct {
	changes []changeset.Change
	steps   []*step // by change
}

// step holds what the registry, beside the change itself, needs for one change of an update.
type step struct {
	refused error // its input was

	// Of a provider that joins.
	entry   *entry
	find    func(*Registry) (*service, bool, error) // nil: the service is known
	service *service
	handle  *Registration // nil: none joins

	setting  setting
	provider *provider // that joins, leaves or is changed, from its check on
	replaced *provider // that has the name of one that joins
	only     *provider // that the change is of; nil: whichever has the name
}

// joins reports whether a provider joins.
func (s *step) joins() bool { return s.handle != nil }

// AddTo adds a registration to a set of changes, as [Service.Register] would make it, and returns its handle. Until
// [Registry.Update] has made the changes, the handle is that of a provider that has left.
//
// A provider that is probed or made by a factory proves itself before the changes are made, also where it replaces
// none; see [Provider.Replace] and [Provider.AtOnce].
func (s Service[T]) AddTo(u *Update, p Provider[T]) *Registration {
	handle := &Registration{}
	e, err := newEntry(s.name, p)
	u.add(changeset.Change{Kind: changeset.Join}, step{refused: err, entry: &e, find: s.find, handle: handle})
	return handle
}

// Remove adds the removal of the named provider of the service, as [Registration.Unregister] makes it. Its calls in flight are
// drained within [Options.DrainTimeout].
func (u *Update) Remove(service, name string) {
	u.add(changeset.Change{Kind: changeset.Leave, Of: status.ProviderID{Service: service, Name: name}}, step{})
}

// SetPriority adds a change as [Registration.SetPriority] makes it.
func (u *Update) SetPriority(service, name string, priority Priority) {
	u.set(service, name, changeset.Change{})(prioritySetting(priority, new(Priority)))
}

// SetGroup adds a change as [Registration.SetGroup] makes it.
func (u *Update) SetGroup(service, name string, number int) {
	u.set(service, name, changeset.Change{Group: number})(groupSetting(number, new(int)), nil)
}

// SetStrategy adds a change as [Registration.SetStrategy] makes it, for the group that the provider is in afterwards.
func (u *Update) SetStrategy(service, name string, strategy selection.Strategy) {
	u.set(service, name, changeset.Change{Wanted: strategy})(strategySetting(strategy, new(selection.Strategy)))
}

// SetWeight adds a change as [Registration.SetWeight] makes it.
func (u *Update) SetWeight(service, name string, weight float64) {
	u.set(service, name, changeset.Change{})(weightSetting(weight, new(float64)))
}

// SetAttemptTimeout adds a change as [Registration.SetAttemptTimeout] makes it.
func (u *Update) SetAttemptTimeout(service, name string, timeout time.Duration) {
	u.set(service, name, changeset.Change{})(timeoutSetting(timeout, new(time.Duration)))
}

// SetLimits adds a change as [Registration.SetLimits] makes it.
func (u *Update) SetLimits(service, name string, policy LimitPolicy) {
	checked, _ := policy.withDefaults()
	u.set(service, name, changeset.Change{Limits: limit.Policy(checked)})(limitsSetting(policy, new(LimitPolicy)))
}

// SetRetry adds a change as [Registration.SetRetry] makes it.
func (u *Update) SetRetry(service, name string, policy RetryPolicy) {
	u.set(service, name, changeset.Change{})(retrySetting(policy, new(RetryPolicy)))
}

// SetBreakerPolicy adds a change as [Registration.SetBreakerPolicy] makes it. It is in force when [Registry.Update] returns.
func (u *Update) SetBreakerPolicy(service, name string, policy BreakerPolicy) {
	u.set(service, name, changeset.Change{})(breakerSetting(policy))
}

// SetHealthPolicy adds a change as [Registration.SetHealthPolicy] makes it.
func (u *Update) SetHealthPolicy(service, name string, policy health.Policy) {
	u.set(service, name, changeset.Change{})(healthSetting(policy, new(health.Policy)), nil)
}

// set returns the function that adds a change of a setting, or what is wrong with it.
func (u *Update) set(service, name string, change changeset.Change) func(s setting, refused error) {
	return func(s setting, refused error) {
		change.Kind, change.Of, change.What = s.kind, status.ProviderID{Service: service, Name: name}, s.what
		u.add(change, step{refused: refused, setting: s})
	}
}

func (u *Update) add(c changeset.Change, s step) {
	if u != nil { // else Registry.Update refuses it
		u.changes, u.steps = append(u.changes, c), append(u.steps, &s)
	}
}

// Update makes all changes of the set, at one moment, or none of them.
//
// First all of them are checked, and providers that are probed or made by a factory prove themselves, all at the same
// time, while the registry stays as it is. Update blocks for that, within ctx, and on the admission hook
// ([Options.Admit]). Then the changes are made in one step: no look-up, listing or event sees a part of them. Update
// does not wait for the calls in flight of those that leave, nor for the closing of instances that were made in vain.
//
// The error unwraps to one for each change that cannot be made: a [FieldError], whose Field begins with "Update[i]."
// for the i-th change of the set, that matches [ErrInvalid], [ErrExists], [ErrConflict] or [ErrNotRegistered], or the
// error of the admission hook. Otherwise it is as that of [Service.Register]. Update is safe for concurrent use, of
// different sets.
func (r *Registry) Update(ctx context.Context, u *Update) error {
	switch {
	case !r.made():
		return errNotMade()
	case ctx == nil:
		return errNilContext()
	case u == nil:
		return invalid("Update", raw("nil"), "a set of changes")
	}
	t := &transaction{Registry: r, steps: u.stepsOnce(), set: true}
	return t.run(ctx, slices.Clone(u.changes))
}

// CheckUpdate returns the error that [Registry.Update] would return for the set now, as far as it is known before new
// providers are made and prove themselves. It changes nothing, runs no code of providers, and asks no admission hook.
func (r *Registry) CheckUpdate(u *Update) error {
	switch {
	case !r.made():
		return errNotMade()
	case u == nil:
		return invalid("Update", raw("nil"), "a set of changes")
	}
	t := &transaction{Registry: r, steps: u.stepsOnce(), set: true}
	if err := t.checkInput(slices.Clone(u.changes)); err != nil {
		return err
	}
	defer t.undo() // of services that are known by the set alone
	return t.changes.Check()
}

// stepsOnce returns copies, in which a transaction notes what is of it alone.
func (u *Update) stepsOnce() []step {
	steps := make([]step, len(u.steps))
	for i, s := range u.steps {
		if steps[i] = *s; s.joins() {
			own := *s.entry
			steps[i].entry = &own
		}
	}
	return steps
}

//nolint:gochecknoglobals // a cache; those that are kept are empty
var transactions = sync.Pool{New: func() any { return new(transaction) }}

// register makes a registration that is a set of its own.
func (r *Registry) register(ctx context.Context, svc *service, e *entry) (*Registration, error) {
	handle := &Registration{}
	t, _ := transactions.Get().(*transaction)
	defer func() {
		*t = transaction{}
		transactions.Put(t)
	}()
	t.Registry, t.oneChange[0].Kind, t.oneStep[0] = r, changeset.Join, step{entry: &t.oneEntry, service: svc, handle: handle}
	t.steps, t.oneEntry = t.oneStep[:], *e
	if err := t.run(ctx, t.oneChange[:]); err != nil {
		return nil, err
	}
	return handle, nil
}
