package wire_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/contrib/mcp/internal/wire"
	"github.com/capreg/registry/verdict"
)

func TestHTTP_RequestsEndWithTheLifeOfTheConnection(t *testing.T) {
	t.Parallel()
	begun := make(chan struct{}, 2)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/body" {
			w.WriteHeader(http.StatusOK)
			w.(http.Flusher).Flush()
		}
		begun <- struct{}{}
		<-r.Context().Done()
	}))
	defer server.Close()
	defer server.CloseClientConnections()
	life, end := context.WithCancel(t.Context())
	client := wire.HTTP(life, server.URL, &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}, 0).HTTPClient
	errs := make(chan error, 2)
	for _, path := range []string{"/head", "/body"} {
		go func() {
			request, err := http.NewRequestWithContext(context.Background(), http.MethodGet, server.URL+path, nil)
			if err != nil {
				errs <- err
				return
			}
			response, err := client.Do(request)
			if err == nil {
				_, err = io.ReadAll(response.Body)
				err = errors.Join(err, response.Body.Close())
			}
			errs <- err
		}()
	}
	<-begun
	<-begun
	end()
	require.ErrorIs(t, <-errs, context.Canceled)
	require.ErrorIs(t, <-errs, context.Canceled)
}

func TestHTTP_StatusesOfTheProtocolAreAnswersAndOthersAreErrors(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		status := map[string]int{"/404": 404, "/400": 400, "/405": 405, "/503": 503, "/429": 429, "/401": 401}[r.URL.Path]
		w.Header().Set("Retry-After", "3")
		w.WriteHeader(status)
	}))
	defer server.Close()
	client := wire.HTTP(t.Context(), server.URL, &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}, 0).HTTPClient
	for path, want := range map[string]verdict.Class{
		"/404": verdict.ClassSuccess, "/400": verdict.ClassSuccess, "/405": verdict.ClassSuccess,
		"/503": verdict.ClassOverloaded, "/429": verdict.ClassRateLimited, "/401": verdict.ClassUnauthenticated,
	} {
		ctx, tracked := wire.Track(t.Context())
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, server.URL+path, strings.NewReader("{}"))
		require.NoError(t, err)
		response, err := client.Do(request)
		if err == nil {
			require.NoError(t, response.Body.Close())
		}
		require.Equal(t, want, verdict.Of(err).Class, path)
		require.Equal(t, path == "/404", tracked.IsRefused(), path)
	}
}
