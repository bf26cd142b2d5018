package verdict

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// longestDelay bounds the delay that a server can ask for in a header.
const longestDelay = 10 * 365 * 24 * time.Hour

// RetryAfter parses the value of a Retry-After header in both its forms, seconds and an HTTP
// date. It returns zero for any other value and for a time that has passed.
func RetryAfter(header string) time.Duration {
	header = strings.TrimSpace(header)
	if seconds, err := strconv.ParseFloat(header, 64); err == nil {
		return ofSeconds(seconds)
	}
	if date, err := http.ParseTime(header); err == nil {
		return until(date)
	}
	return 0
}

func ofSeconds(seconds float64) time.Duration {
	if !(seconds > 0) {
		return 0
	}
	return time.Duration(min(seconds, longestDelay.Seconds()) * float64(time.Second))
}

func until(date time.Time) time.Duration { return min(max(time.Until(date), 0), longestDelay) }

// delayIn returns the delay that a server asks for in its header.
func delayIn(header http.Header) time.Duration {
	if ms, err := strconv.ParseFloat(strings.TrimSpace(header.Get("Retry-After-Ms")), 64); err == nil && ms > 0 {
		return ofSeconds(ms / 1000)
	}
	return RetryAfter(header.Get("Retry-After"))
}

// resets has the headers of limits: when one begins again, and what is left of it.
//
//nolint:gochecknoglobals // immutable data
var resets = [...]struct{ reset, remaining string }{
	{"X-Ratelimit-Reset-After", "X-Ratelimit-Remaining"},
	{"X-Ratelimit-Reset", "X-Ratelimit-Remaining"},
	{"X-Rate-Limit-Reset", "X-Rate-Limit-Remaining"},
	{"Ratelimit-Reset", "Ratelimit-Remaining"},
	{"X-Ratelimit-Reset-Requests", "X-Ratelimit-Remaining-Requests"},
	{"X-Ratelimit-Reset-Tokens", "X-Ratelimit-Remaining-Tokens"},
	{"Anthropic-Ratelimit-Requests-Reset", "Anthropic-Ratelimit-Requests-Remaining"},
	{"Anthropic-Ratelimit-Tokens-Reset", "Anthropic-Ratelimit-Tokens-Remaining"},
	{"Anthropic-Ratelimit-Input-Tokens-Reset", "Anthropic-Ratelimit-Input-Tokens-Remaining"},
	{"Anthropic-Ratelimit-Output-Tokens-Reset", "Anthropic-Ratelimit-Output-Tokens-Remaining"},
}

// resetIn returns the time after which the limits of a header begin again: the longest of those of which nothing is left,
// or of which the header does not tell what is left. The limits are in the header of good answers too, so that the
// time means something only where a limit is the reason. Drained reports that nothing is left of one.
func resetIn(header http.Header) (after time.Duration, drained bool) {
	for _, names := range resets {
		value, left := header.Get(names.reset), header.Get(names.remaining)
		if value == "" {
			continue
		}
		remaining, err := strconv.ParseFloat(strings.TrimSpace(left), 64)
		if err == nil && remaining > 0 {
			continue
		}
		drained = drained || err == nil
		after = max(after, resetOf(value))
	}
	for policy := range strings.SplitSeq(header.Get("Ratelimit"), ",") {
		if remaining, time := ofPolicy(policy); remaining <= 0 {
			after = max(after, time)
		}
	}
	return after, drained
}

// resetOf parses the moment at which a limit begins again. It is a date, a duration with units or a number: of
// seconds, or where that would be more than the longest delay, of seconds or milliseconds since 1970.
func resetOf(value string) time.Duration {
	const millennia = 1e11 // of seconds
	value = strings.TrimSpace(value)
	if number, err := strconv.ParseFloat(value, 64); err == nil {
		switch {
		case number >= millennia:
			return until(time.UnixMilli(int64(min(number, 1e15))))
		case number > longestDelay.Seconds():
			return until(time.Unix(int64(number), 0))
		}
		return ofSeconds(number)
	}
	if duration, err := time.ParseDuration(value); err == nil {
		return min(max(duration, 0), longestDelay)
	}
	if date, err := time.Parse(time.RFC3339, value); err == nil {
		return until(date)
	}
	return RetryAfter(value)
}

// ofPolicy returns what is left of a limit, and after which time it begins again, by an item of the header RateLimit such
// as "minute";r=0;t=30. An item without both is not one.
func ofPolicy(policy string) (remaining float64, after time.Duration) {
	remaining = 1
	for parameter := range strings.SplitSeq(policy, ";") {
		name, value, _ := strings.Cut(strings.TrimSpace(parameter), "=")
		number, err := strconv.ParseFloat(value, 64)
		switch {
		case err != nil:
		case name == "r":
			remaining = number
		case name == "t":
			after = ofSeconds(number)
		}
	}
	return remaining, after
}
