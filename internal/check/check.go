// Package check validates input and reports violations as data.
//
// Each check returns nil, or a [Violation] with field, value and bound. Checks of several fields are joined by
// [cmp.Or], which keeps the first violation; a check that holds allocates nothing, and no text is made before there is
// a violation. A [Range] is written once, and is the check of a number, its default and the text of its bound.
//
// The package runs no code of the input, but for the String methods of refused values. It knows no domain word: the
// package that uses it knows the names of its fields, and turns a violation into an error.
package check

import (
	"errors"
	"fmt"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/capreg/registry/internal/oneline"
)

const (
	// LongestName bounds names, words and other texts of one line, in bytes.
	LongestName = 256
	// LongestText bounds texts of several lines, in bytes.
	LongestText = 1 << 14
	// LongestList bounds lists of words and tables of texts: what compares two of them takes the product of their
	// lengths.
	LongestList = 256
)

// longestValue bounds the text of a refused value, in bytes.
const longestValue = 64

// ErrInvalid is the kind of every error that a violation becomes.
var ErrInvalid = errors.New("invalid input")

// Violation is a field with a value that is refused.
type Violation struct {
	// Field is the name of the field, such as "Capabilities[1]".
	Field string
	// Value is the refused value as text, cut to a printable length.
	Value string
	// Bound describes the values that would have been accepted.
	Bound string
}

// Raw is a description of a value, which is not quoted as a string would be.
type Raw string

// Refuse returns the violation of a value.
func Refuse(field string, value any, bound string) *Violation {
	text := fmt.Sprintf("%v", value)
	if s, ok := value.(string); ok {
		text = fmt.Sprintf("%q", oneline.Cut(s, longestValue))
	}
	return &Violation{field, oneline.Cut(text, longestValue+8), bound}
}

// Name checks a name: a line that is not empty, without space at its ends.
func Name(field, name string) *Violation {
	switch {
	case isPlainName(name):
		return nil // as nearly all are
	case name == "":
		return Refuse(field, name, "a name")
	case len(name) <= LongestName && strings.TrimSpace(name) != name && utf8.ValidString(name):
		return Refuse(field, name, "no space at its ends")
	}
	return Line(field, name)
}

// Line checks a text of one line, which may be empty: not too long, valid UTF-8, no control characters.
func Line(field, text string) *Violation {
	return bounded(field, text, LongestName, func(r rune) bool {
		return unicode.IsControl(r) || r == '\u2028' || r == '\u2029'
	})
}

func bounded(field, text string, longest int, refused func(rune) bool) *Violation {
	switch {
	case len(text) > longest:
		return Refuse(field, text, fmt.Sprintf("at most %d bytes, not %d", longest, len(text)))
	case !utf8.ValidString(text):
		return Refuse(field, text, "valid UTF-8")
	case strings.ContainsFunc(text, refused):
		return Refuse(field, text, "no control characters")
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
	return name != "" && len(name) <= LongestName
}

// OptionalName checks a name that may be empty.
func OptionalName(field, name string) *Violation {
	if name == "" {
		return nil
	}
	return Name(field, name)
}

// Names checks a list of names.
func Names(field string, names []string) *Violation {
	for i, name := range names {
		if v := Name(field, name); v != nil {
			v.Field = Item(field, i)
			return v
		}
	}
	return nil
}

// Words checks a list of names, and replaces it by a copy without repetitions, in the order given.
func Words(field string, words *[]string) *Violation {
	if n := len(*words); n > LongestList {
		return Refuse(field, Raw(fmt.Sprintf("%d words", n)), fmt.Sprintf("at most %d words", LongestList))
	}
	if v := Names(field, *words); v != nil {
		return v
	}
	var folded []string
	if len(*words) > 0 {
		folded = AppendOnce(make([]string, 0, len(*words)), *words)
	}
	*words = folded
	return nil
}

// AppendOnce appends each of the words once.
func AppendOnce(folded, words []string) []string {
	first := len(folded)
	for _, word := range words {
		if !slices.Contains(folded[first:], word) {
			folded = append(folded, word)
		}
	}
	return folded
}

// Text checks a text of any number of lines: not too long, valid UTF-8, no control characters but tabs and ends of lines.
func Text(field, text string) *Violation {
	return bounded(field, text, LongestText, func(r rune) bool {
		return unicode.IsControl(r) && r != '\n' && r != '\r' && r != '\t'
	})
}

// Texts checks that keys are names and values texts, and their number.
func Texts(field string, texts map[string]string) *Violation {
	if n := len(texts); n > LongestList {
		return Refuse(field, Raw(fmt.Sprintf("%d texts", n)), fmt.Sprintf("at most %d texts", LongestList))
	}
	for key, value := range texts {
		if v := Name("", key); v != nil {
			return Refuse(Key(field, key), key, v.Bound)
		}
		if v := Text(Key(field, key), value); v != nil {
			return v
		}
	}
	return nil
}

const wantURL = "a URL such as https://host/path or unix:///path"

// URL checks that a text is an absolute URL with a host or an absolute path, or empty.
func URL(field, text string) *Violation {
	if text == "" {
		return nil
	}
	if v := Text(field, text); v != nil {
		return v
	}
	u, err := url.Parse(text)
	if err != nil || !u.IsAbs() || u.Opaque != "" || u.Host == "" && !strings.HasPrefix(u.Path, "/") {
		return Refuse(field, text, wantURL)
	}
	return nil
}

// URLs checks that keys are names and values absolute URLs, and their number.
func URLs(field string, urls map[string]string) *Violation {
	if v := Texts(field, urls); v != nil {
		return v
	}
	for key, value := range urls {
		if value == "" {
			return Refuse(Key(field, key), value, wantURL)
		}
		if v := URL(Key(field, key), value); v != nil {
			return v
		}
	}
	return nil
}

// Item names an item of a list.
func Item(field string, i int) string { return fmt.Sprintf("%s[%d]", field, i) }

// Key names a value of a map.
func Key(field, key string) string {
	return fmt.Sprintf("%s[%q]", field, oneline.Cut(key, longestValue))
}

// Same reports whether both values are equal, and can be compared; nil is the same as no value.
func Same(a, b any) bool {
	return reflect.ValueOf(a).Comparable() && reflect.ValueOf(b).Comparable() && a == b
}

// IsNil reports whether value is nil, or a nil pointer, map, channel, function or slice in an interface.
func IsNil(value any) bool {
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
