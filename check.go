package registry

import (
	"fmt"
	"math"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/capreg/registry/internal/oneline"
)

// longestName bounds names and words, in bytes.
const longestName = 256

func (d Definition) checkDescription() error {
	if !d.Priority.valid() {
		return errBadPriority(d.Priority)
	}
	if err := checkStrategy(d.Strategy); err != nil {
		return err
	}
	if err := checkWeight(d.Weight); err != nil {
		return err
	}
	if !(d.Cost >= 0) || math.IsInf(d.Cost, 0) {
		return invalid("Cost", d.Cost, "0 or more")
	}
	if d.Region != "" {
		if err := checkName("Region", d.Region); err != nil {
			return err
		}
	}
	if d.Window < 0 {
		return invalid("Window", d.Window, "0 or more")
	}
	if err := checkEndpoint(d.Endpoint); err != nil {
		return err
	}
	return d.checkTexts()
}

func (d Definition) checkTexts() error {
	for field, text := range map[string]string{"Version": d.Version, "Description": d.Description, "Endpoint": d.Endpoint} {
		if !utf8.ValidString(text) {
			return invalid(field, text, "valid UTF-8")
		}
	}
	for key, value := range d.Metadata {
		if key == "" || !utf8.ValidString(key) || !utf8.ValidString(value) {
			return invalid(fmt.Sprintf("Metadata[%q]", oneline.Cut(key, 64)), value, "a non-empty key and valid UTF-8")
		}
	}
	return nil
}

func checkEndpoint(endpoint string) error {
	if endpoint == "" {
		return nil
	}
	u, err := url.Parse(endpoint)
	if err != nil || !u.IsAbs() || u.Opaque != "" || u.Host == "" && !strings.HasPrefix(u.Path, "/") {
		return invalid("Endpoint", endpoint, "a URL such as https://host/path or unix:///path")
	}
	return nil
}

func checkStrategy(s Strategy) error {
	if err := s.Check(); err != nil {
		return invalid("Strategy", s.String(),
			"a strategy of package selectors, or one of your own with a selector and a printable name: "+err.Error())
	}
	return nil
}

func checkWeight(weight float64) error {
	if !(weight >= 0) || math.IsInf(weight, 0) {
		return invalid("Weight", weight, "0 (default 1) or more")
	}
	return nil
}

// checkTimeout returns the timeout with its default.
func checkTimeout(field string, timeout time.Duration) (time.Duration, error) {
	if timeout < 0 {
		return 0, invalid(field, timeout, "0 (default 30s) or more, or NoTimeout")
	}
	if timeout == 0 {
		return defaultAttemptTimeout, nil
	}
	return timeout, nil
}

func checkServiceName(name string) error {
	return checkName("Service", name)
}

func checkName(field, name string) error {
	switch {
	case isPlainName(name):
		return nil // as nearly all are
	case name == "":
		return invalid(field, name, "a name")
	case len(name) > longestName:
		return invalid(field, name, fmt.Sprintf("at most %d bytes, not %d", longestName, len(name)))
	case !utf8.ValidString(name):
		return invalid(field, name, "valid UTF-8")
	case strings.TrimSpace(name) != name:
		return invalid(field, name, "no space at its ends")
	}
	return nil
}

// isPlainName reports whether a name is visible ASCII and not too long.
func isPlainName(name string) bool {
	for i := range len(name) {
		if c := name[i]; c <= ' ' || c > '~' {
			return false
		}
	}
	return name != "" && len(name) <= longestName
}

// checkWords returns a copy of words without repetitions, in the order given.
func checkWords(field string, words []string) ([]string, error) {
	if len(words) == 0 {
		return nil, nil
	}
	folded := make([]string, 0, len(words))
	for i, word := range words {
		if checkName(field, word) != nil {
			return nil, checkName(fmt.Sprintf("%s[%d]", field, i), word)
		}
		if !slices.Contains(folded, word) {
			folded = append(folded, word)
		}
	}
	return folded, nil
}

// isNil reports whether value is nil, or a nil pointer, map, channel, function or slice
// in an interface.
func isNil(value any) bool {
	if value == nil {
		return true
	}
	v := reflect.ValueOf(value)
	switch v.Kind() {
	case reflect.Pointer, reflect.Map, reflect.Chan, reflect.Func, reflect.Interface, reflect.Slice, reflect.UnsafePointer:
		return v.IsNil()
	default:
		return false
	}
}
