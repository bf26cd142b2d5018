package registrytest_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/registrytest"
)

// sendTo sends a request like those of an SDK.
func sendTo(ctx context.Context, client *http.Client, path string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://api.test"+path, strings.NewReader("question"))
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	text, err := io.ReadAll(response.Body)
	if err = errors.Join(err, response.Body.Close()); err != nil {
		return err
	}
	return fmt.Errorf("%d %s: %s", response.StatusCode, response.Header.Get("Retry-After"), text)
}

func TestAssertNoClientRetries_DetectsRetries(t *testing.T) {
	t.Parallel()
	var said []string
	require.True(t, registrytest.AssertNoClientRetries(t, func(ctx context.Context, client *http.Client) error {
		err := sendTo(ctx, client, "/ask")
		said = append(said, err.Error())
		return errors.Join(err, sendTo(ctx, client, "/token")) // another request is no retry
	}))
	require.Len(t, said, 9)
	require.Contains(t, said[3], `429 1: {"error":{"code"`)
	require.Contains(t, said[8], "connection reset")
	for name, test := range map[string]struct {
		call func(context.Context, *http.Client) error
		want string
	}{
		"retries": {func(ctx context.Context, client *http.Client) (err error) {
			for range 3 {
				if err = sendTo(ctx, client, "/ask"); ctx.Err() != nil {
					return err
				}
			}
			return err
		}, "tried again by itself after error \"scripted: 429 Too Many Requests\""},
		"elsewhere":    {func(context.Context, *http.Client) error { return errDown }, "did not come to the client"},
		"hides errors": {func(ctx context.Context, client *http.Client) error { _ = sendTo(ctx, client, "/ask"); return nil }, "returned no error"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := spyOn(t, "Test", func(tb testing.TB) {
				require.False(tb, registrytest.AssertNoClientRetries(tb, test.call))
			})
			require.Contains(t, s.text(), test.want)
		})
	}
}
