package main

import (
	"context"
	"net/http"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/capreg/registry/config"
)

// A configuration makes a gateway, or an error.
func FuzzConfiguration(f *testing.F) {
	text, err := os.ReadFile("gateway.yaml")
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
		settings, err := config.ParseAs[Config]("fuzz", []byte(text))
		if err != nil {
			return
		}
		gate, err := newGateway(t.Context(), settings, zap.NewNop(), http.DefaultTransport)
		if err != nil {
			require.NotContains(t, err.Error(), "panic")
			return
		}
		require.NoError(t, gate.close(context.WithoutCancel(t.Context())))
	})
}
