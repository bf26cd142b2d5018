package registrynats_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/event"
	"github.com/capreg/registry/federation"
)

// The test of kills is longer, and its servers are a cluster, by these variables of the environment.
const (
	roundsVariable  = "REGISTRYNATS_ROUNDS"
	serversVariable = "REGISTRYNATS_SERVERS"
)

const killTTL = 4 * time.Second

// battle is a fleet of processes that are killed while they work.
type battle struct {
	*testing.T

	m       *member
	source  *federation.Source
	servers []*process
	agents  []*process
	control []*process
	started int
	tasks   atomic.Int64 // that the queue has taken
	longest time.Duration

	mu      sync.Mutex      // guards what follows
	killed  map[string]bool // by node
	evicted []string        // providers of processes that lived
	gone    map[string]bool // providers that the test has seen leave
	ghosts  []string        // those that came back though their process was killed
}

func TestFleet_LosesNothingWhenProcessesAreKilled(t *testing.T) {
	rounds := numberOf(t, roundsVariable, 3)
	b := &battle{T: t, killed: map[string]bool{}, gone: map[string]bool{}}
	b.beginServers(numberOf(t, serversVariable, 1))
	b.begin()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	ctx, stop := context.WithCancel(t.Context())
	var load sync.WaitGroup
	load.Go(func() { b.load(ctx) })
	var roles []int
	for len(roles) < rounds {
		roles = append(roles, random.Perm(3)...)
	}
	for round, role := range roles[:rounds] {
		begun := time.Now()
		switch role {
		case 0:
			b.killServer(random.IntN(len(b.servers)))
		case 1:
			b.killAgent(random.IntN(len(b.agents)))
		default:
			b.killControl(random.IntN(len(b.control)))
		}
		t.Logf("round %d: %s killed, whole after %v", round+1, []string{"server", "agent", "control"}[role], time.Since(begun).Round(time.Millisecond))
	}
	stop()
	load.Wait()
	tasks := b.tasks.Load()
	soon(t, func() bool { return b.done() >= tasks }, "each task is done")
	effects := b.effects()
	for _, p := range b.control { // before the agents leave, which is no eviction
		p.end(t)
		b.judge(p)
	}
	b.mu.Lock()
	evicted, ghosts := slices.Clone(b.evicted), slices.Clone(b.ghosts)
	b.mu.Unlock()
	for _, p := range b.agents {
		p.end(t)
	}
	lost, twice := tasks-int64(len(effects.Subjects)), int(effects.Msgs)-len(effects.Subjects)
	t.Logf("%d kills, %d tasks, lost %d, twice %d, live providers evicted %d, longest time to an eviction %v of 2 × TTL = %v",
		rounds, tasks, lost, twice, len(evicted), b.longest.Round(time.Millisecond), 2*killTTL)
	require.Positive(t, tasks)
	require.Zero(t, lost)
	require.Zero(t, twice)
	require.Empty(t, evicted)
	require.Empty(t, ghosts)
	require.Less(t, b.longest, 2*killTTL, "a killed agent is seen while the store can be reached")
}

func (b *battle) beginServers(count int) {
	ports := freePorts(b, 2*count)
	r := role{What: "server", Host: "127.0.0.1"}
	var urls, routes []string
	for i := range count {
		urls = append(urls, fmt.Sprintf("nats://127.0.0.1:%d", ports[i]))
		routes = append(routes, fmt.Sprintf("nats://127.0.0.1:%d", ports[count+i]))
	}
	if count > 1 {
		r.Routes = strings.Join(routes, ",")
	}
	for i := range count {
		r.Node, r.Port, r.Routed, r.Dir = fmt.Sprintf("server-%d", i), ports[i], ports[count+i], b.TempDir()
		b.servers = append(b.servers, beginProcess(b, r))
	}
	watch := role{URLs: strings.Join(urls, ","), Replicas: count, TTL: killTTL}
	var err error
	b.m, err = watch.member()
	require.NoError(b, err)
	b.Cleanup(b.m.nc.Close)
	for _, config := range []jetstream.StreamConfig{
		{Name: queueStream, Subjects: []string{"tasks.>"}, Retention: jetstream.WorkQueuePolicy, Replicas: count},
		{Name: effectsStream, Subjects: []string{"effects.>"}, Duplicates: time.Hour, Replicas: count},
	} {
		b.soon(func(ctx context.Context) bool {
			_, err := b.m.js.CreateOrUpdateStream(ctx, config)
			return err == nil
		}, "the stream is there")
	}
	b.soon(func(ctx context.Context) bool {
		_, err := b.m.js.CreateOrUpdateConsumer(ctx, queueStream, jetstream.ConsumerConfig{
			Durable: "control", AckPolicy: jetstream.AckExplicitPolicy, AckWait: 5 * time.Second, Replicas: count,
		})
		return err == nil
	}, "the consumer is there")
}

// soon waits for a condition that asks the server.
func (b *battle) soon(holds func(ctx context.Context) bool, what string) {
	b.Helper()
	soon(b.T, func() bool {
		ctx, cancel := context.WithTimeout(b.Context(), 2*time.Second)
		defer cancel()
		return holds(ctx)
	}, what)
}

// begin begins the agents and controls, and what observes them.
func (b *battle) begin() {
	reg := b.m.reg
	b.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		require.NoError(b, reg.Close(ctx))
	})
	var err error
	b.source, err = federation.NewSource(federation.SourceOptions{Store: b.m.store, Bindings: askersOver(b.m.nc)})
	require.NoError(b, err)
	changes := reg.Subscribe(4096, event.Filter{Kinds: []event.Kind{event.Registered, event.Draining}})
	observing, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for e := range changes.All(observing) {
			if e.Kind == event.Registered {
				b.came(e.Provider)
				continue
			}
			b.left("the test", e.Provider)
		}
	}()
	runs(b.T, func(ctx context.Context) error { return b.source.Run(ctx, reg) })
	b.Cleanup(func() {
		stop()
		<-ended
	})
	for range 3 {
		b.agents = append(b.agents, b.startAgent())
	}
	for range 2 {
		b.control = append(b.control, b.startControl())
	}
	b.whole()
}

// left notes that a provider is no longer seen.
func (b *battle) left(by, provider string) {
	node, _, _ := strings.Cut(provider, "/")
	b.mu.Lock()
	defer b.mu.Unlock()
	b.gone[provider] = true
	if !b.killed[node] {
		b.evicted = append(b.evicted, provider+", seen by "+by)
	}
}

// came notes that a provider is seen.
func (b *battle) came(provider string) {
	node, _, _ := strings.Cut(provider, "/")
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.killed[node] && b.gone[provider] {
		b.ghosts = append(b.ghosts, provider)
	}
}

// judge looks at what a control has seen.
func (b *battle) judge(p *process) {
	for _, line := range p.said() {
		if words := strings.Fields(line); len(words) > 1 && words[0] == string(event.Draining) {
			b.left(p.role.Node, words[1])
		}
	}
}

func (b *battle) startAgent() *process {
	b.started++
	r := b.servers[0].role
	return beginProcess(b, role{
		What: "agent", Node: fmt.Sprintf("agent-%d", b.started), URLs: b.urls(), TTL: killTTL, Replicas: max(len(b.servers), 1),
		Providers: []string{"p"}, Host: r.Host,
	})
}

func (b *battle) startControl() *process {
	b.started++
	return beginProcess(b, role{What: "control", Node: fmt.Sprintf("control-%d", b.started), URLs: b.urls(), Replicas: len(b.servers)})
}

func (b *battle) urls() string {
	var urls []string
	for _, p := range b.servers {
		urls = append(urls, fmt.Sprintf("nats://127.0.0.1:%d", p.role.Port))
	}
	return strings.Join(urls, ",")
}

// whole waits until exactly the providers of living agents are seen, and tasks are done.
func (b *battle) whole() {
	b.Helper()
	soon(b.T, func() bool {
		for _, p := range b.agents {
			if _, there := b.m.reg.Provider(askers.Name(), p.role.Node+"/p"); !there {
				return false
			}
		}
		return len(b.m.reg.Registrations()) == len(b.agents)
	}, "the living agents are seen, and no other")
}

func (b *battle) killAgent(i int) {
	old := b.agents[i]
	b.mu.Lock()
	b.killed[old.role.Node] = true
	b.mu.Unlock()
	old.kill()
	begun := time.Now()
	b.agents[i] = b.startAgent()
	soon(b.T, func() bool {
		if !b.source.Fleet().Reachable { // while the store cannot be asked nothing is known of any node
			begun = time.Now()
		}
		_, there := b.m.reg.Provider(askers.Name(), old.role.Node+"/p")
		return !there
	}, "the killed agent is evicted")
	b.longest = max(b.longest, time.Since(begun))
	b.whole()
	b.works()
}

func (b *battle) killServer(i int) {
	old := b.servers[i]
	old.kill()
	b.servers[i] = beginProcess(b, old.role)
	for _, stream := range []string{queueStream, effectsStream, "KV_registry"} { // a majority must know all before the next kill
		b.soon(func(ctx context.Context) bool { return b.caughtUp(ctx, stream) }, "the servers have caught up")
	}
	b.works()
	b.whole()
}

// caughtUp reports whether all servers have what the stream has.
func (b *battle) caughtUp(ctx context.Context, name string) bool {
	stream, err := b.m.js.Stream(ctx, name)
	if err != nil || len(b.servers) == 1 {
		return err == nil
	}
	in := stream.CachedInfo().Cluster
	return in != nil && in.Leader != "" && len(in.Replicas) == len(b.servers)-1 &&
		!slices.ContainsFunc(in.Replicas, func(p *jetstream.PeerInfo) bool { return !p.Current || p.Offline })
}

func (b *battle) killControl(i int) {
	old := b.control[i]
	old.kill()
	b.judge(old)
	b.control[i] = b.startControl()
	soon(b.T, func() bool {
		said := strings.Join(b.control[i].said(), "\n")
		return !slices.ContainsFunc(b.agents, func(p *process) bool { return !strings.Contains(said, p.role.Node+"/p") })
	}, "the new control sees the living agents")
	b.works()
}

// works waits until tasks are done that came after this.
func (b *battle) works() {
	b.Helper()
	before := b.tasks.Load()
	soon(b.T, func() bool { return b.done() > before }, "tasks are done again")
}

// done counts the tasks with an effect, or zero where that cannot be asked.
func (b *battle) done() int64 {
	ctx, cancel := context.WithTimeout(b.Context(), 2*time.Second)
	defer cancel()
	stream, err := b.m.js.Stream(ctx, effectsStream)
	if err != nil {
		return 0
	}
	return int64(stream.CachedInfo().State.NumSubjects)
}

// effects returns what tasks have left.
func (b *battle) effects() (state jetstream.StreamState) {
	b.soon(func(ctx context.Context) bool {
		stream, err := b.m.js.Stream(ctx, effectsStream)
		if err != nil {
			return false
		}
		info, err := stream.Info(ctx, jetstream.WithSubjectFilter("effects.>"))
		if err == nil {
			state = info.State
		}
		return err == nil
	}, "the effects can be read")
	return state
}

// load adds tasks, each until the queue has it.
func (b *battle) load(ctx context.Context) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for i := 0; ctx.Err() == nil; i++ {
		task := fmt.Sprintf("task-%06d", i)
		for taken := false; !taken; {
			trying, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
			_, err := b.m.js.Publish(trying, "tasks.any", []byte(task), jetstream.WithMsgID(task))
			cancel()
			taken = err == nil
			<-tick.C
		}
		b.tasks.Add(1)
	}
}
