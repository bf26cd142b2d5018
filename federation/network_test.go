package federation_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/federation"
	"github.com/capreg/registry/internal/testkit/hosts"
)

const (
	// namesVariable has the addresses of the only name of a name server, in its process.
	namesVariable = "REGISTRY_FEDERATION_NAMES"
	peerPort      = 8080
)

// serveNames is the process of a name server on all addresses of its host, if it is one. It ends with its input.
func serveNames() bool {
	addresses := os.Getenv(namesVariable)
	if addresses == "" {
		return false
	}
	conn, err := (&net.ListenConfig{}).ListenPacket(context.Background(), "udp", ":53")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	s := &nameServer{conn: conn, answers: map[uint16][][]byte{}, ttl: 1}
	for each := range strings.SplitSeq(addresses, " ") {
		s.answers[typeA] = append(s.answers[typeA], address(each))
	}
	go s.serve()
	_, _ = io.Copy(io.Discard, os.Stdin) // until the test ends
	return true
}

// connectNode makes the parts of a node without a store: it serves what it has over HTTP, and lists what it is told to list.
func connectNode(ctx context.Context, node hosts.Node, reg *registry.Registry) (parts hosts.Parts, err error) {
	parts.Kind = "http"
	parts.Dial = func(_ context.Context, e federation.Entry) (hosts.Greet, error) {
		url := e.Address
		if !strings.Contains(url, "://") { // of DNS
			url = "http://" + url + "/greet/one"
		}
		return func(ctx context.Context) (string, error) { return get(ctx, url) }, nil
	}
	for _, at := range node.At {
		var l federation.Listing
		what, where, _ := strings.Cut(at, "=")
		switch what {
		case "serve":
			err = serveNode(ctx, where, node.Name, reg)
		case "peer":
			l, err = federation.HTTPPeer(where, federation.HTTPPeerOptions{Wait: time.Second})
		case "names":
			l, err = federation.DNS("greet.test.", federation.DNSOptions{
				Service: hosts.Greets.Name(), Kind: parts.Kind, Port: peerPort, Server: where, Shortest: time.Second,
			})
		}
		if err != nil {
			return parts, err
		}
		if l != nil {
			parts.Listings = append(parts.Listings, l)
		}
	}
	if len(parts.Listings) == 0 { // it has to have one
		parts.Listings = []federation.Listing{make(listing)}
	}
	return parts, nil
}

// get returns the body of an answer.
func get(ctx context.Context, url string) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return "", err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close() //nolint:errcheck // it was read
	text, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = errors.New(response.Status)
	}
	return string(text), err
}

// serveNode serves the list of a node, and its providers, until the process ends.
func serveNode(ctx context.Context, at, node string, reg *registry.Registry) error {
	peer, err := federation.NewPeer(reg, federation.PeerOptions{Node: node, Offer: func(info registry.Info) (federation.Offer, bool) {
		return federation.Offer{Kind: "http", Address: "http://" + at + "/greet/" + info.Name}, true
	}})
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle("/peer", peer)
	mux.HandleFunc("/greet/{name}", func(w http.ResponseWriter, r *http.Request) {
		resolver := hosts.Greets.Bind(reg, registry.Query{Only: []string{r.PathValue("name")}})
		answer, err := registry.Call(r.Context(), resolver, func(ctx context.Context, g hosts.Greet) (string, error) { return g(ctx) })
		if err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		_, _ = io.WriteString(w, answer) // the client has gone
	})
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", at)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
	go func() { _ = server.Serve(listener) }()
	return nil
}

func TestSource_KeepsWhatIsListedWhileHostsAreCutOff(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it takes a minute")
	}
	n := hosts.NewNetwork(t)
	join := func(name string, link hosts.Link) (m *hosts.Member, url string) {
		h := n.Host(link)
		at := fmt.Sprintf("%s:%d", h.Address, peerPort)
		return h.Join(hosts.Node{Name: name, Providers: []string{"one", "two"}, At: []string{"serve=" + at}}), "http://" + at + "/peer"
	}
	far, farURL := join("far", hosts.Link{})
	slow, slowURL := join("slow", hosts.Link{Delay: 100 * time.Millisecond, Loss: 0.05})
	names := n.Host(hosts.Link{})
	names.Start(namesVariable, far.Host.Address)
	near := n.Host(hosts.Link{}).Join(hosts.Node{Name: "near", At: []string{"peer=" + farURL, "peer=" + slowURL, "names=" + names.Address + ":53"}})

	const named = "dns:greet.test"
	inDNS := fmt.Sprintf("%s/%s:%d", named, far.Host.Address, peerPort)
	sees := func(state federation.NodeState, nodes []string, providers ...string) time.Duration {
		begun := time.Now()
		hosts.Eventually(t, fmt.Sprintf("%v are %s, with %v", nodes, state, providers), func() bool {
			s := near.State()
			for _, node := range nodes {
				if s.Nodes[node] != state {
					return false
				}
			}
			for _, provider := range providers {
				if s.Seen[provider] == 0 {
					return false
				}
			}
			return len(s.Seen) == len(providers)
		})
		return time.Since(begun).Round(time.Millisecond)
	}
	all := []string{"far", "slow", named}
	before := []string{"far/one", "far/two", "slow/one", "slow/two", inDNS}
	sees(federation.NodePresent, all, before...)
	near.Answers("far/one")
	near.Answers("slow/one")
	kept := near.State().Seen

	far.Host.Cut()
	names.CutOut()
	near.Fails("far/one")
	far.Drop("two")
	far.Add("three")
	silent := sees(federation.NodeSuspect, []string{"far", named}, before...)
	near.Answers("slow/two")
	require.Empty(t, near.State().Lost)
	far.Host.Mend()
	names.Mend()
	after := []string{"far/one", "far/three", "slow/one", "slow/two", inDNS}
	t.Logf("the cut of two hosts was noticed after %v; all is seen %v after its end", silent, sees(federation.NodePresent, all, after...))
	require.Equal(t, []string{"far/two"}, near.State().Lost)

	near.Host.CutIn() // it asks, and is not answered
	near.Fails("slow/one")
	silent = sees(federation.NodeSuspect, all, after...)
	slow.Drop("two")
	near.Host.Mend()
	last := []string{"far/one", "far/three", "slow/one", inDNS}
	t.Logf("the cut of the listing host was noticed after %v; all is seen %v after its end", silent, sees(federation.NodePresent, all, last...))
	now := near.State()
	require.Equal(t, []string{"far/two", "slow/two"}, now.Lost)
	for _, name := range []string{"far/one", "slow/one", inDNS} {
		require.Equal(t, kept[name], now.Seen[name], "%s was registered again", name)
	}
	near.Answers("far/three")
	near.Answers("slow/one")
}
