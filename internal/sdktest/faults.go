package sdktest

import (
	"net/http"
	"strconv"
	"time"

	"github.com/capreg/registry/verdict"
)

// Problem is the reason that the body of a refusal gives, in the words of each API.
type Problem int

// The problems. An API that has no word for one of them says what it says of the status.
const (
	Plain      Problem = iota // no more than the status
	TooLong                   // the question exceeds the context of the model
	Policy                    // the content is refused
	DeadKey                   // the key is not valid
	NoModel                   // there is no such model
	Large                     // the request has too many bytes
	Limit                     // too many requests
	LimitDelay                // too many requests, with the delay in the body
	Spent                     // the quota or the credit is used up
	Drained                   // a limit that comes with status 403
	Secondary                 // a second limit that comes with status 403
	Busy                      // no capacity
	ReadOnly                  // it cannot write
	Deadlock                  // the transaction was rolled back
	NoRows                    // there is no such row
)

// Trouble is a failure of the connection, or within the answer.
type Trouble int

// The troubles.
const (
	None     Trouble = iota
	Refused          // nothing listens
	Reset            // the connection is reset instead of an answer
	NoHost           // the name is not known
	BadTLS           // the certificate is of an unknown authority
	Hangs            // no answer within the client's own time limit
	Cut              // the connection ends within the body
	InStream         // the stream begins well and ends with an error
	HTML             // a page instead of JSON, with status 200
)

// Fault is one row of the table.
type Fault struct {
	// Name tells the faults apart.
	Name string
	// Does says what the server does.
	Does string
	// Status, Header and Problem make the answer; Status is 0 where there is none.
	Status  int
	Header  func() http.Header
	Problem Problem
	// Trouble is a failure of the connection, or within the answer.
	Trouble Trouble
	// Want is the verdict that the fault demands, but for the exceptions of clients.
	Want verdict.Verdict
}

const (
	delay      = 30 * time.Second
	shortDelay = 1500 * time.Millisecond
	overloaded = 529
)

func fixed(pairs ...string) func() http.Header {
	return func() http.Header {
		header := make(http.Header)
		for i := 0; i+1 < len(pairs); i += 2 {
			header.Set(pairs[i], pairs[i+1])
		}
		return header
	}
}

// at has a header with the moment at which the delay is over; remaining is the header of what is left, if any.
func at(name, remaining string, form func(time.Time) string) func() http.Header {
	return func() http.Header {
		header := fixed(name, form(time.Now().Add(delay)))()
		if remaining != "" {
			header.Set(remaining, "0")
		}
		return header
	}
}

func date(t time.Time) string    { return t.UTC().Format(http.TimeFormat) }
func rfc3339(t time.Time) string { return t.UTC().Format(time.RFC3339) }
func epoch(t time.Time) string   { return strconv.FormatInt(t.Unix(), 10) }
func epochMS(t time.Time) string { return strconv.FormatInt(t.UnixMilli(), 10) }

func class(c verdict.Class) verdict.Verdict { return verdict.Verdict{Class: c} }

func limited(after time.Duration) verdict.Verdict {
	return verdict.Verdict{Class: verdict.ClassRateLimited, After: after}
}

// Faults returns the rows of the table.
func Faults() []Fault {
	return []Fault{
		{Name: "400", Does: "bad request", Status: 400, Want: class(verdict.ClassBadRequest)},
		{Name: "400 context", Does: "longer than the context of the model", Status: 400, Problem: TooLong, Want: class(verdict.ClassTooLong)},
		{Name: "400 policy", Does: "content that the policy refuses", Status: 400, Problem: Policy, Want: class(verdict.ClassRefused)},
		{Name: "401", Does: "credentials refused", Status: 401, Want: class(verdict.ClassUnauthenticated)},
		{Name: "dead key", Does: "a key that is not valid, with the code that says so", Status: 401, Problem: DeadKey, Want: class(verdict.ClassFatal)},
		{Name: "402", Does: "payment required", Status: 402, Want: class(verdict.ClassNotAllowed)},
		{Name: "403", Does: "forbidden", Status: 403, Want: class(verdict.ClassNotAllowed)},
		{
			Name: "403 limit", Does: "a limit that is used up, by `X-RateLimit-Remaining: 0`", Status: 403, Problem: Drained,
			Header: at("X-RateLimit-Reset", "X-RateLimit-Remaining", epoch), Want: limited(delay),
		},
		{
			Name: "403 second", Does: "a second limit with `Retry-After: 30`", Status: 403, Problem: Secondary,
			Header: fixed("Retry-After", "30"), Want: limited(delay),
		},
		{Name: "404", Does: "no such resource", Status: 404, Want: class(verdict.ClassResource)},
		{Name: "404 model", Does: "no such model, with the code that says so", Status: 404, Problem: NoModel, Want: class(verdict.ClassNotFound)},
		{Name: "408", Does: "request timed out", Status: 408, Want: class(verdict.ClassServerError)},
		{Name: "409", Does: "conflict", Status: 409, Want: class(verdict.ClassResource)},
		{Name: "413", Does: "request too large", Status: 413, Problem: Large, Want: class(verdict.ClassBadRequest)},
		{Name: "422", Does: "content that is not valid", Status: 422, Want: class(verdict.ClassBadRequest)},
		{Name: "429", Does: "too many requests, no delay", Status: 429, Problem: Limit, Want: limited(0)},
		{
			Name: "429 seconds", Does: "`Retry-After: 30`", Status: 429, Problem: Limit,
			Header: fixed("Retry-After", "30"), Want: limited(delay),
		},
		{
			Name: "429 date", Does: "`Retry-After` with a date", Status: 429, Problem: Limit,
			Header: at("Retry-After", "", date), Want: limited(delay),
		},
		{
			Name: "429 ms", Does: "`Retry-After-Ms: 1500`", Status: 429, Problem: Limit,
			Header: fixed("Retry-After-Ms", "1500"), Want: limited(shortDelay),
		},
		{
			Name: "429 reset-after", Does: "`X-RateLimit-Reset-After: 1.5`", Status: 429, Problem: Limit,
			Header: fixed("X-RateLimit-Reset-After", "1.5"), Want: limited(shortDelay),
		},
		{
			Name: "429 reset", Does: "`X-RateLimit-Reset` with seconds since 1970, none remaining", Status: 429, Problem: Limit,
			Header: at("X-RateLimit-Reset", "X-RateLimit-Remaining", epoch), Want: limited(delay),
		},
		{
			Name: "429 reset ms", Does: "`X-RateLimit-Reset` with milliseconds since 1970", Status: 429, Problem: Limit,
			Header: at("X-RateLimit-Reset", "", epochMS), Want: limited(delay),
		},
		{
			Name: "429 requests", Does: "`X-RateLimit-Reset-Requests: 30s`, none remaining, and `-Tokens: 2m0s`, some remaining", Status: 429, Problem: Limit,
			Header: fixed("X-RateLimit-Reset-Requests", "30s", "X-RateLimit-Remaining-Requests", "0",
				"X-RateLimit-Reset-Tokens", "2m0s", "X-RateLimit-Remaining-Tokens", "9000"), Want: limited(delay),
		},
		{
			Name: "429 rfc3339", Does: "`Anthropic-RateLimit-Requests-Reset` with a date, none remaining", Status: 429, Problem: Limit,
			Header: at("Anthropic-RateLimit-Requests-Reset", "Anthropic-RateLimit-Requests-Remaining", rfc3339), Want: limited(delay),
		},
		{
			Name: "429 draft", Does: "`RateLimit-Reset: 30` of the older draft", Status: 429, Problem: Limit,
			Header: fixed("RateLimit-Reset", "30", "RateLimit-Remaining", "0"), Want: limited(delay),
		},
		{
			Name: "429 fields", Does: "`RateLimit: \"day\";r=5;t=3600, \"minute\";r=0;t=30` of the newer draft", Status: 429, Problem: Limit,
			Header: fixed("RateLimit", `"day";r=5;t=3600, "minute";r=0;t=30`), Want: limited(delay),
		},
		{Name: "429 body", Does: "the delay in the body", Status: 429, Problem: LimitDelay, Want: limited(delay)},
		{Name: "429 quota", Does: "quota or credit used up", Status: 429, Problem: Spent, Want: class(verdict.ClassFatal)},
		{Name: "500", Does: "failure of the server", Status: 500, Want: class(verdict.ClassServerError)},
		{Name: "501", Does: "not implemented", Status: 501, Want: class(verdict.ClassElsewhere)},
		{Name: "502", Does: "a proxy's page in HTML", Status: 502, Trouble: HTML, Want: class(verdict.ClassServerError)},
		{Name: "503", Does: "unavailable", Status: 503, Want: class(verdict.ClassServerError)},
		{
			Name: "503 seconds", Does: "unavailable, `Retry-After: 30`", Status: 503,
			Header: fixed("Retry-After", "30"), Want: verdict.Verdict{Class: verdict.ClassOverloaded, After: delay},
		},
		{Name: "504", Does: "time-out of a proxy", Status: 504, Want: class(verdict.ClassServerError)},
		{Name: "529", Does: "no capacity", Status: overloaded, Problem: Busy, Want: class(verdict.ClassOverloaded)},
		{Name: "refused", Does: "nothing listens", Trouble: Refused, Want: class(verdict.ClassNotSent)},
		{Name: "reset", Does: "connection reset before the answer", Trouble: Reset, Want: class(verdict.ClassTransport)},
		{Name: "DNS", Does: "the name of the host is unknown", Trouble: NoHost, Want: class(verdict.ClassNotSent)},
		{Name: "TLS", Does: "certificate of an unknown authority", Trouble: BadTLS, Want: class(verdict.ClassTransport)},
		{Name: "time-out", Does: "no answer within the client's own limit", Trouble: Hangs, Want: class(verdict.ClassAttemptTimeout)},
		{Name: "cut", Does: "connection lost within the answer", Status: 200, Trouble: Cut, Want: class(verdict.ClassTransport)},
		{
			Name: "in stream", Does: "status 200, and an error within the stream that says \"no capacity\"", Status: 200, Problem: Busy, Trouble: InStream,
			Want: class(verdict.ClassOverloaded),
		},
		{Name: "HTML", Does: "status 200, and a page instead of JSON", Status: 200, Trouble: HTML, Want: class(verdict.ClassMalformed)},
		{Name: "no rows", Does: "no such row", Problem: NoRows, Want: class(verdict.ClassResource)},
		{Name: "read only", Does: "a replica that cannot write", Problem: ReadOnly, Want: class(verdict.ClassNotForMe)},
		{Name: "deadlock", Does: "a transaction that was rolled back", Problem: Deadlock, Want: class(verdict.ClassElsewhere)},
	}
}
