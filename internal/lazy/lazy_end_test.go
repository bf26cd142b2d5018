package lazy_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/internal/lazy"
)

func TestInstance_FactoryThatHasReturnedIsNotStuck(t *testing.T) {
	t.Parallel()
	for name, err := range map[string]error{"product": nil, "error": errFactory} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			for range 3000 { // on real goroutines: the release races with the end of the run
				i := lazy.New[*product](h, func(context.Context) (*product, error) { return &product{}, err })
				_, ok := i.Get(t.Context())
				require.Equal(t, err == nil, ok)
				ended := i.Release(errGone)
				require.NoError(t, i.EndError())
				<-ended
			}
		})
	}
}
