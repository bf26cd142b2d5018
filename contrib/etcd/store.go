package registryetcd

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/connectivity"

	"github.com/capreg/registry"
	"github.com/capreg/registry/federation"
)

const (
	defaultPrefix = "registry/"
	longestPrefix = 200

	// page bounds the records of one answer.
	page = 100
	// answerWithin bounds the time for one answer.
	answerWithin = 10 * time.Second
)

// StoreOptions configures a [Store].
type StoreOptions struct {
	// Prefix begins the keys of all records: at most 200 bytes of letters, digits, "-", "_", "." and "/". Fleets with
	// different prefixes know nothing of each other. Default: "registry/".
	Prefix string
	// Lease is the time after which etcd deletes the records of a node whose process is gone: from 2 s to 24 h, in
	// whole seconds. It should be three times the TTL of the announcers or longer. Default: 5 min.
	Lease time.Duration
}

// Store is a [federation.Store] in etcd. Its methods are safe for concurrent use. Use [NewStore] to create one.
//
// The records of a node are attached to one lease of etcd, which is kept alive by the writes of the announcer. The lease only
// removes what a process leaves behind: whether a node lives is judged by package federation. All reads are
// linearizable, so that a part of a cluster that was cut off cannot declare nodes dead.
type Store struct {
	client *clientv3.Client
	prefix string
	lease  nodeLease
}

// Config returns the configuration with which a client serves federation: a server that is silent is noticed within 15 seconds, and
// connections are tried again every three seconds at the latest, for ever. TLS, credentials and the logger can be added.
func Config(endpoints ...string) clientv3.Config {
	return clientv3.Config{
		Endpoints: endpoints, DialTimeout: answerWithin, DialKeepAliveTime: answerWithin, DialKeepAliveTimeout: answerWithin / 2,
		DialOptions: []grpc.DialOption{grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 3 * time.Second},
			MinConnectTimeout: answerWithin / 2,
		})},
	}
}

// NewStore returns a store over the client, which remains its owner's. It does not block, and starts no goroutine. The error names the
// option and matches [registry.ErrInvalid].
func NewStore(client *clientv3.Client, options StoreOptions) (*Store, error) {
	if options.Prefix == "" {
		options.Prefix = defaultPrefix
	}
	if options.Lease == 0 {
		options.Lease = defaultLease
	}
	switch {
	case client == nil:
		return nil, fmt.Errorf("registryetcd: NewStore needs a client: %w", registry.ErrInvalid)
	case len(options.Prefix) > longestPrefix || strings.Trim(options.Prefix, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./") != "":
		return nil, fmt.Errorf("registryetcd: StoreOptions.Prefix is %.100q: want at most %d bytes of letters, digits, -, _, . and /: %w",
			options.Prefix, longestPrefix, registry.ErrInvalid)
	case options.Lease < shortestLease || options.Lease > longestLease || options.Lease%time.Second != 0:
		return nil, fmt.Errorf("registryetcd: StoreOptions.Lease is %v: want 0 (%v), or whole seconds from %v to %v: %w",
			options.Lease, defaultLease, shortestLease, longestLease, registry.ErrInvalid)
	}
	return &Store{
		client: client, prefix: options.Prefix,
		lease: nodeLease{client: client, ttl: options.Lease, turn: make(chan struct{}, 1)},
	}, nil
}

// String names the prefix.
func (s *Store) String() string { return "etcd prefix " + s.prefix }

// Probe is a probe: the store is healthy when a quorum of the cluster answers. It is for [registry.Provider.Health] and
// [registry.Component.Ready], and gives up after ten seconds.
func (s *Store) Probe(ctx context.Context) error {
	within, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	_, err := s.client.Get(within, s.prefix, clientv3.WithCountOnly())
	return failed("probe", err)
}

// failed returns an error of the engine.
func failed(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("registryetcd: %s: %w", what, err)
}

// Get implements [federation.Store], as the methods below do.
func (s *Store) Get(ctx context.Context, key string) (federation.Record, error) {
	answer, err := s.client.Get(ctx, s.prefix+key)
	switch {
	case err != nil:
		return federation.Record{}, failed("get", err)
	case len(answer.Kvs) == 0:
		return federation.Record{}, fmt.Errorf("registryetcd: %q: %w", key, federation.ErrMissing)
	}
	return s.record(answer.Kvs[0]), nil
}

func (s *Store) record(kv *mvccpb.KeyValue) federation.Record {
	revision := uint64(kv.ModRevision) //nolint:gosec // it is never negative
	return federation.Record{Key: strings.TrimPrefix(string(kv.Key), s.prefix), Value: kv.Value, Revision: revision}
}

// Put writes a record whatever there is.
func (s *Store) Put(ctx context.Context, key string, value []byte) error {
	return failed("put", s.lease.write(ctx, key, func(attached ...clientv3.OpOption) error {
		_, err := s.client.Put(ctx, s.prefix+key, string(value), attached...)
		return err
	}))
}

// Update writes a record if it has the revision.
func (s *Store) Update(ctx context.Context, key string, value []byte, revision uint64) (now uint64, err error) {
	err = s.lease.write(ctx, key, func(attached ...clientv3.OpOption) error {
		answer, err := s.client.Txn(ctx).If(s.has(key, revision)).Then(clientv3.OpPut(s.prefix+key, string(value), attached...)).Commit()
		switch {
		case err != nil:
			return err
		case !answer.Succeeded:
			return federation.ErrChanged
		}
		now = uint64(answer.Header.Revision) //nolint:gosec // it is never negative
		return nil
	})
	return now, failed("update", err)
}

// has compares the revision of a record, which is zero for one that is not there.
func (s *Store) has(key string, revision uint64) clientv3.Cmp {
	return clientv3.Compare(clientv3.ModRevision(s.prefix+key), "=", int64(revision)) //nolint:gosec // no record has one that is larger
}

// Delete removes a record if it has the revision.
func (s *Store) Delete(ctx context.Context, key string, revision uint64) error {
	if revision == 0 {
		_, err := s.client.Delete(ctx, s.prefix+key)
		return failed("delete", err)
	}
	answer, err := s.client.Txn(ctx).If(s.has(key, revision)).
		Then(clientv3.OpDelete(s.prefix + key)).
		Else(clientv3.OpGet(s.prefix+key, clientv3.WithCountOnly())).Commit()
	switch {
	case err != nil:
		return failed("delete", err)
	case !answer.Succeeded && answer.Responses[0].GetResponseRange().Count > 0:
		return failed("delete", federation.ErrChanged)
	}
	return nil
}

var (
	errConnection = errors.New("the connection was lost")
	errWatch      = errors.New("the watch has ended")
)

// Watch tells the records, and then the changes. It ends when the connection is lost, as etcd may have come back with other data, and
// when what it has not told yet was compacted; so it begins again from the start.
func (s *Store) Watch(ctx context.Context, prefix string, tell func(federation.Record)) error {
	watching, stop := context.WithCancelCause(ctx)
	var all sync.WaitGroup
	defer all.Wait()
	defer stop(nil) // before the wait
	if conn := s.client.ActiveConnection(); conn != nil {
		all.Go(func() { awaitLoss(watching, conn, stop) })
	}
	err := s.watch(watching, s.prefix+prefix, tell)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(context.Cause(watching), errConnection):
		err = errConnection
	}
	return failed("watch", err)
}

// awaitLoss stops the watch when a connection that was there is lost.
func awaitLoss(ctx context.Context, conn *grpc.ClientConn, stop func(error)) {
	state := conn.GetState()
	for state != connectivity.Ready {
		if !conn.WaitForStateChange(ctx, state) {
			return
		}
		state = conn.GetState()
	}
	if conn.WaitForStateChange(ctx, state) {
		stop(errConnection)
	}
}

func (s *Store) watch(ctx context.Context, prefix string, tell func(federation.Record)) error {
	revision, err := s.tellAll(ctx, prefix, tell)
	if err != nil {
		return err
	}
	tell(federation.Record{Synced: true})
	changes := s.client.Watch(clientv3.WithRequireLeader(ctx), prefix, clientv3.WithPrefix(), clientv3.WithRev(revision+1))
	for answer := range changes {
		if err := answer.Err(); err != nil {
			return err
		}
		s.tellChanges(answer.Events, tell)
	}
	return errWatch
}

// tellAll tells the records as they were at one revision, which it returns.
func (s *Store) tellAll(ctx context.Context, prefix string, tell func(federation.Record)) (revision int64, err error) {
	from, end := prefix, clientv3.GetPrefixRangeEnd(prefix)
	for {
		answer, err := s.tellPage(ctx, from, end, revision, tell)
		if err != nil {
			return 0, err
		}
		if revision == 0 {
			revision = answer.Header.Revision
		}
		if !answer.More || len(answer.Kvs) == 0 {
			return revision, nil
		}
		from = string(answer.Kvs[len(answer.Kvs)-1].Key) + "\x00"
	}
}

func (s *Store) tellPage(ctx context.Context, from, end string, revision int64, tell func(federation.Record)) (*clientv3.GetResponse, error) {
	within, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	answer, err := s.client.Get(within, from, clientv3.WithRange(end), clientv3.WithLimit(page), clientv3.WithRev(revision))
	if err != nil {
		return nil, err
	}
	for _, kv := range answer.Kvs {
		tell(s.record(kv))
	}
	return answer, nil
}

// tellChanges tells changes. Where etcd has ended the lease of a process, it has deleted all records of a node in one revision. Such
// a node may still live, and then writes its records again: so only the end of the node's own lease is told, which makes it a
// suspect that keeps its providers.
func (s *Store) tellChanges(events []*clientv3.Event, tell func(federation.Record)) {
	type end struct {
		node     string
		revision uint64
	}
	ends := map[end]bool{}
	records := make([]federation.Record, len(events))
	for i, e := range events {
		records[i] = s.record(e.Kv)
		records[i].Deleted = e.Type == clientv3.EventTypeDelete
		if node, isLease := federation.NodeOf(records[i].Key); isLease && records[i].Deleted {
			ends[end{node, records[i].Revision}] = true
		}
	}
	for _, record := range records {
		node, isLease := federation.NodeOf(record.Key)
		if record.Deleted && !isLease && ends[end{node, record.Revision}] {
			continue
		}
		tell(record)
	}
}
