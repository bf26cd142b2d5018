package fault

import "errors"

// The sentinels that engines return. The root package documents and exports them under
// the same names.
var (
	ErrInvalid        = errors.New("invalid input")
	ErrExists         = errors.New("already exists")
	ErrConflict       = errors.New("conflict")
	ErrNotRegistered  = errors.New("not registered")
	ErrNotReady       = errors.New("not ready")
	ErrClosed         = errors.New("shutting down")
	ErrStuck          = errors.New("still running")
	ErrUnhealthy      = errors.New("unhealthy")
	ErrAttemptTimeout = errors.New("attempt timeout")
)
