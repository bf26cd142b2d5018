// Package probes provides probes for [health.Policy]: of HTTP and TCP servers, and combinations
// of several probes.
//
// Every probe may be used by several goroutines at once and heeds its context. The error of a
// failed probe is one line, keeps its causes for [errors.Is] and [errors.As], and contains
// neither the user information nor the query of a URL.
package probes

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/capreg/registry/health"
	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/oneline"
)

// ErrInvalid is that of package registry. It matches errors about the input of a function that makes a probe; the text
// names field, value and bound.
var ErrInvalid = fault.ErrInvalid

var errNoProbe = errors.New("no probe")

func refuse(field, value, bound string) error {
	return fmt.Errorf("probes: %w: %s is %s: want %s", ErrInvalid, field, value, bound)
}

// WithTimeout returns a probe that ends the context of the given one after d. A later answer is
// a failure, even a good one, and matches [context.DeadlineExceeded]. With a d of zero or less
// every answer is late.
//
// It runs the given probe in the goroutine of the caller and waits for it to return.
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
		if err != nil && !health.IsLimp(err) { // a late degraded answer is a failure too
			late.text += ": " + textOf(err)
			late.causes = append(late.causes, err)
		}
		return late
	}
}

// failure is an error of one line with its causes.
type failure struct {
	text   string
	causes []error
}

func (f *failure) Error() string { return f.text }

func (f *failure) Unwrap() []error { return f.causes }

// longestText bounds the text of one cause.
const longestText = 512

func textOf(err error) string { return oneline.Cut(oneline.Of(err.Error()), longestText) }

// longestValue bounds a quoted value within a text.
const longestValue = 64

func quoted(value string) string { return fmt.Sprintf("%q", oneline.Cut(value, longestValue)) }

var words = regexp.MustCompile(`[^\s"]+`)

// scrubbed returns the text without the secrets of any URLs in it.
func scrubbed(text string) string { return words.ReplaceAllStringFunc(text, withoutSecrets) }

// withoutSecrets returns a URL without user information and query. It also takes URLs that
// cannot be parsed: where the parts are ambiguous, everything but the scheme is removed.
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
