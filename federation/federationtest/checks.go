package federationtest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/capreg/registry"
	"github.com/capreg/registry/federation"
)

func (t *trial) contract() {
	store := t.Open(t.tb, t.name)
	ctx, cancel := t.context()
	defer cancel()
	update := func(value string, revision uint64) uint64 {
		now, err := store.Update(ctx, "lease.a", []byte(value), revision)
		if err != nil || now <= revision {
			t.fail("Update over revision %d: revision %d, %v", revision, now, err)
		}
		return now
	}
	refuses := func(what string, err, want error) {
		if !errors.Is(err, want) {
			t.fail("%s: %v, want %v", what, err, want)
		}
	}
	if store.String() == "" {
		t.fail("it has no name")
	}
	_, err := store.Get(ctx, "lease.a")
	refuses("Get of a key that is not there", err, federation.ErrMissing)
	first := update("1", 0)
	_, err = store.Update(ctx, "lease.a", []byte("x"), 0)
	refuses("Update of a key that is there, as a new one", err, federation.ErrChanged)
	second := update("2", first)
	_, err = store.Update(ctx, "lease.a", []byte("x"), first)
	refuses("Update of an old revision", err, federation.ErrChanged)
	if record, err := store.Get(ctx, "lease.a"); err != nil || string(record.Value) != "2" || record.Revision != second {
		t.fail("Get: %q, revision %d, %v; want %q, revision %d", record.Value, record.Revision, err, "2", second)
	}
	refuses("Delete of an old revision", store.Delete(ctx, "lease.a", first), federation.ErrChanged)
	refuses("Delete", store.Delete(ctx, "lease.a", second), nil)
	_, err = store.Get(ctx, "lease.a")
	refuses("Get of a key that was deleted", err, federation.ErrMissing)
	_, err = store.Update(ctx, "lease.a", []byte("x"), second)
	refuses("Update of a key that was deleted", err, federation.ErrChanged)
	refuses("Delete of what is not there", store.Delete(ctx, "lease.a", 0), nil)
	if third := update("3", 0); third <= second {
		t.fail("a key that was deleted has revision %d again, after %d", third, second)
	}
	refuses("Put", store.Put(ctx, "lease.a", []byte("4")), nil)
	ended, end := context.WithCancel(ctx)
	end()
	if _, err := store.Get(ended, "lease.a"); err == nil || errors.Is(err, federation.ErrMissing) {
		t.fail("Get within a context that has ended: %v", err)
	}
}

// told is a watch in progress.
type told struct {
	*trial

	ctx     context.Context //nolint:containedctx // it is that of the check
	records chan federation.Record
}

// next returns the next record.
func (w *told) next() federation.Record {
	select {
	case record := <-w.records:
		return record
	case <-w.ctx.Done():
		w.fail("the watch tells nothing more")
		return federation.Record{Synced: true, Deleted: true}
	}
}

// before returns what there is when the watch begins.
func (w *told) before() (records []string) {
	for record := w.next(); !record.Synced; record = w.next() {
		if !record.Deleted {
			records = append(records, record.Key+"="+string(record.Value))
		}
	}
	return records
}

func (t *trial) watching() {
	store := t.Open(t.tb, t.name)
	ctx, cancel := t.context()
	defer cancel()
	put := func(key, value string) {
		if err := store.Put(ctx, key, []byte(value)); err != nil {
			t.fail("%v", err)
		}
	}
	drop := func(key string) {
		if err := store.Delete(ctx, key, 0); err != nil {
			t.fail("%v", err)
		}
	}
	put("entry.a.1.x", "old")
	put("entry.a.1.x", "new")
	put("entry.a.1.y", "gone")
	drop("entry.a.1.y")
	put("entry.b.1.x", "other")

	watching, stop := context.WithCancel(ctx)
	defer stop()
	w := &told{trial: t, ctx: ctx, records: make(chan federation.Record, 100)}
	ended := make(chan error, 1)
	go func() {
		ended <- store.Watch(watching, "entry.a.", func(record federation.Record) { w.records <- record })
	}()
	if before, want := w.before(), []string{"entry.a.1.x=new"}; !slices.Equal(before, want) {
		t.fail("it tells %q of what is there, want %q", before, want)
	}
	put("entry.b.1.x", "other")
	for i := range 10 {
		put("entry.a.1.z", strconv.Itoa(i))
	}
	drop("entry.a.1.z")
	last, revision := "", uint64(0)
	for record := w.next(); !record.Deleted; record = w.next() {
		if record.Key != "entry.a.1.z" || string(record.Value) <= last || record.Revision <= revision {
			t.fail("it tells %q=%q, revision %d, out of order", record.Key, record.Value, record.Revision)
		}
		last, revision = string(record.Value), record.Revision
	}
	stop()
	select {
	case err := <-ended:
		if err == nil && watching.Err() == nil {
			t.fail("the watch has ended by itself")
		}
	case <-ctx.Done():
		t.fail("the watch goes on after its context has ended")
	}
}

func (t *trial) life() {
	a, b := t.process("a", registry.Options{}), t.process("b", registry.Options{})
	a.add("one", "two")
	b.sees("a/one", "a/two")
	if got := b.calls("a/one"); got != "a:one" {
		t.fail("the call was answered by %q", got)
	}
	if o := b.source.Explain("a", greeters.Name(), "one"); !o.Visible || o.As != "a/one" {
		t.fail("the explanation is %+v", o)
	}
	still := b.still("a/one", "a/two")
	one, _ := a.reg.Provider(greeters.Name(), "one")
	if _, err := one.SetWeight(7); err != nil {
		t.fail("%v", err)
	}
	t.eventually("the weight is changed", func() bool {
		remote, there := b.reg.Provider(greeters.Name(), "a/one")
		return there && remote.Weight() == 7
	})
	still()
	a.add("three")
	a.drop("two")
	b.sees("a/one", "a/three")
	b.explained("two", "offers no provider of that name")
	a.sees("one", "three") // and nothing of its own as another's
}

func (t *trial) goodbye() {
	a, b := t.process("a", registry.Options{}), t.process("b", registry.Options{})
	a.add("one")
	b.sees("a/one")
	a.stop()
	b.sees()
	if err := a.ended(); !errors.Is(err, context.Canceled) || isTaken(err) {
		t.fail("the announcer has ended with %v", err)
	}
	b.state("a", "")
	left, err := recordsOf(t, "entry.a.")
	if err != nil || left != 0 {
		t.fail("%d records are left: %v", left, err)
	}
}

func recordsOf(t *trial, prefix string) (count int, err error) {
	ctx, cancel := t.context()
	defer cancel()
	watching, stop := context.WithCancel(ctx)
	defer stop()
	synced := false
	err = t.Open(t.tb, t.name).Watch(watching, prefix, func(record federation.Record) {
		switch {
		case record.Synced:
			synced = true
			stop()
		case !synced && !record.Deleted:
			count++
		}
	})
	if synced {
		return count, nil
	}
	return count, err
}

func (t *trial) killed() {
	a, b, c := t.process("a", registry.Options{}), t.process("b", registry.Options{}), t.process("c", registry.Options{})
	a.add("one")
	c.add("three")
	b.sees("a/one", "c/three")
	same := b.same("c/three")
	killed := time.Now()
	a.kill()
	b.state("a", federation.NodeSuspect)
	if early := time.Since(killed); early < t.TTL/3 {
		t.fail("it is a suspect after %v, with a TTL of %v", early, t.TTL)
	}
	b.sees("c/three")
	b.state("a", federation.NodeEvicted)
	b.explained("one", "did not renew its lease")
	same()
}

// same returns a function that checks that a provider was not registered again.
func (p *process) same(name string) (check func()) {
	before := p.generation(name)
	return func() {
		if p.generation(name) != before {
			p.fail("node %q has lost %q", p.node, name)
		}
	}
}

func (t *trial) replaced() {
	a, b := t.process("a", registry.Options{}), t.process("b", registry.Options{})
	a.add("one", "old")
	b.sees("a/one", "a/old")
	before := b.generation("a/one")
	a.kill()
	second := t.process("a", registry.Options{})
	second.add("one", "new")
	b.sees("a/one", "a/new")
	if b.generation("a/one") == before {
		t.fail("the provider of the new process has the state of the old one")
	}
	t.eventually("the generation of the node is the second", func() bool {
		return second.announcer.Announcement().Generation == 2
	})
	t.eventually("the records of the old process are deleted", func() bool {
		left, err := recordsOf(t, "entry.a.")
		return err == nil && left == 2
	})
}

func (t *trial) duplicate() {
	a, b := t.process("a", registry.Options{}), t.process("b", registry.Options{})
	a.add("one")
	still := b.still("a/one")
	second := t.process("a", registry.Options{})
	second.add("two")
	if err := second.ended(); !isTaken(err) {
		t.fail("the second announcer has ended with %v", err)
	}
	still()
	b.sees("a/one")
}

func (t *trial) announcerCut() {
	a, b := t.process("a", registry.Options{}), t.process("b", registry.Options{})
	a.add("one")
	b.sees("a/one")
	a.link.Cut(false)
	b.sees()
	a.add("two")
	a.link.Mend()
	b.sees("a/one", "a/two")
	if state := a.announcer.Announcement(); state.Generation != 1 {
		t.fail("it is another incarnation now: %+v", state)
	}
}

func (t *trial) nameLost() {
	a, b := t.process("a", registry.Options{}), t.process("b", registry.Options{})
	a.add("one")
	b.sees("a/one")
	a.link.Cut(false)
	second := t.process("a", registry.Options{})
	second.add("two")
	b.sees("a/two")
	a.add("three")
	a.link.Mend()
	if err := a.ended(); !isTaken(err) {
		t.fail("the first announcer has ended with %v", err)
	}
	b.sees("a/two")
}

func (t *trial) sourceCut() {
	a, b := t.process("a", registry.Options{}), t.process("b", registry.Options{})
	a.add("one", "two")
	still := b.still("a/one", "a/two")
	b.link.Cut(false)
	a.drop("two")
	a.add("three")
	t.pass(3 * t.TTL)
	still()
	one := b.same("a/one")
	b.link.Mend()
	b.sees("a/one", "a/three")
	one()
}

func (t *trial) changesMissed() {
	a, b := t.process("a", registry.Options{}), t.process("b", registry.Options{})
	a.add("one", "two")
	b.sees("a/one", "a/two")
	one := b.same("a/one")
	b.link.Cut(true)
	a.drop("two")
	a.add("three")
	t.eventually("the records are written", func() bool {
		state := a.announcer.Announcement()
		return state.Entries == 2 && state.Pending == 0
	})
	b.link.Mend()
	b.sees("a/one", "a/three")
	one()
}

func (t *trial) hostile() {
	a, b := t.process("a", registry.Options{}), t.process("b", registry.Options{})
	a.add("good")
	b.sees("a/good")
	still := b.still("a/good")
	store := t.Open(t.tb, t.name)
	ctx, cancel := t.context()
	defer cancel()
	incarnation := a.announcer.Announcement().Incarnation
	put := func(name string, value []byte) {
		if err := store.Put(ctx, key("a", incarnation, name), value); err != nil {
			t.fail("%v", err)
		}
	}
	entry := func(name, kind string) []byte {
		text, err := json.Marshal(federation.Entry{
			Node: "a", Incarnation: incarnation, Kind: kind,
			Definition: registry.Definition{Service: greeters.Name(), Name: name},
		})
		if err != nil {
			t.fail("%v", err)
		}
		return text
	}
	put("large", fmt.Appendf(nil, `{"kind":%q}`, strings.Repeat("x", federation.MaxRecord)))
	b.explained("large", "want at most 65536")
	put("text", []byte(`{"kind":`))
	b.explained("text", "not JSON")
	put("bell\a", entry("bell\a", kind))
	b.explained("bell\a", "control characters")
	put("unbound", entry("unbound", "telepathy"))
	b.explained("unbound", `no binding has the service "federationtest/greeter" and the kind "telepathy"`)
	put("false", entry("good", kind))
	b.explained("false", "another provider than its key")
	if err := store.Put(ctx, "lease.ghost", []byte(`{"node":"a","incarnation":"x","phase":"serving","ttl":"1s"}`)); err != nil {
		t.fail("%v", err)
	}
	t.eventually("the lease is refused", func() bool {
		return strings.Contains(b.source.Fleet().Refused["lease.ghost"], "another node than its key")
	})
	still()
}

func (t *trial) many() {
	a := t.process("a", registry.Options{})
	var names, seen []string
	for i := range t.Entries {
		names, seen = append(names, fmt.Sprintf("p%05d", i)), append(seen, fmt.Sprintf("a/p%05d", i))
	}
	var slow, open atomic.Int64
	gate := make(chan struct{})
	b := t.process("b", registry.Options{Admit: func(ctx context.Context, _ registry.Definition) error {
		slow.Add(1)
		select {
		case <-gate:
		case <-ctx.Done():
		}
		open.Add(1)
		return nil
	}})
	c := t.process("c", registry.Options{})
	a.add(names...)
	c.sees(seen...)
	t.eventually("the slow registry has begun", func() bool { return slow.Load() == 1 })
	for _, name := range names[:len(names)/2] {
		a.drop(name)
	}
	c.sees(seen[len(seen)/2:]...)
	t.eventually("the source of the slow registry knows what is gone", func() bool { return b.offers("a") == len(seen)-len(seen)/2 })
	close(gate)
	b.sees(seen[len(seen)/2:]...)
	if most := int64(len(seen)/2 + 1); open.Load() > most {
		t.fail("the slow registry was asked %d times for %d providers", open.Load(), most)
	}
}

func (t *trial) busy() {
	a, b := t.process("a", registry.Options{}), t.process("b", registry.Options{})
	var seen []string
	for i := range 20 {
		a.add(fmt.Sprintf("p%02d", i))
		seen = append(seen, fmt.Sprintf("a/p%02d", i))
	}
	still := b.still(seen...)
	for round := range 50 { // a thousand changes
		for i := range 20 {
			p, _ := a.reg.Provider(greeters.Name(), fmt.Sprintf("p%02d", i))
			if _, err := p.SetWeight(float64(round + i + 1)); err != nil {
				t.fail("%v", err)
			}
		}
		t.pass(20 * time.Millisecond)
	}
	t.eventually("the last weights are seen", func() bool {
		for i, name := range seen {
			if p, there := b.reg.Provider(greeters.Name(), name); !there || p.Weight() != float64(50+i) {
				return false
			}
		}
		return true
	})
	still()
}

func (t *trial) restart(down time.Duration, wiped bool) {
	if t.Restart != nil {
		t.outage(func() { t.Restart(t.tb, down, wiped) })
	}
}

// outage checks that nothing is removed while the engine fails, or lost after it.
func (t *trial) outage(fail func()) {
	a, b, c := t.process("a", registry.Options{}), t.process("b", registry.Options{}), t.process("c", registry.Options{})
	a.add("one", "two")
	c.add("three")
	still := b.still("a/one", "a/two", "c/three")
	fail()
	t.eventually("the records are written again", func() bool {
		ctx, cancel := t.context()
		defer cancel()
		count, err := recordsOf(t, "entry.")
		return err == nil && count == 3 && ctx.Err() == nil
	})
	t.pass(2 * t.TTL)
	b.state("a", federation.NodePresent)
	b.state("c", federation.NodePresent)
	still()
	a.add("four")
	a.drop("two")
	b.sees("a/one", "a/four", "c/three")
}
