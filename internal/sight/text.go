package sight

import (
	"cmp"
	"fmt"
	"iter"
	"strings"
	"time"

	"github.com/capreg/registry/internal/fault"
	"github.com/capreg/registry/internal/oneline"
	"github.com/capreg/registry/internal/refusal"
)

// String returns the name with the reason and the time until a retry.
func (s *Seen) String() string {
	text := s.Provider + ": " + cmp.Or(s.Words, string(s.Code))
	if s.RetryIn > 0 {
		text += fmt.Sprintf(", retry in %v", s.RetryIn.Round(time.Millisecond))
	}
	return text
}

// TextsOf returns the first candidates with their reasons, for the text of an error that has as many of them in all.
func TextsOf(candidates iter.Seq[*Seen], count int) (texts []string) {
	for candidate := range candidates {
		if len(texts) == refusal.MostNamed {
			return append(texts, fmt.Sprintf("and %d more", count-refusal.MostNamed))
		}
		texts = append(texts, candidate.String())
	}
	return texts
}

// ErrorText returns the text of the error of a look-up that found no eligible provider, in one line. It names the
// service, with the words of its query, and the first candidates with their reasons.
func (o *Sight) ErrorText(service, query string, retryIn time.Duration) string {
	var text strings.Builder
	fmt.Fprintf(&text, "registry: %v: service %q%s", fault.ErrUnavailable, oneline.Cut(service, 64), query)
	switch {
	case o.Cause != nil:
		fmt.Fprintf(&text, ": %v", o.Cause)
	case o.AllParked():
		fmt.Fprintf(&text, ": %v", fault.ErrCredentials)
	}
	if n := o.Len(); n > 0 {
		text.WriteString(": " + strings.Join(TextsOf(o.All(), n), "; "))
	}
	if retryIn > 0 {
		fmt.Fprintf(&text, "; retry in %v", retryIn.Round(time.Millisecond))
	}
	return oneline.Of(text.String())
}

// AppendCauses appends the errors of candidates. They match ErrCredentials only where all candidates are parked.
func AppendCauses(causes []error, candidates iter.Seq[*Seen], parked bool) []error {
	for candidate := range candidates {
		if err := refusal.Cause(candidate.Code, candidate.Err, parked); err != nil {
			causes = append(causes, err)
		}
	}
	return causes
}
