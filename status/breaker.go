package status

import "github.com/capreg/registry/internal/jsonform"

// BreakerState is one of the three states of a circuit breaker. Its texts are read back.
type BreakerState uint8

// The states of a breaker.
//
//	         failures in a row reach the threshold
//	closed ────────────────────────────────────────▶ open ◀─┐
//	  ▲                                                │     │
//	  │                       recovery timeout is over │     │ one trial fails
//	  │                                                ▼     │
//	  └──────────────────────────────────────────── half-open
//	            enough trials succeed
const (
	// BreakerClosed admits every call.
	BreakerClosed BreakerState = iota
	// BreakerOpen admits none.
	BreakerOpen
	// BreakerHalfOpen admits trials, as many at once as the policy has slots.
	BreakerHalfOpen
)

var breakerStates = [...]string{"closed", "open", "half-open"} //nolint:gochecknoglobals // immutable

// String returns "closed", "open" or "half-open".
func (s BreakerState) String() string { return jsonform.Text(breakerStates[:], s, "state") }

// MarshalText returns the name of the state; the error of a value that is none matches registry.ErrInvalid.
func (s BreakerState) MarshalText() ([]byte, error) {
	return jsonform.MarshalName(breakerStates[:], s, "state")
}

// UnmarshalText accepts the name of a state. The error of any other text matches registry.ErrInvalid and changes
// nothing.
func (s *BreakerState) UnmarshalText(text []byte) error {
	return jsonform.UnmarshalName(breakerStates[:], s, text, "state")
}
