package registrynats_test

import (
	"context"
	"encoding/json"
	"os"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/contrib/nats"
	"github.com/capreg/registry/event"
	"github.com/capreg/registry/startup"
)

func TestComponent_IsReadyWithItsConnectionAndFailsWithIt(t *testing.T) {
	t.Parallel()
	e := begin(t, nil)
	nc := connect(t, e.url())
	reg := newRegistry(t)
	o, err := registry.NewOrchestrator(reg, startup.Options{}, registrynats.Component("nats", nc))
	require.NoError(t, err)
	ended := make(chan error, 1)
	go func() { ended <- o.Run(t.Context()) }()
	require.Eventually(t, func() bool { return registrynats.Probe(nc)(t.Context()) == nil }, 30*time.Second, 5*time.Millisecond)
	nc.Close()
	require.ErrorIs(t, <-ended, nats.ErrConnectionClosed)
	require.ErrorContains(t, registrynats.Probe(nc)(t.Context()), "closed")
}

func TestPublishEvents_TellsEachEventOnTheSubjectOfItsKind(t *testing.T) {
	t.Parallel()
	e := begin(t, nil)
	nc := connect(t, e.url())
	got, err := nc.SubscribeSync("events.a.>")
	require.NoError(t, err)
	require.NoError(t, nc.Flush())
	reg := newRegistry(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		ended <- registrynats.PublishEvents(ctx, nc, reg, "events.a", event.Filter{Kinds: []event.Kind{event.Registered}})
	}()
	var message *nats.Msg
	for i := 0; message == nil; i++ { // until the subscription has begun
		_, err := askers.Register(t.Context(), reg, registry.Provider[asker]{Instance: answers(nil)})
		require.NoError(t, err)
		require.Less(t, i, 1000)
		if message, err = got.NextMsg(100 * time.Millisecond); err != nil {
			require.ErrorIs(t, err, nats.ErrTimeout)
		}
	}
	require.Equal(t, "events.a.registered", message.Subject)
	var told event.Event
	require.NoError(t, json.Unmarshal(message.Data, &told))
	require.Equal(t, "asker", told.Service)
	cancel()
	require.ErrorIs(t, <-ended, context.Canceled)
	require.ErrorIs(t, registrynats.PublishEvents(t.Context(), nc, reg, "a.>"), registry.ErrInvalid)
}

func TestStore_CreatesNoBucketWhereItMustNot(t *testing.T) {
	t.Parallel()
	store, err := registrynats.NewStore(connect(t, begin(t, nil).url()), registrynats.StoreOptions{Bucket: "x", NoCreate: true})
	require.NoError(t, err)
	_, err = store.Get(t.Context(), "lease.a")
	require.ErrorContains(t, err, `bucket "x"`)
	require.NotErrorIs(t, err, os.ErrNotExist)
}
