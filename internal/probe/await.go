package probe

import (
	"context"

	"github.com/capreg/registry/internal/fault"
)

// AwaitAll waits for the results of [Watch.CheckNow], or until ctx ends, which is an error.
func AwaitAll(ctx context.Context, results []<-chan struct{}) error {
	for _, result := range results {
		select {
		case <-result:
		case <-ctx.Done():
			return fault.Join("registry: health check: ", fault.OfContext(ctx))
		}
	}
	return nil
}
