package contest

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/balancer/roundrobin"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/resolver"
)

// roundRobinPicker returns the picker that gRPC's round_robin makes for n
// connections that are ready. There is no network: the client of the balancer
// reports every connection as ready.
func roundRobinPicker(n int) (balancer.Picker, func() error, error) {
	client := &fakeClient{}
	balanced := balancer.Get(roundrobin.Name).Build(client, balancer.BuildOptions{})
	closing := func() error {
		balanced.Close()
		return nil
	}
	var endpoints []resolver.Endpoint
	for i := range n {
		endpoints = append(endpoints, resolver.Endpoint{
			Addresses: []resolver.Address{{Addr: "10.0.0." + strconv.Itoa(i) + ":80"}},
		})
	}
	err := balanced.UpdateClientConnState(balancer.ClientConnState{ResolverState: resolver.State{Endpoints: endpoints}})
	if err != nil {
		return nil, nil, errors.Join(err, closing())
	}
	for _, c := range client.connections {
		c.listen(balancer.SubConnState{ConnectivityState: connectivity.Connecting})
		c.listen(balancer.SubConnState{ConnectivityState: connectivity.Ready})
		if c.healthy != nil {
			c.healthy(balancer.SubConnState{ConnectivityState: connectivity.Ready})
		}
	}
	if client.state.ConnectivityState != connectivity.Ready || len(client.connections) != n {
		return nil, nil, errors.Join(errors.New("gRPC's balancer did not get ready"), closing())
	}
	picked := make(map[balancer.SubConn]bool)
	for range n {
		result, err := client.state.Picker.Pick(balancer.PickInfo{Ctx: context.Background()})
		if err != nil {
			return nil, nil, errors.Join(err, closing())
		}
		picked[result.SubConn] = true
	}
	if len(picked) != n {
		return nil, nil, errors.Join(fmt.Errorf("gRPC's picker gave %d of %d connections", len(picked), n), closing())
	}
	return client.state.Picker, closing, nil
}

// fakeClient is a client of a balancer. The embedded interface is nil, and never called.
type fakeClient struct {
	balancer.ClientConn

	connections []*connection
	state       balancer.State
}

func (c *fakeClient) NewSubConn(_ []resolver.Address, options balancer.NewSubConnOptions) (balancer.SubConn, error) {
	made := &connection{listen: options.StateListener}
	c.connections = append(c.connections, made)
	return made, nil
}

func (c *fakeClient) UpdateState(state balancer.State) { c.state = state }

func (*fakeClient) ResolveNow(resolver.ResolveNowOptions) {}

type connection struct {
	balancer.SubConn

	listen, healthy func(balancer.SubConnState)
}

func (*connection) Connect() {}

func (*connection) Shutdown() {}

func (c *connection) RegisterHealthListener(listen func(balancer.SubConnState)) { c.healthy = listen }
