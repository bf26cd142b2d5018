package verdict_test

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/verdict"
)

type tripper func(*http.Request) (*http.Response, error)

func (t tripper) RoundTrip(r *http.Request) (*http.Response, error) { return t(r) }

// closes tells when a body is closed.
type closes struct {
	io.Reader

	closed bool
}

func (c *closes) Close() error {
	c.closed = true
	return nil
}

func TestErrorTransport_ReturnsRefusalsAsErrors(t *testing.T) {
	t.Parallel()
	body := &closes{Reader: strings.NewReader(`{"error":{"code":"rate_limit_exceeded"}}`)}
	client := &http.Client{Transport: &verdict.ErrorTransport{Base: tripper(func(*http.Request) (*http.Response, error) {
		limited := answer(429, "Content-Type", "application/json", "X-RateLimit-Reset", "7")
		limited.Body = body
		return limited, nil
	})}}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://model.example", nil)
	require.NoError(t, err)
	_, err = client.Do(request) //nolint:bodyclose // there is none
	require.Equal(t, verdict.Verdict{Class: verdict.ClassRateLimited, After: 7 * time.Second, Scope: verdict.ScopeProvider}, verdict.Of(err))
	require.True(t, body.closed)
	var refusal *verdict.ResponseError
	require.ErrorAs(t, err, &refusal)
	require.Equal(t, "rate_limit_exceeded", refusal.Code)
}

func TestErrorTransport_ReturnsOtherResponsesAsTheyAre(t *testing.T) {
	t.Parallel()
	var next *http.Response
	transport := &verdict.ErrorTransport{Keep: []int{404, 405}, Base: tripper(func(*http.Request) (*http.Response, error) { return next, nil })}
	for status, kept := range map[int]bool{200: true, 204: true, 302: true, 404: true, 405: true, 400: false, 500: false} {
		body := &closes{Reader: strings.NewReader("text")}
		next = answer(status) //nolint:bodyclose // below
		next.Body = body
		got, err := transport.RoundTrip(nil)
		require.Equal(t, kept, err == nil, status)
		require.Equal(t, !kept, body.closed, status)
		if kept {
			text, err := io.ReadAll(got.Body)
			require.NoError(t, err)
			require.NoError(t, got.Body.Close())
			require.Equal(t, "text", string(text))
		}
	}
}

// A base without a response, without a body and with an error of its own: nothing is read that is not there.
func TestErrorTransport_SurvivesOtherTransports(t *testing.T) {
	t.Parallel()
	mine := errors.New("mine")
	for _, row := range []struct {
		response *http.Response
		err      error
		want     verdict.Class
	}{
		{nil, mine, verdict.ClassUnknown}, {&http.Response{StatusCode: http.StatusBadGateway}, nil, verdict.ClassServerError},
	} {
		transport := &verdict.ErrorTransport{Base: tripper(func(*http.Request) (*http.Response, error) { return row.response, row.err })}
		_, err := transport.RoundTrip(nil) //nolint:bodyclose // there is none
		require.Error(t, err)
		require.Equal(t, row.want, verdict.Of(err).Class)
	}
	transport := &verdict.ErrorTransport{Base: tripper(func(*http.Request) (*http.Response, error) { return nil, nil })} //nolint:nilnil // that is the case
	response, err := transport.RoundTrip(nil)                                                                            //nolint:bodyclose // there is none
	require.NoError(t, err)
	require.Nil(t, response)
}
