package federation_test

import (
	"encoding/binary"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/federation"
	"github.com/capreg/registry/registrytest"
)

const (
	typeA   = 1
	typeSRV = 33
)

// nameServer is a server of DNS that answers whatever it is asked.
type nameServer struct {
	conn net.PacketConn

	mu      sync.Mutex          // guards what follows
	answers map[uint16][][]byte // data of records, by type
	ttl     uint32
	fails   bool
	asked   int
}

func newNameServer(tb testing.TB) *nameServer {
	tb.Helper()
	conn, err := (&net.ListenConfig{}).ListenPacket(tb.Context(), "udp", "127.0.0.1:0")
	require.NoError(tb, err)
	s := &nameServer{conn: conn, answers: map[uint16][][]byte{}, ttl: 1}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.serve()
	}()
	tb.Cleanup(func() {
		require.NoError(tb, conn.Close())
		<-ended
	})
	return s
}

// serve answers until the connection is closed.
func (s *nameServer) serve() {
	buffer := make([]byte, 4096)
	for {
		n, from, err := s.conn.ReadFrom(buffer)
		if err != nil {
			return
		}
		_, _ = s.conn.WriteTo(s.answer(buffer[:n]), from) // it asks again
	}
}

func (s *nameServer) answer(query []byte) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	end := 12
	for query[end] != 0 {
		end += 1 + int(query[end])
	}
	end += 5
	kind := binary.BigEndian.Uint16(query[end-4:])
	reply := append([]byte(nil), query[:end]...)
	reply[2], reply[3] = 0x84, 0x00 // an answer, of the authority
	if s.fails {
		reply[3] = 2 // the server has failed
	}
	records := s.answers[kind]
	if s.fails {
		records = nil
	}
	binary.BigEndian.PutUint16(reply[6:], uint16(len(records)))
	clear(reply[8:12])
	for _, data := range records {
		reply = append(reply, 0xc0, 12) // the name of the question
		reply = binary.BigEndian.AppendUint16(reply, kind)
		reply = binary.BigEndian.AppendUint16(reply, 1)
		reply = binary.BigEndian.AppendUint32(reply, s.ttl)
		reply = binary.BigEndian.AppendUint16(reply, uint16(len(data)))
		reply = append(reply, data...)
	}
	return reply
}

// set sets the records.
func (s *nameServer) set(kind uint16, fails bool, records ...[]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answers[kind], s.fails = records, fails
}

func address(text string) []byte { return netip.MustParseAddr(text).AsSlice() }

// service returns an SRV record of a host of one label.
func service(priority, weight, port uint16, host string) []byte {
	data := binary.BigEndian.AppendUint16(nil, priority)
	data = binary.BigEndian.AppendUint16(data, weight)
	data = binary.BigEndian.AppendUint16(data, port)
	data = append(data, byte(len(host)))
	data = append(data, host...)
	return append(data, 0)
}

func TestDNS_FollowsAddressesByTheirTTLAndKeepsTheLastOnes(t *testing.T) {
	t.Parallel()
	s := newNameServer(t)
	s.set(typeA, false, address("10.0.0.1"), address("10.0.0.2"))
	l, err := federation.DNS("greet.test.", federation.DNSOptions{
		Service: "greet", Kind: "test", Port: 80, Server: s.conn.LocalAddr().String(), Shortest: time.Millisecond,
	})
	require.NoError(t, err)
	reg := registrytest.New(t, registry.Options{})
	source := listed(t, reg, l)
	both := []string{"dns:greet.test/10.0.0.1:80", "dns:greet.test/10.0.0.2:80"}
	eventually(t, func() bool { return len(names(reg)) == 2 })
	require.Equal(t, both, names(reg))
	first, _ := reg.Provider("greet", both[0])
	generation := first.Info().Generation

	for _, empty := range []bool{false, true} {
		s.set(typeA, !empty)
		eventually(t, func() bool { return stateOf(source, "dns:greet.test").State == federation.NodeSuspect })
		require.Equal(t, both, names(reg), "the last good set is kept")
		s.set(typeA, false, address("10.0.0.1"), address("10.0.0.2"))
		eventually(t, func() bool { return stateOf(source, "dns:greet.test").State == federation.NodePresent })
	}
	s.set(typeA, false, address("10.0.0.1"), address("10.0.0.3"))
	eventually(t, func() bool { return source.Explain("dns:greet.test", "greet", "10.0.0.3:80").Visible })
	require.Equal(t, []string{"dns:greet.test/10.0.0.1:80", "dns:greet.test/10.0.0.3:80"}, names(reg))
	require.Equal(t, generation, first.Info().Generation)
}

func TestDNS_DoesNotAskBeforeTheRecordsAreOver(t *testing.T) {
	t.Parallel()
	s := newNameServer(t)
	s.ttl = 3600
	s.set(typeA, false, address("10.0.0.1"))
	l, err := federation.DNS("greet.test.", federation.DNSOptions{
		Service: "greet", Kind: "test", Port: 80, Server: s.conn.LocalAddr().String(), Shortest: time.Millisecond, Longest: time.Hour,
	})
	require.NoError(t, err)
	reg := registrytest.New(t, registry.Options{})
	listed(t, reg, l)
	eventually(t, func() bool { return len(names(reg)) == 1 })
	time.Sleep(50 * time.Millisecond) // fifty times the shortest time between two look-ups
	s.mu.Lock()
	defer s.mu.Unlock()
	require.Equal(t, 2, s.asked, "for A and for AAAA")
}

func TestDNS_ReadsServices(t *testing.T) {
	t.Parallel()
	s := newNameServer(t)
	s.set(typeSRV, false, service(1, 5, 8080, "near"), service(2, 0, 8081, "far"))
	l, err := federation.DNS("_greet._tcp.test.", federation.DNSOptions{
		Service: "greet", Kind: "test", Server: s.conn.LocalAddr().String(),
		Define: func(e *federation.Entry) { e.Definition.Capabilities = []string{"polite"} },
	})
	require.NoError(t, err)
	reg := registrytest.New(t, registry.Options{})
	listed(t, reg, l)
	eventually(t, func() bool { return len(names(reg)) == 2 })
	near, _ := reg.Provider("greet", "dns:_greet._tcp.test/near:8080")
	far, _ := reg.Provider("greet", "dns:_greet._tcp.test/far:8081")
	require.Equal(t, 1, near.Group())
	require.InDelta(t, 5, near.Weight(), 0)
	require.Equal(t, 2, far.Group())
	require.InDelta(t, 0.1, far.Weight(), 0)
	require.Equal(t, []string{"polite"}, far.Definition().Capabilities)
}

func TestDNS_RefusesBadOptions(t *testing.T) {
	t.Parallel()
	good := federation.DNSOptions{Service: "greet", Kind: "test"}
	for _, change := range []func(*federation.DNSOptions) string{
		func(*federation.DNSOptions) string { return "" },
		func(o *federation.DNSOptions) string { o.Service = ""; return "x" },
		func(o *federation.DNSOptions) string { o.Kind = "a b"; return "x" },
		func(o *federation.DNSOptions) string { o.Longest = -1; return "x" },
	} {
		options := good
		name := change(&options)
		_, err := federation.DNS(name, options)
		require.ErrorIs(t, err, registry.ErrInvalid)
	}
}
