package override

import "context"

// Undo ends what a [Door] has done to a registry, and puts back what was there before.
//
// It removes the replacements, waits for their calls in flight as Registration.Unregister does, and puts back each
// provider in the state that it had. Changes made through its handle meanwhile (priority, group, policies) are lost,
// except for a group's strategy. It may be called in any order of those in force, and any number of times.
type Undo = func(context.Context) error

// Door lets package registrytest replace the providers of a service, of type T, for the length of a test. P is what
// registers one.
//
// by names the owner, such as a test. While an override of one owner is in force, other owners are refused, except
// those whose name begins with it and a slash, as the name of a subtest does. The errors match ErrInvalid,
// ErrConflict, ErrNotRegistered, ErrExists or ErrClosed of the registry, and change nothing.
type Door[T, P any] struct {
	// Swap replaces the named provider with instance.
	//
	// The replacement has the provider's name, definition, order and policies, except for probes and recovery hook;
	// it is probed if it is a health.Checker. Breaker, counts, cooldown and health start afresh; so do those of its
	// domain, which replacements share among themselves only. Resolvers that were bound before find it from the
	// next look-up on, and a Registration is its handle. Calls in flight stay on the provider. Listings mark the
	// replacement as a mock, and Options.OnlyMocks picks it. Replacements may be swapped in turn. If the provider
	// leaves first, the replacement leaves with it. Until it is undone, its name cannot be registered in the service.
	Swap func(by, name string, instance T) (Undo, error)
	// Override hides all providers of the service, including those that are registered later, behind the given
	// ones, if any.
	//
	// The given providers are mocks, whatever Options.ForbidMocks says, and are not passed to Options.Admit. A
	// provider without capabilities has every capability and meets every requirement; one without a handler is seen
	// by every query. Their groups and strategies are their own, and so are their domains, which they share with
	// other overrides only. Hidden providers stay as they are, probes included, and are not picked. Overrides may
	// be overridden in turn, and their providers swapped. A name that is taken in the service is an error.
	Override func(by string, providers ...P) (Undo, error)
}
