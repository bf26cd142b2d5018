package check

import (
	"fmt"
	"math"
	"strconv"
)

// Number is a type that a [Range] can bound, such as int, [time.Duration] and float64.
type Number interface {
	~int | ~int64 | ~float64
}

// Range has the finite numbers from Min to Max, and zero. Its zero value has zero and all positive numbers.
//
//	Range[int]{Default: 10, Max: 99}      "0 (default 10) to 99"
//	Range[int]{Zero: "none"}              "0 (none) or more"
//	Range[int]{Default: 9, Min: 5}        "0 (default 9), or 5 or more"
type Range[N Number] struct {
	// Default replaces zero, by [Range.Fill]; zero: nothing does.
	Default N
	// Min and Max are the bounds. Max zero: none.
	Min, Max N
	// Zero describes zero in the text. Default: the default.
	Zero string
	// Suffix ends the text.
	Suffix string
}

// Check checks that the value is within the range.
func (r Range[N]) Check(field string, value N) *Violation {
	if value == 0 || value > 0 && value >= r.Min && (r.Max == 0 || value <= r.Max) && float64(value) <= math.MaxFloat64 {
		return nil
	}
	return Refuse(field, value, r.String())
}

// Fill checks the value, and replaces zero by the default.
func (r Range[N]) Fill(field string, value *N) *Violation {
	if v := r.Check(field, *value); v != nil {
		return v
	}
	if *value == 0 {
		*value = r.Default
	}
	return nil
}

// String returns the bound as text, such as "0 (default 10) or more".
func (r Range[N]) String() string {
	text := "0"
	switch {
	case r.Zero != "":
		text += " (" + r.Zero + ")"
	case r.Default != 0:
		text += " (default " + number(r.Default) + ")"
	}
	if r.Min != 0 {
		text += ", or " + number(r.Min)
	}
	if r.Max != 0 {
		text += " to " + number(r.Max)
	} else {
		text += " or more"
	}
	return text + r.Suffix
}

// number returns a number without an exponent.
func number[N Number](value N) string {
	if f, ok := any(value).(float64); ok {
		return strconv.FormatFloat(f, 'f', -1, 64)
	}
	return fmt.Sprint(value)
}
