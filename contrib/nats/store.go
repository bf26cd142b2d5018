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

	longestAsk = 2 * time.Second
	askAgain   = 250 * time.Millisecond
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
// Reads are answered by the leader of the bucket, never by a replica, and count only while a majority of its servers follows that leader, so
// that a part of a cluster that was cut off cannot declare nodes dead. A bucket that is lost with its data is created again.
type Store struct {
	nc      *nats.Conn
	js      jetstream.JetStream
	options StoreOptions

	refusals lookout

	mu sync.Mutex // guards kv
	kv jetstream.KeyValue
}

// Options returns the options with which a connection serves federation: it reconnects for ever, every quarter of a
// second, and keeps nothing to be written later.
func Options() []nats.Option {
	return []nats.Option{
		nats.MaxReconnects(-1), nats.ReconnectWait(250 * time.Millisecond), nats.ReconnectBufSize(-1), nats.RetryOnFailedConnect(true),
		nats.PingInterval(10 * time.Second), nats.MaxPingsOutstanding(1),
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
	return &Store{nc: nc, js: js, options: options, refusals: lookout{nc: nc, first: longestLook}}, nil
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
	ctx, cancel := context.WithTimeout(ctx, longestAsk) // a bucket without a leader does not answer
	defer cancel()
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
		return nil, fmt.Errorf("bucket %q: %w", s.options.Bucket, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kv = kv
	return kv, nil
}

// failed returns an error of the engine, and has the bucket looked for again where it may be gone.
func (s *Store) failed(what string, err error) error {
	switch {
	case err == nil:
		return nil
	case isChanged(err):
		return fmt.Errorf("registrynats: %s: %w", what, federation.ErrChanged)
	case errors.Is(err, jetstream.ErrStreamNotFound), errors.Is(err, jetstream.ErrBucketNotFound), errors.Is(err, jetstream.ErrNoStreamResponse),
		errors.Is(err, nats.ErrNoResponders):
		s.mu.Lock()
		s.kv = nil
		s.mu.Unlock()
	}
	if refused, ok := errors.AsType[*PermissionError](err); ok {
		return refused
	}
	return fmt.Errorf("registrynats: %s: %w", what, err)
}

// isChanged reports whether a compare-and-set has met another revision.
func isChanged(err error) bool {
	var api *jetstream.APIError
	return errors.As(err, &api) && api.ErrorCode == wrongRevision || errors.Is(err, jetstream.ErrKeyExists) || errors.Is(err, federation.ErrChanged)
}

// try begins an operation on a key, or on a pattern of keys, for which permissions may be missing. The function ends it, and says what
// its error means.
func (s *Store) try(ctx context.Context, what, key string) (context.Context, func(error) error) {
	ctx, trying := s.refusals.try(ctx, what+" "+key, s.uses(key))
	return ctx, func(err error) error {
		trying.stop()
		if !isChanged(err) && !errors.Is(err, federation.ErrMissing) {
			err = trying.explained(err)
		}
		return s.failed(trying.what, err)
	}
}

// uses returns whether an operation on a key has to do with a subject.
func (s *Store) uses(key string) func(subject string) bool {
	return func(subject string) bool {
		of, isAPI := strings.CutPrefix(subject, "$JS.API.")
		return subject == s.subject(key) || isAPI && (strings.HasSuffix(of, ".KV_"+s.options.Bucket) || strings.Contains(of, ".KV_"+s.options.Bucket+"."))
	}
}

// Get implements [federation.Store], as the methods below do. It asks the leader.
func (s *Store) Get(ctx context.Context, key string) (federation.Record, error) {
	ctx, end := s.try(ctx, "get", key)
	_, err := s.bucket(ctx)
	var record federation.Record
	if err == nil {
		record, err = s.last(ctx, key)
	}
	if err == nil && record.Deleted {
		err = federation.ErrMissing
	}
	if err = end(err); err != nil {
		return federation.Record{}, err
	}
	return record, nil
}

// last returns the last record of a key, or of a pattern of keys, as a majority has it; Deleted is that of a marker.
func (s *Store) last(ctx context.Context, key string) (record federation.Record, err error) {
	record, err = s.lastOfLeader(ctx, key)
	if err != nil && !errors.Is(err, federation.ErrMissing) {
		return record, err
	}
	if alone := s.confirm(ctx); alone != nil { // after the answer, which was true then if it is confirmed now
		return federation.Record{}, alone
	}
	return record, err
}

// lastOfLeader is last as the leader of the bucket has it.
func (s *Store) lastOfLeader(ctx context.Context, key string) (record federation.Record, err error) {
	request, err := json.Marshal(map[string]string{"last_by_subj": s.subject(key)})
	if err != nil {
		return record, err
	}
	reply, err := s.nc.RequestWithContext(ctx, "$JS.API.STREAM.MSG.GET.KV_"+s.options.Bucket, request)
	if err != nil {
		return record, err
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
		return record, err
	}
	switch {
	case answer.Error != nil && answer.Error.ErrorCode == jetstream.JSErrCodeStreamNotFound:
		return record, jetstream.ErrStreamNotFound
	case answer.Error != nil && answer.Error.Code == notFound:
		return record, federation.ErrMissing
	case answer.Error != nil:
		return record, answer.Error
	case answer.Message == nil:
		return record, errors.New("the answer has no message")
	}
	return federation.Record{
		Key: key, Value: answer.Message.Data, Revision: answer.Message.Sequence, Deleted: isMarker(answer.Message.Header),
	}, nil
}

// subject returns the subject of a key.
func (s *Store) subject(key string) string { return "$KV." + s.options.Bucket + "." + key }

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
	ctx, end := s.try(ctx, "put", key)
	kv, err := s.bucket(ctx)
	if err == nil {
		_, err = kv.Put(ctx, key, value)
	}
	return end(err)
}

// Update writes a record if it has the revision.
func (s *Store) Update(ctx context.Context, key string, value []byte, revision uint64) (uint64, error) {
	ctx, end := s.try(ctx, "update", key)
	now, err := s.update(ctx, key, value, revision)
	return now, end(err)
}

func (s *Store) update(ctx context.Context, key string, value []byte, revision uint64) (uint64, error) {
	kv, err := s.bucket(ctx)
	if err != nil {
		return 0, err
	}
	now, err := kv.Update(ctx, key, value, revision)
	if revision == 0 && isChanged(err) { // of a key that was deleted the marker is there, and a replica may not have it yet
		marker, missing := s.last(ctx, key)
		if missing == nil && marker.Deleted {
			now, err = kv.Update(ctx, key, value, marker.Revision)
		}
	}
	return now, err
}

// Delete removes a record if it has the revision.
func (s *Store) Delete(ctx context.Context, key string, revision uint64) error {
	ctx, end := s.try(ctx, "delete", key)
	return end(s.delete(ctx, key, revision))
}

func (s *Store) delete(ctx context.Context, key string, revision uint64) error {
	kv, err := s.bucket(ctx)
	if err != nil {
		return err
	}
	record, err := s.last(ctx, key)
	switch {
	case errors.Is(err, federation.ErrMissing) || err == nil && record.Deleted:
		return nil
	case err != nil:
		return err
	case revision != 0 && record.Revision != revision:
		return federation.ErrChanged
	}
	options := []jetstream.KVDeleteOpt{jetstream.PurgeTTL(markers)}
	if revision != 0 {
		options = append(options, jetstream.LastRevision(revision))
	}
	return kv.Purge(ctx, key, options...)
}

var (
	errReconnect = errors.New("the connection was lost")
	errWatch     = errors.New("the watch has ended")
	errLate      = errors.New("the bucket does not answer")
)

// Watch tells the records, and then the changes. It ends when the connection is lost, so that it begins again from the start.
func (s *Store) Watch(ctx context.Context, prefix string, tell func(federation.Record)) error {
	lost := s.nc.StatusChanged(nats.DISCONNECTED, nats.RECONNECTING, nats.CLOSED)
	defer s.nc.RemoveStatusListener(lost)
	if !s.nc.IsConnected() { // after the listener, which is not told what was before
		return s.failed("watch", nats.ErrDisconnected)
	}
	pattern := ">"
	if strings.HasSuffix(prefix, ".") {
		pattern = prefix + ">"
	}
	ctx, trying := s.refusals.try(ctx, "watch "+pattern, s.uses(pattern))
	defer trying.stop()
	w := &watch{Store: s, prefix: prefix, pattern: pattern, tell: tell, look: time.NewTimer(0), permitted: trying.watched}
	defer w.look.Stop()
	err := w.run(ctx, trying.cancel, lost)
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	return s.failed(trying.what, trying.explained(err))
}

// watch is the beginning of a watch. A replica tells what it has, which may be less than what was acknowledged, so that the
// leader is asked for the last revision; where the replica does not come to it, it is asked again, as the record may have gone.
type watch struct {
	*Store

	prefix    string
	pattern   string
	tell      func(federation.Record)
	permitted func()      // ends the look for refusals
	look      *time.Timer // when the leader is asked
	asked     bool
	last      uint64 // revision of the leader
	revision  uint64 // that was told
	told      bool   // all that the replica had
	synced    bool
}

func (w *watch) run(ctx context.Context, stop context.CancelCauseFunc, lost <-chan nats.Status) error {
	kv, err := w.bucket(ctx)
	if err != nil {
		return err
	}
	late := time.AfterFunc(longestAsk, func() { stop(errLate) })
	watcher, err := kv.Watch(ctx, w.pattern)
	late.Stop()
	if err != nil {
		return err
	}
	defer end(watcher)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-lost:
			return errReconnect
		case <-w.look.C:
			if err := w.ask(ctx); err != nil {
				return err
			}
		case entry, open := <-watcher.Updates():
			if !open {
				return errWatch
			}
			w.take(entry)
		}
		w.sync()
	}
}

// end ends a watcher. Its goroutine may be about to hand over what nothing takes any more, and would wait for ever.
func end(watcher jetstream.KeyWatcher) {
	_ = watcher.Stop() // it has ended, or does with the connection
	late := time.NewTimer(longestAsk)
	defer late.Stop()
	for {
		select {
		case _, open := <-watcher.Updates():
			if !open {
				return
			}
		case <-late.C:
			return
		}
	}
}

// take tells what the replica has; nil follows all that it had at first.
func (w *watch) take(entry jetstream.KeyValueEntry) {
	if entry == nil {
		w.told = true
		return
	}
	w.revision = entry.Revision()
	if strings.HasPrefix(entry.Key(), w.prefix) {
		w.tell(federation.Record{
			Key: entry.Key(), Value: entry.Value(), Revision: entry.Revision(), Deleted: entry.Operation() != jetstream.KeyValuePut,
		})
	}
}

// ask asks the leader for its last revision.
func (w *watch) ask(ctx context.Context) error {
	if w.synced {
		return nil
	}
	within, cancel := context.WithTimeout(ctx, longestAsk)
	defer cancel()
	record, err := w.Store.last(within, w.pattern)
	if err != nil && !errors.Is(err, federation.ErrMissing) {
		return err
	}
	w.asked, w.last = true, record.Revision
	w.look.Reset(askAgain)
	return nil
}

// sync tells that all was told that was there when the watch began.
func (w *watch) sync() {
	if !w.synced && w.told && w.asked && w.revision >= w.last {
		w.synced = true
		w.look.Stop()
		w.permitted()
		w.tell(federation.Record{Synced: true})
	}
}
