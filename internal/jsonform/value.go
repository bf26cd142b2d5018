package jsonform

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/capreg/registry/internal/oneline"
)

const (
	wantDuration = `a duration such as "1m30s" or "250ms"`
	wantText     = "text"
	longestError = 2048 // bytes of the text of an error
)

// DurationText returns a duration as [time.Duration.String] does, without zeros at its end: "2m", not "2m0s".
// [time.ParseDuration] reads it.
func DurationText(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
		if strings.HasSuffix(text, "h0m") {
			text = strings.TrimSuffix(text, "0m")
		}
	}
	return text
}

// durationOf reads a duration: text, or the number 0, whose unit does not matter. Any other number is refused, since it
// could be meant as seconds or as nanoseconds. null leaves the duration as it is.
func durationOf(text []byte, now time.Duration) (time.Duration, error) {
	switch string(text) {
	case "null":
		return now, nil
	case "0":
		return 0, nil
	}
	var words string
	if json.Unmarshal(text, &words) != nil {
		return 0, refuse(text, wantDuration)
	}
	d, err := time.ParseDuration(words)
	if err != nil {
		return 0, refuse(text, wantDuration)
	}
	return d, nil
}

// errorOf reads an error with a text; null is none.
func errorOf(text []byte, into reflect.Value) error {
	var words *string
	if json.Unmarshal(text, &words) != nil {
		return refuse(text, wantText)
	}
	if into.SetZero(); words != nil {
		into.Set(reflect.ValueOf(errors.New(*words)))
	}
	return nil
}

// textOf returns the text of an error, whose Error method may panic, in one line of at most longestError bytes.
func textOf(err error) (text string) {
	defer func() {
		if recover() != nil {
			text = fmt.Sprintf("%T whose Error method failed", err)
		}
	}()
	return oneline.Short(err.Error(), longestError)
}

// wantedOf describes what encoding/json reads into a type; empty: its own error says more.
func wantedOf(t reflect.Type) string {
	if pointer := reflect.PointerTo(t); pointer.Implements(reflect.TypeFor[json.Unmarshaler]()) {
		return ""
	}
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return fmt.Sprintf("a whole number of %d bits", t.Bits())
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		return fmt.Sprintf("a whole number of %d bits, 0 or more", t.Bits())
	case reflect.Float32, reflect.Float64:
		return "a number"
	case reflect.String:
		return wantText
	case reflect.Pointer:
		return wantedOf(t.Elem())
	default:
		return ""
	}
}

// UnmarshalText reads JSON text by a function, and any other value but null as the characters that it has, so that an
// enumeration can be read by the numbers of its values too.
func UnmarshalText(data []byte, read func(text []byte) error) error {
	if string(data) == "null" {
		return nil
	}
	if !bytes.HasPrefix(data, []byte{'"'}) {
		return read(data)
	}
	var text string
	if json.Unmarshal(data, &text) != nil {
		return refuse(data, wantText)
	}
	return read([]byte(text))
}
