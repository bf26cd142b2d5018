package outcome

import "github.com/capreg/registry/verdict"

// Allowed holds which attempts may follow those of a call so far. The zero value allows any.
//
//	state              | an outcome that
//	any provider       | moves on
//	larger window      | needs a larger window
//	none               | is final
//	none, once only    | moves on, for a call that must not run twice
//
// It moves down only.
type Allowed struct {
	step   step
	window int // only providers with a larger one, or an unknown one, remain
}

type step uint8

const (
	stepAnyProvider  step = iota
	stepLargerWindow      // only a provider with a larger or unknown window
	stepNone              // the outcome is final
	stepOnceOnly          // another provider could be asked, but the call must not run twice
)

// Final reports whether no further provider may be asked.
func (a *Allowed) Final() bool { return a.step >= stepNone }

// OnceOnly reports whether that is because the call must not run twice.
func (a *Allowed) OnceOnly() bool { return a.step == stepOnceOnly }

// NeedsLarger reports whether only providers with a larger or unknown window may follow.
func (a *Allowed) NeedsLarger() bool { return a.step == stepLargerWindow }

// NotLarger reports whether a larger window is needed than this one, which may be zero: unknown.
func (a *Allowed) NotLarger(window int) bool { return a.NeedsLarger() && window <= a.window }

// TooSmall is NotLarger of a known window.
func (a *Allowed) TooSmall(window int) bool { return window > 0 && a.NotLarger(window) }

// Follow decides what may follow an attempt that was no success; window is that of its provider.
func (a *Allowed) Follow(class verdict.Class, onceOnly, tryRefused bool, window int) {
	rule := class.Rule()
	next := stepNone
	switch rule.Next {
	case verdict.NextYes, verdict.NextFree, verdict.NextBeforeFirstItem, verdict.NextByOption:
		next = stepAnyProvider
	case verdict.NextLargerWindow:
		next, a.window = stepLargerWindow, max(a.window, window)
	case verdict.NextWhenAllowed:
		if tryRefused {
			next = stepAnyProvider
		}
	case verdict.NextNo:
	}
	if next != stepNone && onceOnly && !rule.OnceMovesOn {
		next = stepOnceOnly
	}
	a.step = max(a.step, next)
}
