package registrynats

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/textproto"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/capreg/registry"
	"github.com/capreg/registry/federation"
)

const (
	defaultBucket = "registry"
	// markers says how long the marker of a deleted record is kept. A source that misses it learns of the deletion by the sum in
	// the lease of the node.
	markers = time.Hour
	// wrongRevision is the code of JetStream for a compare-and-set that met another revision.
	wrongRevision jetstream.ErrorCode = 10071
	notFound      int                 = 404
)

// StoreOptions configures a [Store].
type StoreOptions struct {
	// Bucket is the name of the key-value bucket. Default: "registry".
	Bucket string
	// Replicas is the number of servers that keep the bucket, for one that is created. Default: 1.
	Replicas int
	// Memory keeps a bucket that is created in memory. Default: in files.
	Memory bool
	// NoCreate leaves it to others to create the bucket. Default: it is created where it is missing.
	NoCreate bool
}

// Store is a [federation.Store] in a key-value bucket of JetStream. Use [NewStore] to create one.
//
// Reads are answered by the leader of the bucket, never by a replica, so that a part of a cluster that was cut off cannot
// declare nodes dead. A bucket that is lost with its data is created again.
type Store struct {
	nc      *nats.Conn
	js      jetstream.JetStream
	options StoreOptions

	mu sync.Mutex // guards kv
	kv jetstream.KeyValue
}

// Options returns the options with which a connection serves federation: it reconnects for ever, every quarter of a
// second, and keeps nothing to be written later.
func Options() []nats.Option {
	return []nats.Option{
		nats.MaxReconnects(-1), nats.ReconnectWait(250 * time.Millisecond), nats.ReconnectBufSize(-1), nats.RetryOnFailedConnect(true),
		nats.PingInterval(5 * time.Second), nats.MaxPingsOutstanding(2),
	}
}

// NewStore returns a store over the connection, which remains its owner's. It does not block: the bucket is created at first
// need. The error names the option and matches [registry.ErrInvalid].
func NewStore(nc *nats.Conn, options StoreOptions) (*Store, error) {
	if options.Bucket == "" {
		options.Bucket = defaultBucket
	}
	switch {
	case nc == nil:
		return nil, fmt.Errorf("registrynats: NewStore needs a connection: %w", registry.ErrInvalid)
	case strings.Trim(options.Bucket, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") != "":
		return nil, fmt.Errorf("registrynats: StoreOptions.Bucket is %q: want letters, digits, - and _: %w", options.Bucket, registry.ErrInvalid)
	case options.Replicas < 0 || options.Replicas > 5:
		return nil, fmt.Errorf("registrynats: StoreOptions.Replicas is %d: want 0 (1) to 5: %w", options.Replicas, registry.ErrInvalid)
	}
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, fmt.Errorf("registrynats: %w", err)
	}
	return &Store{nc: nc, js: js, options: options}, nil
}

// String names the bucket.
func (s *Store) String() string { return "nats bucket " + s.options.Bucket }

// bucket returns the bucket, and creates it where it is missing.
func (s *Store) bucket(ctx context.Context) (jetstream.KeyValue, error) {
	s.mu.Lock()
	kv := s.kv
	s.mu.Unlock()
	if kv != nil {
		return kv, nil
	}
	kv, err := s.js.KeyValue(ctx, s.options.Bucket)
	if errors.Is(err, jetstream.ErrBucketNotFound) && !s.options.NoCreate {
		storage := jetstream.FileStorage
		if s.options.Memory {
			storage = jetstream.MemoryStorage
		}
		kv, err = s.js.CreateKeyValue(ctx, jetstream.KeyValueConfig{
			Bucket: s.options.Bucket, Description: "nodes and providers of package federation", History: 1,
			Replicas: max(s.options.Replicas, 1), Storage: storage, LimitMarkerTTL: markers,
		})
		if errors.Is(err, jetstream.ErrBucketExists) { // another node was faster
			kv, err = s.js.KeyValue(ctx, s.options.Bucket)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("registrynats: bucket %q: %w", s.options.Bucket, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kv = kv
	return kv, nil
}

// failed returns an error of the engine, and has the bucket looked for again where it may be gone.
func (s *Store) failed(what string, err error) error {
	var api *jetstream.APIError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &api) && api.ErrorCode == wrongRevision, errors.Is(err, jetstream.ErrKeyExists):
		return fmt.Errorf("registrynats: %s: %w", what, federation.ErrChanged)
	case errors.Is(err, jetstream.ErrStreamNotFound), errors.Is(err, jetstream.ErrBucketNotFound), errors.Is(err, jetstream.ErrNoStreamResponse),
		errors.Is(err, nats.ErrNoResponders):
		s.mu.Lock()
		s.kv = nil
		s.mu.Unlock()
	}
	return fmt.Errorf("registrynats: %s: %w", what, err)
}

// Get implements [federation.Store], as the methods below do. It asks the leader.
func (s *Store) Get(ctx context.Context, key string) (federation.Record, error) {
	if _, err := s.bucket(ctx); err != nil {
		return federation.Record{}, err
	}
	request, err := json.Marshal(map[string]string{"last_by_subj": "$KV." + s.options.Bucket + "." + key})
	if err != nil {
		return federation.Record{}, s.failed("get", err)
	}
	reply, err := s.nc.RequestWithContext(ctx, "$JS.API.STREAM.MSG.GET.KV_"+s.options.Bucket, request)
	if err != nil {
		return federation.Record{}, s.failed("get", err)
	}
	var answer struct {
		Message *struct {
			Sequence uint64 `json:"seq"`
			Header   []byte `json:"hdrs"`
			Data     []byte `json:"data"`
		} `json:"message"`
		Error *jetstream.APIError `json:"error"`
	}
	if err := json.Unmarshal(reply.Data, &answer); err != nil {
		return federation.Record{}, s.failed("get", err)
	}
	switch {
	case answer.Error != nil && answer.Error.Code == notFound && answer.Error.ErrorCode != jetstream.JSErrCodeStreamNotFound:
		return federation.Record{}, fmt.Errorf("registrynats: %q: %w", key, federation.ErrMissing)
	case answer.Error != nil:
		if answer.Error.ErrorCode == jetstream.JSErrCodeStreamNotFound {
			return federation.Record{}, s.failed("get", jetstream.ErrStreamNotFound)
		}
		return federation.Record{}, s.failed("get", answer.Error)
	case answer.Message == nil:
		return federation.Record{}, s.failed("get", errors.New("the answer has no message"))
	case isMarker(answer.Message.Header):
		return federation.Record{}, fmt.Errorf("registrynats: %q: %w", key, federation.ErrMissing)
	}
	return federation.Record{Key: key, Value: answer.Message.Data, Revision: answer.Message.Sequence}, nil
}

// isMarker reports whether the header is that of a deleted key.
func isMarker(header []byte) bool {
	_, fields, _ := bytes.Cut(header, []byte("\r\n"))
	if len(fields) == 0 {
		return false
	}
	read, err := textproto.NewReader(bufio.NewReader(bytes.NewReader(fields))).ReadMIMEHeader()
	if err != nil {
		return false
	}
	h := http.Header(read)
	return h.Get("KV-Operation") != "" || h.Get("Nats-Marker-Reason") != ""
}

// Put writes a record whatever there is.
func (s *Store) Put(ctx context.Context, key string, value []byte) error {
	kv, err := s.bucket(ctx)
	if err != nil {
		return err
	}
	_, err = kv.Put(ctx, key, value)
	return s.failed("put", err)
}

// Update writes a record if it has the revision.
func (s *Store) Update(ctx context.Context, key string, value []byte, revision uint64) (uint64, error) {
	kv, err := s.bucket(ctx)
	if err != nil {
		return 0, err
	}
	var now uint64
	if revision == 0 {
		now, err = kv.Create(ctx, key, value)
	} else {
		now, err = kv.Update(ctx, key, value, revision)
	}
	return now, s.failed("update", err)
}

// Delete removes a record if it has the revision.
func (s *Store) Delete(ctx context.Context, key string, revision uint64) error {
	kv, err := s.bucket(ctx)
	if err != nil {
		return err
	}
	record, err := s.Get(ctx, key)
	switch {
	case errors.Is(err, federation.ErrMissing):
		return nil
	case err != nil:
		return err
	case revision != 0 && record.Revision != revision:
		return fmt.Errorf("registrynats: delete: %w", federation.ErrChanged)
	}
	options := []jetstream.KVDeleteOpt{jetstream.PurgeTTL(markers)}
	if revision != 0 {
		options = append(options, jetstream.LastRevision(revision))
	}
	return s.failed("delete", kv.Purge(ctx, key, options...))
}

var (
	errReconnect = errors.New("the connection was lost")
	errWatch     = errors.New("the watch has ended")
)

// Watch tells the records, and then the changes. It ends when the connection is lost, so that it begins again from the start.
func (s *Store) Watch(ctx context.Context, prefix string, tell func(federation.Record)) error {
	lost := s.nc.StatusChanged(nats.DISCONNECTED, nats.RECONNECTING, nats.CLOSED)
	defer s.nc.RemoveStatusListener(lost)
	if !s.nc.IsConnected() { // after the listener, which is not told what was before
		return s.failed("watch", nats.ErrDisconnected)
	}
	kv, err := s.bucket(ctx)
	if err != nil {
		return err
	}
	pattern := ">"
	if strings.HasSuffix(prefix, ".") {
		pattern = prefix + ">"
	}
	watcher, err := kv.Watch(ctx, pattern)
	if err != nil {
		return s.failed("watch", err)
	}
	defer watcher.Stop() //nolint:errcheck // it has ended, or does with the connection
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-lost:
			return s.failed("watch", errReconnect)
		case entry, open := <-watcher.Updates():
			switch {
			case !open:
				return s.failed("watch", errWatch)
			case entry == nil:
				tell(federation.Record{Synced: true})
			case strings.HasPrefix(entry.Key(), prefix):
				tell(federation.Record{
					Key: entry.Key(), Value: entry.Value(), Revision: entry.Revision(), Deleted: entry.Operation() != jetstream.KeyValuePut,
				})
			}
		}
	}
}
