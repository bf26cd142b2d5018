package registry_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/internal/testkit"
)

func TestRegistry_ZeroValueIsAnError(t *testing.T) {
	t.Parallel()
	for _, reg := range []*registry.Registry{nil, {}} {
		_, err := testkit.Chat.Register(t.Context(), reg, testkit.Provider{Instance: testkit.Says("x")})
		require.ErrorIs(t, err, registry.ErrInvalid)
		_, err = reg.Register(t.Context(), "chat", registry.Provider[any]{Instance: testkit.Says("x")})
		require.ErrorIs(t, err, registry.ErrInvalid)
		_, err = testkit.Bind(reg).Get(t.Context())
		require.ErrorIs(t, err, registry.ErrInvalid)
	}
}

func TestNew_BadOptionsNameField(t *testing.T) {
	t.Parallel()
	for field, options := range map[string]registry.Options{
		"Options.DrainTimeout": {DrainTimeout: -1},
		"Options.OnlyMocks":    {OnlyMocks: true, ForbidMocks: true},
		"Options.Required[1]":  {Required: []string{"a", ""}},
	} {
		_, err := registry.New(options)
		var invalid *registry.FieldError
		require.ErrorAs(t, err, &invalid)
		require.Equal(t, field, invalid.Field)
	}
}
