package verdict_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/capreg/registry/verdict"
)

// Wrapping is the most direct way to say what an error means; the error stays
// what it is for errors.Is and errors.As.
func ExampleRateLimited() {
	errBusy := errors.New("429 Too Many Requests")
	err := fmt.Errorf("asking: %w", verdict.RateLimited(errBusy, 20*time.Second))
	v := verdict.Of(err)
	fmt.Println(v.Class, v.After, errors.Is(err, errBusy))
	// Output:
	// rate limited 20s true
}

// apiError is an error that knows its HTTP status.
type apiError struct{ status int }

func (e *apiError) Error() string       { return fmt.Sprintf("status %d", e.status) }
func (e *apiError) HTTPStatusCode() int { return e.status }

func ExampleOf() {
	for _, err := range []error{
		nil, &apiError{500}, &apiError{429}, &apiError{401}, &apiError{400}, context.DeadlineExceeded, errors.New("?"),
	} {
		fmt.Printf("%v: %v\n", err, verdict.Of(err).Class)
	}
	// Output:
	// <nil>: success
	// status 500: server error
	// status 429: rate limited
	// status 401: unauthenticated
	// status 400: bad request
	// context deadline exceeded: attempt timeout
	// ?: unknown
}

// Map gives a program's own errors their class.
func ExampleMap() {
	errNoUser, errBusy := errors.New("no such user"), errors.New("busy")
	classify := verdict.Map(map[error]verdict.Class{
		errNoUser: verdict.ClassResource, // it is the answer
		errBusy:   verdict.ClassOverloaded,
	})
	fmt.Println(classify(fmt.Errorf("users: %w", errNoUser)).Class)
	fmt.Println(classify(errBusy).Class)
	fmt.Println(classify(errors.New("else")).Class)
	// Output:
	// refused by the resource
	// overloaded
	// unknown
}

// A classifier recognises the errors of a client that one cannot change.
func ExampleClassifier() {
	errNoCredit := errors.New("insufficient_quota")
	var classify verdict.Classifier = func(err error) verdict.Verdict {
		if errors.Is(err, errNoCredit) {
			return verdict.Verdict{Class: verdict.ClassFatal}
		}
		return verdict.Verdict{} // another classifier may know
	}
	v := classify(errNoCredit)
	rule := v.Class.Rule()
	fmt.Println(v.Class, rule.Next == verdict.NextYes, rule.Blame == verdict.BlameNeutral)
	// Output:
	// fatal true true
}

// A client whose errors are texts still has the status and the delay in those of its transport.
func ExampleErrorTransport() {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "7")
		w.WriteHeader(http.StatusTooManyRequests)
	}))
	defer server.Close()
	client := &http.Client{Transport: &verdict.ErrorTransport{}}
	request, err := http.NewRequestWithContext(context.Background(), http.MethodGet, server.URL, nil)
	if err != nil {
		panic(err)
	}
	_, err = client.Do(request) //nolint:bodyclose // there is none
	v := verdict.Of(err)
	fmt.Println(v.Class, v.After)
	// Output: rate limited 7s
}
