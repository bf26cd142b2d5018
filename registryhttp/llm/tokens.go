package llm

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/capreg/registry/verdict"
)

// ErrTokens reports that the [Tokens] of a [Transport] are used up for now.
var ErrTokens = errors.New("llm: the tokens of this minute are used up")

// bytesOfToken is the length of a token where a server does not tell how many it has used.
const bytesOfToken = 4

// Tokens bounds the tokens that requests use in a minute. What a request uses is known at its end, so one may begin while
// there are tokens left, for which its own length is an estimate until then; what it uses beyond them is a debt that the
// next ones wait for. They come back evenly, all of them within a minute. Use [TokenLimits.Of] to get one; nil is without a
// bound. It is safe for concurrent use, and does not block.
type Tokens struct {
	mu        sync.Mutex // guards the fields below
	perMinute float64
	left      float64 // below 0: a debt
	at        time.Time
}

// TokenLimits keeps [Tokens] by the names of those that they bound, such as clients, so that new settings do not give all tokens
// back. The zero value is ready to use, and safe for concurrent use.
type TokenLimits struct {
	mu  sync.Mutex // guards all
	all map[string]*Tokens
}

// Of returns the tokens of a name, with the given bound from now on; nil for 0 and less. What was used before stays used.
func (l *TokenLimits) Of(name string, perMinute int) *Tokens {
	if perMinute <= 0 {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.all == nil {
		l.all = make(map[string]*Tokens)
	}
	t := l.all[name]
	if t == nil {
		t = &Tokens{perMinute: float64(perMinute), left: float64(perMinute), at: time.Now()}
		l.all[name] = t
	}
	t.change(float64(perMinute))
	return t
}

// change changes the bound.
func (t *Tokens) change(perMinute float64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.refill()
	t.left += perMinute - t.perMinute
	t.perMinute = perMinute
}

// refill gives back what the time has brought. It is called with mu held.
func (t *Tokens) refill() {
	now := time.Now()
	t.left = min(t.left+now.Sub(t.at).Minutes()*t.perMinute, t.perMinute)
	t.at = now
}

// Take takes n tokens where any are left, and reports how long it takes until there are otherwise.
func (t *Tokens) Take(n int) (after time.Duration, ok bool) {
	if t == nil {
		return 0, true
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.refill()
	if t.left < 1 {
		return t.until(1), false
	}
	t.left -= float64(n)
	return 0, true
}

// Spend takes n tokens that were used, whether any are left or not; below 0 it gives them back.
func (t *Tokens) Spend(n int) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.refill()
	t.left = min(t.left-float64(n), t.perMinute)
}

// until returns the time in which so many are left. It is called with mu held.
func (t *Tokens) until(left float64) time.Duration {
	return time.Duration(math.Ceil(max(left-t.left, 0) * float64(time.Minute) / t.perMinute))
}

// Head sets the headers by which OpenAI tells of the limit: X-Ratelimit-Limit-Tokens, X-Ratelimit-Remaining-Tokens, and
// X-Ratelimit-Reset-Tokens, the time until all are there again. Without a bound it sets nothing.
func (t *Tokens) Head(header http.Header) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.refill()
	header.Set("X-Ratelimit-Limit-Tokens", strconv.Itoa(int(t.perMinute)))
	header.Set("X-Ratelimit-Remaining-Tokens", strconv.Itoa(int(max(t.left, 0))))
	header.Set("X-Ratelimit-Reset-Tokens", t.until(t.perMinute).Round(time.Millisecond).String())
}

// refusal returns the error for a client whose tokens are used up.
func (t *Tokens) refusal(after time.Duration) *Error {
	return &Error{
		Message: fmt.Sprintf("the tokens of this minute are used up: try again in %v", after.Round(time.Millisecond)),
		Type:    "tokens", Code: "rate_limit_exceeded", Status: http.StatusTooManyRequests, after: after,
	}
}

// outOfTokens returns the error of an attempt at a server whose tokens are used up: it says when there are some again.
func outOfTokens(after time.Duration) error {
	return verdict.As(ErrTokens, verdict.Verdict{Class: verdict.ClassRateLimited, After: after})
}

// estimate returns the tokens of so many bytes.
func estimate(bytes int) int { return (bytes + bytesOfToken - 1) / bytesOfToken }

// Tokens returns the number of tokens that the request has used. Where the server does not say it, it is an estimate: one for
// four bytes of the request, and for each event of a stream, or four bytes of another answer. A refusal has used none.
func (r *Report) Tokens() int {
	input := cmp.Or(r.InputTokens, estimate(len(r.Asked.body)))
	switch {
	case r.InputTokens+r.OutputTokens > 0:
		return input + r.OutputTokens
	case r.events > 0:
		return input + r.events
	case r.Status == http.StatusOK:
		return input + estimate(int(r.Bytes))
	}
	return 0
}
