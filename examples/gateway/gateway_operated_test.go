package main

import (
	"io"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/config"
)

func TestGateway_IsObservedAndOperated(t *testing.T) {
	t.Parallel()
	url, _, _ := two(t, func(c *Config) {
		c.Clients = map[string]Client{"a": {Key: "secret-a"}}
		c.Admin = map[string]config.Secret{"ops": "secret-o"}
	})
	response, _ := post(t, url, plain)
	require.Equal(t, http.StatusOK, response.StatusCode)
	get := func(path, token string) (int, string) {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+path, http.NoBody)
		require.NoError(t, err)
		r.Header.Set("Authorization", "Bearer "+token)
		response, err := http.DefaultClient.Do(r)
		require.NoError(t, err)
		defer func() { require.NoError(t, response.Body.Close()) }()
		text, err := io.ReadAll(response.Body)
		require.NoError(t, err)
		return response.StatusCode, string(text)
	}
	status, text := get("/metrics", "")
	require.Equal(t, http.StatusOK, status)
	require.Regexp(t, `registry_attempt_duration_seconds_count\{[^}]*provider="demo at first"[^}]*\} 1\n`, text)
	for _, token := range []string{"", "secret-a", "secret-ox"} {
		status, _ = get("/admin/v1/runtime/services", token)
		require.Equal(t, http.StatusUnauthorized, status)
	}
	status, text = get("/admin/v1/runtime/services", "secret-o")
	require.Equal(t, http.StatusOK, status)
	require.Contains(t, text, `"models"`)
}
