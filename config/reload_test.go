package config_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/registrytest"
)

// The program of a user that has to reload a file: what took 245 lines takes 40, and no call is lost over its versions.
func TestReload_ProgramOfAUserIsShortAndLosesNoCall(t *testing.T) {
	t.Parallel()
	program, err := os.ReadFile("example_reload_test.go")
	require.NoError(t, err)
	require.LessOrEqual(t, strings.Count(string(program), "\n"), 40)

	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer server.Close()
	document := func(version int, url string) string {
		return fmt.Sprintf(`
services:
  quotes:
    groups: {0: {strategy: %s}}
    providers:
      - {name: a, kind: http, settings: {url: "%s", key: "%d"}, health: {timeout: 2s}}
      - {name: b, kind: http, settings: {url: "%s"}, weight: %d}
`, []string{"ROUND_ROBIN", "FALLBACK"}[version%2], url, version, url, version+1)
	}
	path := filepath.Join(write(t, map[string]string{"quotes.yaml": document(0, server.URL)}), "quotes.yaml")
	reg := registrytest.New(t, registry.Options{})
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- reload(ctx, reg, path) }()
	require.NoError(t, reg.WaitReady(ctx, "quotes"))
	resolver := Quotes.Bind(reg, registry.Query{})
	calls := 0
	until := func(key string) {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); ; calls++ {
			answered, err := registry.Call(ctx, resolver, func(_ context.Context, u Upstream) (string, error) { return u.Key, nil })
			require.NoError(t, err)
			if answered == key {
				return
			}
			require.True(t, time.Now().Before(deadline), "version %s does not come", key)
		}
	}
	for version := range 6 {
		if version == 3 {
			put(t, path, "services: nonsense")
			put(t, path, document(99, "http://127.0.0.1:1"))
		}
		replace(t, path, document(version, server.URL))
		until(strconv.Itoa(version))
	}
	stop()
	require.NoError(t, <-ended)
	http.DefaultClient.CloseIdleConnections()
	require.Positive(t, calls)
}
