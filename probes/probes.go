// Package probes holds ready-made probes for [health.Policy]: of HTTP and TCP
// servers, and several probes as one.
//
// Every probe may be used by several goroutines at once and heeds its context.
// The error of one that fails is one line, keeps its causes for [errors.Is] and
// [errors.As], and shows neither the user information nor the query of a URL.
package probes

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/capreg/registry/health"
	"github.com/capreg/registry/internal/oneline"
)

// ErrInvalid is bad input of a function that makes a probe; the text of the error
// names field, value and bound.
var ErrInvalid = errors.New("invalid input")

var errNoProbe = errors.New("no probe")

func refuse(field, value, bound string) error {
	return fmt.Errorf("probes: %w: %s is %s: want %s", ErrInvalid, field, value, bound)
}

// WithTimeout returns a probe that ends the context of the given one after d. An
// answer that comes later than that is a failure, even a good one, and matches
// [context.DeadlineExceeded]. With a d of zero or less every answer is late.
//
// It runs the given probe in its own goroutine and waits for it to return.
func WithTimeout(probe health.Probe, d time.Duration) health.Probe {
	return func(ctx context.Context) error {
		if probe == nil {
			return errNoProbe
		}
		limited, cancel := context.WithTimeout(ctx, d)
		defer cancel()
		err := probe(limited)
		if ctx.Err() != nil || limited.Err() == nil {
			return err
		}
		late := &failure{text: fmt.Sprintf("no answer within %v", d), causes: []error{context.DeadlineExceeded}}
		if err != nil && !health.IsLimp(err) { // a late limp is no answer either
			late.text += ": " + textOf(err)
			late.causes = append(late.causes, err)
		}
		return late
	}
}

// failure is a text of one line, and what led to it.
type failure struct {
	text   string
	causes []error
}

func (f *failure) Error() string { return f.text }

func (f *failure) Unwrap() []error { return f.causes }

// longestText bounds the text of one cause, of whatever it was made.
const longestText = 512

func textOf(err error) string { return oneline.Cut(oneline.Of(err.Error()), longestText) }

// longestValue bounds a quoted value within a text.
const longestValue = 64

func quoted(value string) string { return fmt.Sprintf("%q", oneline.Cut(value, longestValue)) }

var words = regexp.MustCompile(`[^\s"]+`)

// scrubbed is a text without the secrets of any URLs in it.
func scrubbed(text string) string { return words.ReplaceAllStringFunc(text, withoutSecrets) }

// withoutSecrets is a URL without user information and query. It is for those
// that cannot be parsed as well, so where it is unclear which part is which, all
// but the scheme goes.
func withoutSecrets(url string) string {
	scheme, rest, found := strings.Cut(url, "://")
	if !found || strings.ContainsAny(scheme, "@?") {
		scheme, rest = "", url
	} else {
		scheme += "://"
	}
	at, query := strings.LastIndexByte(rest, '@'), strings.IndexByte(rest, '?')
	switch {
	case query >= 0 && query < at:
		return scheme + "…"
	case query >= 0:
		rest = rest[:query] + "?…"
	}
	if at >= 0 {
		rest = "…" + rest[at:]
	}
	return scheme + rest
}
