package main

import (
	"context"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
)

// A configuration makes a gateway, or an error.
func FuzzConfiguration(f *testing.F) {
	text, err := os.ReadFile("gateway.json")
	require.NoError(f, err)
	f.Add(string(text))
	for _, text := range []string{
		``, `{}`, `null`, `[]`, `{"routes":[{"model":"*","groups":[{"upstreams":["a"]}]}],"upstreams":{"a":{"url":"http://127.0.0.1:1"}}}`,
		`{"routes":[{"model":"a**","groups":[{}]}]}`, `{"upstreams":{"a":{"url":"http://h","models":{"m*":""},"limits":{"max_concurrent":-1}}}}`,
		`{"timeouts":{"answer":"1h","stall":"-1s"}}`, `{"clients":{"a":{"key":""}}}`, `{} {}`,
		`{"upstreams":{" a":{"url":"http://h/v1","models":{"m":"n"}}},"routes":[{"model":"m*","groups":[{"upstreams":[" a"],"strategy":"round_robin"}]}]}`,
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		config, err := readConfig(strings.NewReader(text))
		if err != nil {
			return
		}
		gate, err := newGateway(t.Context(), config, zap.NewNop(), http.DefaultTransport)
		if err != nil {
			require.NotContains(t, err.Error(), "panic")
			return
		}
		require.NoError(t, gate.registry.Close(context.WithoutCancel(t.Context())))
	})
}

func FuzzDuration(f *testing.F) {
	for _, text := range []string{"1s", "0", "-1s", "1h1m1.5s", "9223372036854775807ns", "1", "", "∞"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		d := Duration(1)
		if err := d.UnmarshalText([]byte(text)); err != nil {
			require.Equal(t, Duration(1), d, "nothing is changed")
			return
		}
		require.Positive(t, d)
	})
}
