package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/capreg/registry"
	"github.com/capreg/registry/federation"
)

// queue is the service of agents that take tasks from a queue of their own: it puts a task there.
type queue func(task []byte) error

var queues = registry.NewService[queue]("queue")

const (
	queueKind  = "jetstream"
	underWay   = 4096 // tasks whose acknowledgement by JetStream is awaited
	tasksTurns = 5
)

// bindQueues binds the queues of agents in other processes: tasks go to the subject that is their address.
func bindQueues(js jetstream.JetStream) federation.Binding {
	return federation.Dial(queues, queueKind, func(_ context.Context, e federation.Entry) (queue, error) {
		return func(task []byte) error {
			_, err := js.PublishAsync(e.Address, task)
			return err
		}, nil
	})
}

// measureTasks measures how many tasks a second go through a durable work queue to an agent: each task is a call of the provider
// that has its capability, beside the same without a registry.
func measureTasks(ctx context.Context, b *bench, s sizes, far, near *process) error {
	for _, name := range []string{"bare", "far"} {
		_, err := far.js.CreateStream(ctx, jetstream.StreamConfig{
			Name: "TASKS-" + name, Subjects: []string{"tasks." + name}, Retention: jetstream.WorkQueuePolicy,
		})
		if err != nil {
			return err
		}
	}
	agent, err := queues.Register(ctx, far.reg, registry.Provider[queue]{
		Name: "agent", Capabilities: []string{"build"}, Instance: func([]byte) error { return nil },
	})
	if err != nil {
		return err
	}
	waiting, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := near.reg.WaitReady(waiting, queues.Name()); err != nil {
		return err
	}
	resolver := queues.Bind(near.reg, registry.Query{Require: []string{"build"}})
	var bare, ours []float64
	for range tasksTurns { // in turns, so that both see the same machine
		rate, err := through(ctx, far, near, "bare", s.tasks, func(task []byte) error {
			_, err := near.js.PublishAsync("tasks.bare", task)
			return err
		})
		if err != nil {
			return err
		}
		bare = append(bare, rate)
		rate, err = through(ctx, far, near, "far", s.tasks, func(task []byte) error {
			return resolver.Do(ctx, func(_ context.Context, q queue) error { return q(task) })
		})
		if err != nil {
			return err
		}
		ours = append(ours, rate)
	}
	slices.Sort(bare)
	slices.Sort(ours)
	middle := tasksTurns / 2
	b.say("tasks through a work queue:  %.0f/s, bare JetStream %.0f/s, ratio %.2f", ours[middle], bare[middle], ours[middle]/bare[middle])
	for _, name := range []string{"bare", "far"} { // what is measured next is without them
		if err := far.js.DeleteStream(ctx, "TASKS-"+name); err != nil {
			return err
		}
	}
	return agent.Unregister(ctx)
}

// through dispatches the tasks, and returns how many a second the other side has taken from the queue and acknowledged.
func through(ctx context.Context, far, near *process, name string, tasks int, dispatch func(task []byte) error) (float64, error) {
	consumer, err := far.js.CreateOrUpdateConsumer(ctx, "TASKS-"+name, jetstream.ConsumerConfig{
		Durable: "agent", AckPolicy: jetstream.AckExplicitPolicy, MaxAckPending: 2 * underWay,
	})
	if err != nil {
		return 0, err
	}
	done, taken := make(chan error, 1), 0
	consuming, err := consumer.Consume(func(message jetstream.Msg) {
		err := message.Ack()
		if taken++; taken == tasks || err != nil {
			select {
			case done <- err:
			default: // it is known
			}
		}
	}, jetstream.PullMaxMessages(underWay))
	if err != nil {
		return 0, err
	}
	defer func() {
		consuming.Stop()
		<-consuming.Closed()
	}()
	begun := time.Now()
	for i := range tasks {
		if err := dispatch([]byte("task-" + strconv.Itoa(i))); err != nil {
			return 0, err
		}
	}
	waiting, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	select {
	case <-near.js.PublishAsyncComplete():
	case <-waiting.Done():
		return 0, fmt.Errorf("the queue has not taken %d tasks: %w", tasks, waiting.Err())
	}
	select {
	case err = <-done:
	case <-waiting.Done():
		return 0, fmt.Errorf("%d tasks are not done: %w", tasks, waiting.Err())
	}
	return float64(tasks) / time.Since(begun).Seconds(), err
}

// newJetStream returns the JetStream of a connection.
func newJetStream(nc *nats.Conn) (jetstream.JetStream, error) {
	return jetstream.New(nc, jetstream.WithPublishAsyncMaxPending(underWay))
}
