package jsonform

import (
	"fmt"
	"strings"
)

// Text returns the name of the value of an enumeration that begins at 0; of one without a name, what and the number,
// such as "state(7)".
func Text[E ~uint8](names []string, value E, what string) string {
	if int(value) < len(names) {
		return names[value]
	}
	return fmt.Sprintf("%s(%d)", what, value)
}

// MarshalName returns the name of a value. One without a name, which could not be read again, is an [Error].
func MarshalName[E ~uint8](names []string, value E, what string) ([]byte, error) {
	if int(value) >= len(names) {
		return nil, &Error{Field: what, Value: Text(names, value, what), Bound: oneOf(names), ofType: true}
	}
	return []byte(names[value]), nil
}

// UnmarshalName sets the value that has this name. Any other text is an [Error] that lists the names, and sets nothing.
func UnmarshalName[E ~uint8](names []string, into *E, text []byte, what string) error {
	for i, name := range names {
		if name == string(text) {
			*into = E(i)
			return nil
		}
	}
	bad := refuse(fmt.Appendf(nil, "%q", text), oneOf(names))
	bad.Field, bad.ofType = what, true
	return bad
}

func oneOf(names []string) string { return "one of " + strings.Join(names, ", ") }
