package fault

import (
	"errors"

	"github.com/capreg/registry/internal/check"
)

// The sentinels that engines return. The root package documents and exports them under
// the same names.
var (
	ErrInvalid        = check.ErrInvalid
	ErrUnavailable    = errors.New("no provider available")
	ErrUnknownService = errors.New("unknown service")
	ErrNoCapability   = errors.New("capability missing")
	ErrUnhealthy      = errors.New("unhealthy")
	ErrBreakerOpen    = errors.New("breaker open")
	ErrCoolingDown    = errors.New("cooling down")
	ErrCredentials    = errors.New("no usable credentials")
	ErrAtCapacity     = errors.New("at capacity")
	ErrDenied         = errors.New("denied")
	ErrExists         = errors.New("already exists")
	ErrConflict       = errors.New("conflict")
	ErrNotRegistered  = errors.New("not registered")
	ErrNotReady       = errors.New("not ready")
	ErrClosed         = errors.New("shutting down")
	ErrState          = errors.New("not in this state")
	ErrStuck          = errors.New("still running")
	ErrAttemptTimeout = errors.New("attempt timeout")

	// ErrOfCall is matched by the error of a call, of which users see no more than its type.
	ErrOfCall = errors.New("error of a call")
)
