// Package hosts runs the processes of a test on hosts of a network, whose links can be cut. A host is a namespace of Linux
// with a network device of its own; all of them are at one switch, in one more. Cuts and losses are filters of tc at both ends of
// a link, so that what is lost is lost without a word. Delay is made by this process, for not every kernel has netem.
//
// A process on a host is the test binary again. It is a [Node] of a federation, or whatever else a test makes of it by the
// environment.
package hosts

import (
	"context"
	"fmt"
	"math"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/internal/oneline"
	"github.com/capreg/registry/internal/testkit"
)

const (
	prefix = "registry-" // of the names of namespaces, followed by the number of the process
	device = "eth0"
	mask   = "/24"
	most   = 250 // hosts

	passAll = "1,6 0 0 0" // a program of classic BPF: return TC_ACT_OK
	dropAll = "1,6 0 0 2" // return TC_ACT_SHOT
	// dropSome loads a random number, and drops what has one that is not below the bound.
	dropSome = "4,32 0 0 4294963256,53 0 1 %d,6 0 0 2,6 0 0 0"
)

// networks counts the networks of this process.
var networks atomic.Int64

// Network is a switch with hosts. Use [NewNetwork] to create one.
type Network struct {
	tb    testing.TB
	name  string
	hosts int
}

// Link says what the way between a host and the switch is like. The zero value is as fast as the kernel.
type Link struct {
	// Delay is that of each frame, in each direction.
	Delay time.Duration
	// Loss is the share of frames that get lost, in each direction.
	Loss float64
}

// Host is a namespace of its own. Use [Network.Host] to create one. Its methods are for one goroutine.
type Host struct {
	// Address is that of IPv4.
	Address string

	network *Network
	name    string // of its namespace
	port    string // of the switch
	loss    float64
}

// NewNetwork returns a network that ends with the test. It needs Linux, and root, without which the test is skipped. It needs ip and tc, too, and a
// kernel that lets it make networks: without these the test is skipped or, where CI is true, fails.
func NewNetwork(tb testing.TB) *Network {
	tb.Helper()
	if runtime.GOOS != "linux" {
		tb.Skip("hosts of a network are namespaces of Linux")
	}
	if os.Geteuid() != 0 {
		tb.Skip("only root may make namespaces of networks")
	}
	testkit.Program(tb, "ip")
	testkit.Program(tb, "tc")
	sweep()
	n := &Network{tb: tb, name: fmt.Sprintf("%s%d-%d", prefix, os.Getpid(), networks.Add(1))}
	n.namespace(n.name)
	n.make("ip", "-n", n.name, "link", "add", "switch", "type", "bridge")
	n.make("ip", "-n", n.name, "link", "set", "switch", "up")
	return n
}

// sweep deletes the namespaces of processes that have ended before they could.
func sweep() {
	text, err := run("ip", "netns", "list")
	if err != nil {
		return // it is for order alone
	}
	for line := range strings.Lines(text) {
		name, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		of, ours := strings.CutPrefix(name, prefix)
		process, _, _ := strings.Cut(of, "-")
		if _, err := os.Stat("/proc/" + process); ours && os.IsNotExist(err) {
			_, _ = run("ip", "netns", "delete", name)
		}
	}
}

// run runs a command and returns what it says.
func run(words ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	text, err := exec.CommandContext(ctx, words[0], words[1:]...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", strings.Join(words, " "), err, oneline.Of(string(text)))
	}
	return string(text), nil
}

func (n *Network) namespace(name string) {
	n.tb.Helper()
	n.make("ip", "netns", "add", name)
	n.tb.Cleanup(func() {
		_, err := run("ip", "netns", "delete", name)
		require.NoError(n.tb, err)
	})
	n.make("ip", "-n", name, "link", "set", "lo", "up")
}

// make runs a command that makes a part of the network.
func (n *Network) make(words ...string) {
	n.tb.Helper()
	_, err := run(words...)
	n.need(err)
}

// need ends the test after an error of what makes a network.
func (n *Network) need(err error) {
	n.tb.Helper()
	switch {
	case err == nil:
	case os.Getenv("CI") == "true":
		n.tb.Fatalf("no networks can be made here, and CI is true: %v", err)
	default:
		n.tb.Skipf("no networks can be made here: %v", err)
	}
}

// Host adds a host.
func (n *Network) Host(link Link) *Host {
	n.tb.Helper()
	n.hosts++
	require.LessOrEqual(n.tb, n.hosts, most)
	h := &Host{
		Address: fmt.Sprintf("198.18.0.%d", n.hosts), // of a range that is set aside for tests of networks
		network: n, name: fmt.Sprintf("%s-%d", n.name, n.hosts), port: fmt.Sprintf("port%d", n.hosts), loss: link.Loss,
	}
	n.namespace(h.name)
	if link.Delay == 0 {
		n.make("ip", "-n", h.name, "link", "add", device, "type", "veth", "peer", "name", h.port, "netns", n.name)
	} else {
		h.slow(link.Delay)
	}
	n.make("ip", "-n", n.name, "link", "set", h.port, "master", "switch", "up")
	n.make("ip", "-n", h.name, "address", "add", h.Address+mask, "dev", device)
	n.make("ip", "-n", h.name, "link", "set", device, "up")
	for _, end := range h.ends() {
		n.make("tc", "-n", end.namespace, "qdisc", "add", "dev", end.device, "clsact")
		n.make(filter(end, h.usual())...)
	}
	return h
}

// slow connects the host by a cable that delays.
func (h *Host) slow(delay time.Duration) {
	n := h.network
	n.tb.Helper()
	near, far, stop, err := newCable(delay)
	n.need(err)
	n.tb.Cleanup(stop)
	for _, end := range []struct{ was, name, namespace string }{{near, device, h.name}, {far, h.port, n.name}} {
		n.make("ip", "link", "set", end.was, "netns", end.namespace)
		n.make("ip", "-n", end.namespace, "link", "set", end.was, "name", end.name)
	}
}

// end is one of the two ends of a link.
type end struct{ namespace, device string }

// ends returns the end that the host receives by, and the one that the switch receives by.
func (h *Host) ends() [2]end {
	return [2]end{{h.name, device}, {h.network.name, h.port}}
}

// filter returns the command that has what comes in at an end pass by a program.
func filter(at end, program string) []string {
	return []string{
		"tc", "-n", at.namespace, "filter", "replace", "dev", at.device, "ingress",
		"protocol", "all", "prio", "1", "handle", "1", "bpf", "direct-action", "bytecode", program,
	}
}

// set has what comes in at an end pass by a program from now on.
func (h *Host) set(at end, program string) {
	h.network.tb.Helper()
	_, err := run(filter(at, program)...)
	require.NoError(h.network.tb, err)
}

// usual returns the program of a link that is not cut.
func (h *Host) usual() string {
	if h.loss == 0 {
		return passAll
	}
	return fmt.Sprintf(dropSome, uint32(math.Round((1-h.loss)*math.MaxUint32)))
}

// Cut loses all that the host sends or is sent. Nothing is told of it: connections stay, and are silent.
func (h *Host) Cut() {
	h.network.tb.Helper()
	h.CutIn()
	h.CutOut()
}

// CutIn loses all that the host is sent.
func (h *Host) CutIn() {
	h.network.tb.Helper()
	h.set(h.ends()[0], dropAll)
}

// CutOut loses all that the host sends.
func (h *Host) CutOut() {
	h.network.tb.Helper()
	h.set(h.ends()[1], dropAll)
}

// Mend makes the link as it was at first.
func (h *Host) Mend() {
	h.network.tb.Helper()
	for _, end := range h.ends() {
		h.set(end, h.usual())
	}
}
