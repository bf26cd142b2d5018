package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/capreg/registry/contrib/nats"
)

// renewed is the time between renewals of a lease with the default TTL.
const renewed = 4 * time.Second

// measureRest measures what a fleet costs that does nothing, beside as many connections that only renew a key of JetStream each, which one other
// watches.
func measureRest(ctx context.Context, b *bench, s sizes, _, near *process) error {
	bare, err := restBare(ctx, b, s)
	if err != nil {
		return err
	}
	for i := range s.nodes {
		p, err := b.process(ctx, fmt.Sprintf("node-%d", i))
		if err != nil {
			return err
		}
		for j := range s.entries {
			if _, err := register(ctx, p.reg, fmt.Sprintf("p%d", j)); err != nil {
				return err
			}
		}
	}
	begun := time.Now()
	if err := b.until(ctx, near.reg, s.entries*(s.nodes+1)); err != nil {
		return err
	}
	b.say("%d providers of %d nodes are seen after %v", s.entries*(s.nodes+1), s.nodes+1, time.Since(begun).Round(time.Millisecond))
	ours, err := rest(ctx, s)
	if err != nil {
		return err
	}
	b.say("at rest, all in one process: %.2f %% of a core, renewals of bare JetStream %.2f %%, ratio %.2f", ours, bare, ours/bare)
	return nil
}

// rest returns how much of a core is used, in percent, once the start is over.
func rest(ctx context.Context, s sizes) (float64, error) {
	if err := pause(ctx, s.rest/8); err != nil {
		return 0, err
	}
	before := cpuTime()
	err := pause(ctx, s.rest)
	return 100 * float64(cpuTime()-before) / float64(s.rest), err
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// restBare is rest without a registry.
func restBare(ctx context.Context, b *bench, s sizes) (float64, error) {
	ctx, cancel := context.WithCancel(ctx)
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel() // before the wait
	open := func() (jetstream.JetStream, error) {
		nc, err := nats.Connect(b.url, registrynats.Options()...)
		if err != nil {
			return nil, err
		}
		context.AfterFunc(ctx, nc.Close)
		return jetstream.New(nc)
	}
	js, err := open()
	if err != nil {
		return 0, err
	}
	leases, err := js.CreateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: "bare", Storage: jetstream.MemoryStorage})
	if err != nil {
		return 0, err
	}
	watcher, err := leases.Watch(ctx, "lease.>")
	if err != nil {
		return 0, err
	}
	all.Go(func() {
		for range watcher.Updates() { // it is closed with its connection
		}
	})
	for i := range s.nodes {
		js, err := open()
		if err != nil {
			return 0, err
		}
		leases, err := js.KeyValue(ctx, "bare")
		if err != nil {
			return 0, err
		}
		key := fmt.Sprintf("lease.node-%d", i)
		revision, err := leases.Create(ctx, key, make([]byte, 200)) // as large as a lease
		if err != nil {
			return 0, err
		}
		all.Go(func() {
			for wait := renewed * time.Duration(i) / time.Duration(s.nodes); pause(ctx, wait) == nil; wait = renewed {
				if revision, err = leases.Update(ctx, key, make([]byte, 200), revision); err != nil {
					return // it has ended
				}
			}
		})
	}
	return rest(ctx, s)
}
