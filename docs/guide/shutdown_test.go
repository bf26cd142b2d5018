package guide_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/capreg/registry"
)

// serve runs the program's own workers until a signal arrives, and then ends in three steps.
func serve(ctx context.Context, reg *registry.Registry, workers ...func(context.Context)) error {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	var running sync.WaitGroup
	for _, work := range workers {
		running.Go(func() { work(ctx) })
	}
	<-ctx.Done()   // 1. nothing new begins
	running.Wait() // 2. the workers end what they have begun, with the registry still open

	// 3. The registry waits for calls in flight. Its context is a fresh one, since ctx has ended.
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
	defer cancel()
	err := reg.Close(ending)
	if errors.Is(err, registry.ErrStuck) {
		fmt.Println("code that does not end:", err)
	}
	return err
}

func Example_shutdown() {
	reg, err := registry.New(registry.Options{})
	if err != nil {
		panic(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	worker := func(ctx context.Context) {
		cancel() // as a signal does
		<-ctx.Done()
		fmt.Println("the worker has ended")
	}
	fmt.Println(serve(ctx, reg, worker))
	// Output:
	// the worker has ended
	// <nil>
}
