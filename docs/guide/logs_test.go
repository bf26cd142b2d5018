package guide_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/capreg/registry"
	"github.com/capreg/registry/registryhttp"
)

// A failed call in the log, with the identifier of its request.
func Example_logs() {
	logger := slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{
		Level: slog.LevelWarn,
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			switch a.Key {
			case slog.TimeKey, "duration_ms", "error":
				return slog.Attr{}
			}
			return a
		},
	}))
	reg, err := registry.New(registry.Options{Slog: logger, LogFailed: true, LogSlow: 5 * time.Second})
	if err != nil {
		panic(err)
	}
	ctx := registryhttp.WithMetadata(context.Background(), registryhttp.Metadata{Correlation: "request-7"})
	models := registry.NewService[string]("models")
	if _, err := models.Register(ctx, reg, registry.Provider[string]{Name: "cloud", Instance: "a client"}); err != nil {
		panic(err)
	}
	_ = models.Bind(reg, registry.Query{}).Do(ctx, func(context.Context, string) error { return os.ErrDeadlineExceeded })
	fmt.Println(reg.Close(ctx))
	// Output:
	// level=WARN msg="registry call_failed" event=registry.call_failed service=models provider=cloud class=transport attempts=1 correlation_id=request-7
	// <nil>
}
