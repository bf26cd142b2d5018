package config

import (
	"encoding/json"
	"errors"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Duration is a time.Duration that is written as text, such as "1m30s".
type Duration time.Duration

// String returns the duration as [time.Duration] writes it.
func (d Duration) String() string { return time.Duration(d).String() }

// MarshalText returns the duration as [time.Duration] writes it.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads a duration; an error changes nothing.
func (d *Duration) UnmarshalText(text []byte) error {
	value, err := parseDuration(string(text))
	if err == nil {
		*d = Duration(value)
	}
	return err
}

func parseDuration(text string) (time.Duration, error) {
	value, err := time.ParseDuration(text)
	if err != nil {
		return 0, errors.New(`want a duration such as "1m30s"`)
	}
	return value, nil
}

// Size is a number of bytes that is written as text: a whole number with a unit, as in "512B", "16MiB" or "2GB".
// Units are B, kB, MB, GB, TB (powers of 1000) and KiB, MiB, GiB, TiB (powers of 1024).
type Size int64

var sizeText = regexp.MustCompile(`^([0-9]{1,18})(B|kB|MB|GB|TB|KiB|MiB|GiB|TiB)$`)

// units are the units of sizes, the largest first.
//
//nolint:gochecknoglobals // a table that Go cannot declare as a constant
var units = []struct {
	name  string
	bytes int64
}{
	{"TiB", 1 << 40}, {"TB", 1e12}, {"GiB", 1 << 30}, {"GB", 1e9}, {"MiB", 1 << 20}, {"MB", 1e6}, {"KiB", 1 << 10}, {"kB", 1e3}, {"B", 1},
}

// String returns the size in the largest unit in which it is a whole number.
func (s Size) String() string {
	for _, unit := range units {
		if s != 0 && int64(s)%unit.bytes == 0 {
			return strconv.FormatInt(int64(s)/unit.bytes, 10) + unit.name
		}
	}
	return "0B"
}

// MarshalText returns the size as String does.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads a size; an error changes nothing.
func (s *Size) UnmarshalText(text []byte) error {
	parts := sizeText.FindStringSubmatch(string(text))
	if parts == nil {
		return errors.New(`want a size such as "16MiB"`)
	}
	number, _ := strconv.ParseInt(parts[1], 10, 64) // at most 18 digits
	for _, unit := range units {
		if unit.name == parts[2] {
			if number > math.MaxInt64/unit.bytes {
				return errors.New("want a size of less than 8EiB")
			}
			*s = Size(number * unit.bytes)
		}
	}
	return nil
}

// jsonOf returns the JSON form without HTML escapes.
func jsonOf(value any) ([]byte, error) {
	var b strings.Builder
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	err := encoder.Encode(value)
	return []byte(strings.TrimSuffix(b.String(), "\n")), err
}
