package registryetcd

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/capreg/registry/federation"
)

const (
	defaultLease  = 5 * time.Minute
	shortestLease = 2 * time.Second
	longestLease  = 24 * time.Hour
)

// nodeLease is the lease of etcd that the records of a node are attached to. A write keeps it alive when a third of it is
// over. One that was lost is replaced by the next write; the announcer finds out by its own lease that its records are gone
// with it, and writes them again.
type nodeLease struct {
	client *clientv3.Client
	ttl    time.Duration
	turn   chan struct{} // has an element while the lease is granted or kept alive, which one write does for all

	mu    sync.Mutex // guards what follows; etcd is not called with it
	id    clientv3.LeaseID
	alive time.Time // when it was kept alive
}

// write writes a record, attached to the lease if it is one of a node.
func (l *nodeLease) write(ctx context.Context, key string, write func(...clientv3.OpOption) error) error {
	if node, _ := federation.NodeOf(key); node == "" {
		return write()
	}
	for again := true; ; again = false {
		id, err := l.get(ctx)
		if err != nil {
			return err
		}
		err = write(clientv3.WithLease(id))
		if !errors.Is(err, rpctypes.ErrLeaseNotFound) || !again {
			return err
		}
		l.lost(id)
	}
}

// fresh returns the lease, and whether it need not be kept alive yet.
func (l *nodeLease) fresh() (id clientv3.LeaseID, fresh bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.id, l.id != clientv3.NoLease && time.Since(l.alive) < l.ttl/3
}

// lost forgets the lease, which etcd has not any more.
func (l *nodeLease) lost(id clientv3.LeaseID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.id == id {
		l.id = clientv3.NoLease
	}
}

// get returns the lease, after it was granted or kept alive where that is due.
func (l *nodeLease) get(ctx context.Context) (clientv3.LeaseID, error) {
	if id, fresh := l.fresh(); fresh {
		return id, nil
	}
	select {
	case l.turn <- struct{}{}:
		defer func() { <-l.turn }()
	case <-ctx.Done():
		return clientv3.NoLease, ctx.Err()
	}
	id, fresh := l.fresh()
	if fresh {
		return id, nil
	}
	within, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	begun := time.Now()
	if id != clientv3.NoLease {
		_, err := l.client.KeepAliveOnce(within, id)
		if err == nil {
			l.keep(id, begun)
			return id, nil
		}
		if !errors.Is(err, rpctypes.ErrLeaseNotFound) {
			return clientv3.NoLease, fmt.Errorf("the lease is not kept alive: %w", err)
		}
		l.lost(id)
	}
	granted, err := l.client.Grant(within, int64(l.ttl/time.Second))
	if err != nil {
		return clientv3.NoLease, fmt.Errorf("no lease is granted: %w", err)
	}
	l.keep(granted.ID, begun)
	return granted.ID, nil
}

func (l *nodeLease) keep(id clientv3.LeaseID, since time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.id, l.alive = id, since
}
