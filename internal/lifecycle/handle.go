package lifecycle

import (
	"context"
	"fmt"

	"github.com/capreg/registry/internal/fault"
)

// Handle is something that a component has registered. Its methods may be called more than once, and concurrently.
type Handle interface {
	// AwaitEligible waits until calls can be given to it. The error is its reason when ctx ends first.
	AwaitEligible(ctx context.Context) error
	// Unregister removes it, and waits for the calls in flight until ctx ends. It is called before a component stops.
	Unregister(ctx context.Context) error
	// Withdraw removes it and cancels the calls in flight, and waits for nothing. It is called for a component that
	// has crashed.
	Withdraw()
}

// Named is a handle that says which provider it is, when that has left, and why it is given no calls.
type Named interface {
	Name() string
	Left() <-chan struct{}
	Why() string
}

// Await waits until a provider is eligible, which look tells, with a channel that is closed when that may have changed. It
// is for [Handle.AwaitEligible].
func Await(ctx context.Context, provider Named, look func() (eligible bool, changed <-chan struct{})) error {
	for {
		eligible, changed := look()
		if eligible {
			return nil
		}
		select {
		case <-changed:
		case <-provider.Left():
			return fmt.Errorf("provider %q: %w: it has left", provider.Name(), fault.ErrNotReady)
		case <-ctx.Done():
			causes := append([]error{fmt.Errorf("%w: %s", fault.ErrNotReady, provider.Why())}, fault.OfContext(ctx)...)
			return fault.Join(fmt.Sprintf("provider %q: ", provider.Name()), causes)
		}
	}
}
