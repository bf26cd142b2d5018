package config

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/capreg/registry"
)

// Source is a place that documents come from. Use [File], [HTTP] or a [Value], or one of your own.
type Source interface {
	// String names the source, for events.
	String() string
	// Load reads the present document, within ctx.
	Load(ctx context.Context) (*Document, error)
	// Watch calls changed whenever the document may have changed, more often than needed rather than less, until ctx
	// ends. Changed neither blocks nor fails. Watch returns nothing but an error that ends it for good.
	Watch(ctx context.Context, changed func()) error
}

// FollowOptions configures how a source is followed. The zero value of each field is its default.
type FollowOptions struct {
	// Quiet is the time without a further change after which a document is read, so that one that is being written is
	// not read before it is whole. Default: 100 ms.
	Quiet time.Duration
	// Latest bounds the wait for that time while changes go on. Default: ten times Quiet.
	Latest time.Duration
	// ApplyWithin bounds the application of one document. Default: 1 min.
	ApplyWithin time.Duration
	// Canary, when set, watches each document after it was applied; see [Manager.ApplyCanary].
	Canary *Canary
}

func (o FollowOptions) withDefaults() (FollowOptions, error) {
	for _, field := range []struct {
		name  string
		value *time.Duration
		usual time.Duration
	}{{"Quiet", &o.Quiet, 100 * time.Millisecond}, {"Latest", &o.Latest, 10 * o.Quiet}, {"ApplyWithin", &o.ApplyWithin, time.Minute}} {
		if *field.value < 0 {
			return o, fmt.Errorf("config: FollowOptions.%s is %v: want 0 (the default) or more: %w", field.name, *field.value, registry.ErrInvalid)
		}
		if *field.value == 0 {
			*field.value = field.usual
		}
	}
	if o.Latest < o.Quiet {
		o.Latest = 10 * o.Quiet
	}
	if o.Canary != nil {
		if _, err := o.Canary.withDefaults(); err != nil {
			return o, err
		}
	}
	return o, nil
}

// Follow applies the document of the source, and each later version of it, until ctx ends. Then it returns nil.
//
// Where the first document cannot be read or is refused, Follow returns that error at once, so that a program does not
// start on a wrong one. Later the last good one stays in force: each refusal is an event of kind [Refused] with its
// reasons, and the next version is tried as any other.
//
// The files of references, such as "${file:/run/secrets/key}", are watched too, as those of a [FileSource] are: a value
// that has changed is a new version of the document, with a plan and an event that do not show it. Variables of the
// environment stay as they are.
//
// Follow runs in the goroutine of its caller, and has ended all that it started when it returns.
func (m *Manager) Follow(ctx context.Context, source Source, options FollowOptions) error {
	options, err := options.withDefaults()
	switch {
	case err != nil:
		return err
	case ctx == nil || source == nil:
		return fmt.Errorf("config: Follow needs a context and a source: %w", registry.ErrInvalid)
	}
	f := &follower{manager: m, source: source, options: options, dirty: make(chan struct{}, 1)}
	watching, stop := context.WithCancel(ctx)
	f.watching = watching
	ended := make(chan error, 1)
	defer f.watches.Wait()
	defer stop() // before the wait
	f.watches.Go(func() { ended <- f.watch(watching) })
	if err := f.apply(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-ended:
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("config: %s is not watched any more: %w", source, err)
		case <-f.dirty:
			if !f.settle(ctx) {
				return nil
			}
			_ = f.apply(ctx) // it was told
		}
	}
}

// follower follows one source.
type follower struct {
	manager *Manager
	source  Source
	options FollowOptions
	dirty   chan struct{}     // has one element while a change was not looked at
	refused string            // the error with which the last one could not be read, told once
	applied *Document         // the last one, unless it was refused: then it is tried again with the next change
	values  [sha256.Size]byte // of the files of its references

	watching  context.Context //nolint:containedctx // that of the watches
	watches   sync.WaitGroup
	files     []string           // of references, which are watched
	stopFiles context.CancelFunc // nil: there were none yet
}

// lookAt makes the files of the document's references the ones that are watched, and returns a hash of them.
func (f *follower) lookAt(d *Document) [sha256.Size]byte {
	files := d.referenceFiles()
	if !slices.Equal(files, f.files) {
		if f.stopFiles != nil {
			f.stopFiles()
		}
		watching, stop := context.WithCancel(f.watching)
		f.files, f.stopFiles = files, stop
		f.watches.Go(func() { // it ends with its context alone
			_ = watchFiles(watching, usualPoll, func() []string { return files }, f.changed)
		})
	}
	return digestOf(files)
}

func (f *follower) changed() {
	select {
	case f.dirty <- struct{}{}:
	default: // it is known
	}
}

func (f *follower) watch(ctx context.Context) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("panic: %v", v)
		}
	}()
	return f.source.Watch(ctx, f.changed)
}

// settle waits until there was no change for a while. It reports whether ctx goes on.
func (f *follower) settle(ctx context.Context) bool {
	latest := time.NewTimer(f.options.Latest)
	defer latest.Stop()
	quiet := time.NewTimer(f.options.Quiet)
	defer quiet.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-f.dirty:
			quiet.Reset(f.options.Quiet)
		case <-quiet.C:
			return true
		case <-latest.C:
			return true
		}
	}
}

// apply reads the document and applies it.
func (f *follower) apply(ctx context.Context) error {
	d, err := f.load(ctx)
	var values [sha256.Size]byte
	if err == nil {
		values = f.lookAt(d) //nolint:contextcheck // the watch outlives this document
	}
	if err != nil && ctx.Err() != nil || err == nil && f.applied != nil && f.applied.same(d) && f.values == values {
		return err
	}
	if err != nil {
		if f.refused != err.Error() {
			f.refused = err.Error()
			f.manager.refuse(ctx, f.source.String(), err)
		}
		return err
	}
	f.refused, f.applied = "", nil
	within, cancel := context.WithTimeout(ctx, f.options.ApplyWithin)
	defer cancel()
	_, err = f.manager.applyFrom(within, f.source.String(), d)
	if err == nil {
		f.applied, f.values = d, values
	}
	if err == nil && f.options.Canary != nil {
		err = f.manager.watchCanary(ctx, f.source.String(), *f.options.Canary)
	}
	return err
}

func (f *follower) load(ctx context.Context) (d *Document, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("config: %s: panic: %v", f.source, v)
		}
	}()
	return f.source.Load(ctx)
}

// refuse tells of a document that could not be read.
func (m *Manager) refuse(ctx context.Context, source string, err error) {
	release, ended := m.take(ctx)
	if ended != nil {
		return
	}
	defer release()
	m.tell(Event{Kind: Refused, Source: source, Err: err})
}

// Value is a source that a program sets. The zero value has no document yet; use a pointer to it.
type Value struct {
	mu      sync.Mutex
	present *Document
	watches map[*func()]struct{}
}

// Set sets the document, which is not to be changed afterwards.
func (v *Value) Set(d *Document) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.present = d
	for changed := range v.watches {
		(*changed)()
	}
}

// String returns "value".
func (*Value) String() string { return "value" }

// Load returns the document that was set last.
func (v *Value) Load(context.Context) (*Document, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.present == nil {
		return nil, fmt.Errorf("config: value: no document was set: %w", os.ErrNotExist)
	}
	return v.present, nil
}

// Watch calls changed after each [Value.Set].
func (v *Value) Watch(ctx context.Context, changed func()) error {
	v.mu.Lock()
	if v.watches == nil {
		v.watches = make(map[*func()]struct{})
	}
	v.watches[&changed] = struct{}{}
	v.mu.Unlock()
	changed() // it may have been set before
	<-ctx.Done()
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.watches, &changed)
	return ctx.Err()
}
