package federation

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/capreg/registry"
)

// DNSOptions configures [DNS].
type DNSOptions struct {
	// Service is the name of the service whose providers the addresses are, and Kind the kind of their entries.
	Service, Kind string
	// Port is the port of the addresses of a host. Default: none, for a name of SRV records, which have ports.
	Port uint16
	// Server is the address of the name server, such as "10.0.0.2:53". Default: that of the system.
	Server string
	// Shortest and Longest bound the time between two look-ups, which is that of the records (TTL). Default: 5 s and 5 min.
	Shortest, Longest time.Duration
	// Define completes the entry of an address: its capabilities, and whatever else calls need. It must be a pure function.
	// Default: none.
	Define func(*Entry)
}

// dnsListing lists the addresses of a DNS name.
type dnsListing struct {
	name    string
	options DNSOptions
}

// DNS returns the listing of a DNS name: of its SRV records ("_service._proto.name"), whose priority becomes the group and whose weight
// the weight of a provider, or with a Port of its addresses. Each address is a provider whose name and address are
// "host:port". It is looked up again when its records are over by their TTL. A name that does not exist any more, and an
// answer without records, are errors of the name server: what was there stays.
//
// The errors name the option and match [registry.ErrInvalid].
func DNS(name string, options DNSOptions) (Listing, error) {
	options.Shortest, options.Longest = cmp.Or(options.Shortest, 5*time.Second), cmp.Or(options.Longest, 5*time.Minute)
	probe := Entry{Kind: options.Kind, Definition: registry.Definition{Name: "x", Service: options.Service}}
	switch {
	case name == "" || len(name) > longestName || !isPlain(name):
		return nil, fmt.Errorf("federation: the name for DNS is empty, too long or has control characters: %w", registry.ErrInvalid)
	case options.Shortest < 0 || options.Longest < options.Shortest:
		return nil, fmt.Errorf("federation: DNSOptions has Shortest %v and Longest %v: want 0 or more, and the longest not below: %w",
			options.Shortest, options.Longest, registry.ErrInvalid)
	}
	if err := probe.check(); err != nil {
		return nil, fmt.Errorf("federation: DNSOptions: %w", err)
	}
	return &dnsListing{name, options}, nil
}

// String returns the name.
func (d *dnsListing) String() string { return "dns:" + strings.TrimSuffix(d.name, ".") }

// Follow implements [Listing].
func (d *dnsListing) Follow(ctx context.Context, tell func(List)) error {
	for last := []Entry(nil); ; {
		entries, ttl, err := d.lookUp(ctx)
		if err != nil {
			return fmt.Errorf("federation: %s: %w", d, err)
		}
		if !reflect.DeepEqual(entries, last) {
			last = entries
			tell(List{Entries: slices.Clone(entries)})
		}
		if !sleep(ctx, min(max(ttl, d.options.Shortest), d.options.Longest)) {
			return ctx.Err()
		}
	}
}

// lookUp returns the entries of the addresses, and for how long they hold.
func (d *dnsListing) lookUp(ctx context.Context) (entries []Entry, ttl time.Duration, err error) {
	var seen shortestTTL
	resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		var dialer net.Dialer
		conn, err := dialer.DialContext(ctx, network, cmp.Or(d.options.Server, address))
		switch conn := conn.(type) {
		case *net.UDPConn:
			return &packets{conn, &seen}, err
		default: // long answers, whose TTL is that of the short ones before
			return conn, err
		}
	}}
	if d.options.Port == 0 {
		entries, err = d.services(ctx, resolver)
	} else {
		entries, err = d.addresses(ctx, resolver)
	}
	if err == nil && len(entries) == 0 {
		err = errors.New("there are no records")
	}
	return entries, time.Duration(seen.seconds.Load()) * time.Second, err
}

func (d *dnsListing) services(ctx context.Context, resolver *net.Resolver) (entries []Entry, err error) {
	_, records, err := resolver.LookupSRV(ctx, "", "", d.name)
	if err != nil {
		return nil, err
	}
	for _, record := range records {
		e := d.entry(strings.TrimSuffix(record.Target, "."), record.Port)
		e.Definition.Group, e.Definition.Weight = int(record.Priority), max(float64(record.Weight), 0.1)
		entries = append(entries, e)
	}
	return d.defined(entries), nil
}

func (d *dnsListing) addresses(ctx context.Context, resolver *net.Resolver) (entries []Entry, err error) {
	hosts, err := resolver.LookupHost(ctx, d.name)
	if err != nil {
		return nil, err
	}
	for _, host := range hosts {
		entries = append(entries, d.entry(host, d.options.Port))
	}
	return d.defined(entries), nil
}

func (d *dnsListing) entry(host string, port uint16) Entry {
	at := net.JoinHostPort(host, strconv.Itoa(int(port)))
	return Entry{
		Kind: d.options.Kind, Address: at, Definition: registry.Definition{Service: d.options.Service, Name: at},
	}
}

// defined completes the entries, in the order of their names, each name once.
func (d *dnsListing) defined(entries []Entry) []Entry {
	slices.SortFunc(entries, func(a, b Entry) int { return cmp.Compare(a.Definition.Name, b.Definition.Name) })
	entries = slices.CompactFunc(entries, func(a, b Entry) bool { return a.Definition.Name == b.Definition.Name })
	for i := range entries {
		if d.options.Define != nil {
			d.options.Define(&entries[i])
		}
	}
	return entries
}

// shortestTTL holds the shortest TTL of the records of some answers; zero without any.
type shortestTTL struct{ seconds atomic.Uint32 }

// packets is a connection that reads the TTLs of the answers that pass, as package net does not tell them.
type packets struct {
	*net.UDPConn

	ttl *shortestTTL
}

// Read reads an answer.
func (p *packets) Read(b []byte) (int, error) {
	n, err := p.UDPConn.Read(b)
	if err != nil {
		return n, err
	}
	if ttl, ok := ttlOf(b[:n]); ok {
		for old := p.ttl.seconds.Load(); old == 0 || ttl < old; old = p.ttl.seconds.Load() {
			if p.ttl.seconds.CompareAndSwap(old, ttl) {
				break
			}
		}
	}
	return n, nil
}

// ttlOf returns the shortest TTL of the answers in a message of DNS, as RFC 1035 has it, and false without one.
func ttlOf(message []byte) (shortest uint32, ok bool) {
	const header = 12
	if len(message) < header {
		return 0, false
	}
	questions, answers := binary.BigEndian.Uint16(message[4:]), binary.BigEndian.Uint16(message[6:])
	rest := message[header:]
	for range questions {
		if rest, ok = skipName(rest); !ok || len(rest) < 4 {
			return 0, false
		}
		rest = rest[4:]
	}
	ok = false
	for range answers {
		named, whole := skipName(rest)
		if !whole || len(named) < 10 {
			return shortest, ok
		}
		ttl, length := binary.BigEndian.Uint32(named[4:]), int(binary.BigEndian.Uint16(named[8:]))
		if !ok || ttl < shortest {
			shortest, ok = ttl, true
		}
		if rest = named[10:]; len(rest) < length {
			return shortest, ok
		}
		rest = rest[length:]
	}
	return shortest, ok
}

// skipName returns what follows a name.
func skipName(b []byte) ([]byte, bool) {
	for len(b) > 0 {
		length := int(b[0])
		switch {
		case length == 0:
			return b[1:], true
		case length >= 0xc0: // a pointer
			return b[min(2, len(b)):], len(b) >= 2
		case length >= 0x40 || len(b) <= length:
			return nil, false
		}
		b = b[1+length:]
	}
	return nil, false
}
