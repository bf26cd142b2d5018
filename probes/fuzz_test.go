package probes_test

import (
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/probes"
)

// Settings make a probe, or an error that says which is wrong and keeps the secrets.
func FuzzHTTPSettings(f *testing.F) {
	f.Add("http://localhost/health", "GET", "Authorization", "Bearer hunter2", 200)
	f.Add("https://user:hunter2@[::1]:8080/?key=hunter2#x", "HEAD", "X", "", 599)
	f.Add("http://user:hunter2@host:99999/", "TRACE", "X Y", "hunter2\r\nX: 1", 199)
	f.Add("http://%zz:hunter2@", "", "", "", 0)
	f.Add("//host", "post", "Ä", "\x00", 600)
	f.Fuzz(func(t *testing.T, address, method, header, value string, code int) {
		probe, err := probes.HTTP(address, probes.HTTPOptions{Method: method, Header: http.Header{header: {value}}, Codes: []int{code}})
		if err != nil {
			require.ErrorIs(t, err, probes.ErrInvalid)
			requireLine(t, err)
			require.Nil(t, probe)
			if strings.Contains(value, "hunter2") && !strings.Contains(address+method+header, "hunter2") {
				require.NotContains(t, err.Error(), "hunter2")
			}
			return
		}
		parsed, err := url.Parse(address)
		require.NoError(t, err)
		require.NotEmpty(t, parsed.Hostname())
		require.True(t, code >= 200 && code <= 599)
		require.NotContains(t, value, "\n")
	})
}

func FuzzTCPAddress(f *testing.F) {
	for _, address := range []string{"localhost:80", "[::1]:65535", ":80", "host", "host:0", "host:http", "host:65536", "a:b:1", "[::1", "\x00:1"} {
		f.Add(address)
	}
	f.Fuzz(func(t *testing.T, address string) {
		probe, err := probes.TCP(address, probes.TCPOptions{})
		if err != nil {
			require.ErrorIs(t, err, probes.ErrInvalid)
			requireLine(t, err)
			require.Nil(t, probe)
			return
		}
		host, port, err := net.SplitHostPort(address)
		require.NoError(t, err)
		require.NotEmpty(t, host)
		require.Empty(t, strings.Trim(port, "0123456789"))
	})
}
