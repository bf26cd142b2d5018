package config_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/config"
)

// pages serves one text with its ETag.
type pages struct {
	mu         sync.Mutex
	text       string
	status     int
	unmodified int
	authorised string
}

func (p *pages) set(text string, status int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.text, p.status = text, status
}

func (p *pages) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.authorised = r.Header.Get("Authorization")
	etag := `"` + strings.ReplaceAll(p.text[:min(len(p.text), 60)], "\n", "") + `"`
	etag = strings.ReplaceAll(etag, " ", "")
	if p.status == http.StatusOK && r.Header.Get("If-None-Match") == etag {
		p.unmodified++
		w.WriteHeader(http.StatusNotModified)
		return
	}
	w.Header().Set("ETag", etag)
	w.WriteHeader(p.status)
	_, _ = w.Write([]byte(p.text))
}

func TestHTTP_IsFollowedByETag(t *testing.T) {
	t.Parallel()
	p := &pages{text: models("name: a"), status: http.StatusOK}
	server := httptest.NewServer(p)
	t.Cleanup(server.Close)
	source, err := config.HTTP(strings.Replace(server.URL, "//", "//user:pass@", 1)+"/agent.yaml?token=hidden", config.HTTPOptions{
		Interval: 5 * time.Millisecond, Client: server.Client(),
	})
	require.NoError(t, err)
	require.Equal(t, server.URL+"/agent.yaml", source.String())
	f := follow(t, source, quick())
	f.until(t, config.Applied, "a")
	require.Eventually(t, func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.unmodified > 3
	}, 20*time.Second, time.Millisecond)
	require.Empty(t, f.events, "what is unchanged is not told")
	require.NotEmpty(t, p.authorised)
	p.set("oh", http.StatusServiceUnavailable)
	e := f.until(t, config.Refused)
	require.ErrorContains(t, e.Err, "503")
	p.set("service: {}", http.StatusOK)
	e = f.until(t, config.Refused)
	require.ErrorContains(t, e.Err, server.URL+"/agent.yaml:1:1: service: unknown field")
	p.set(strings.Repeat("#", 17<<20), http.StatusOK)
	require.ErrorContains(t, f.until(t, config.Refused).Err, "more than 16 MiB")
	require.Equal(t, []string{"a"}, names(f.m.Current(), "llm"))
	p.set(models("name: b"), http.StatusOK)
	f.until(t, config.Applied, "b")
	server.Close()
	e = f.until(t, config.Refused)
	require.NotContains(t, e.Err.Error()+e.String(), "hidden")
	require.NotContains(t, e.Err.Error(), "pass")
	f.stop()
	server.Client().CloseIdleConnections()
}

func TestHTTP_WrongAddressesAreRefused(t *testing.T) {
	t.Parallel()
	for _, address := range []string{"", "agent.yaml", "ftp://host/a", "http://", "http://%zz"} {
		_, err := config.HTTP(address, config.HTTPOptions{})
		require.ErrorIs(t, err, registry.ErrInvalid, address)
	}
	_, err := config.HTTP("http://host", config.HTTPOptions{Interval: -1})
	require.ErrorIs(t, err, registry.ErrInvalid)
}
