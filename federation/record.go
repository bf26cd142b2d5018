package federation

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/capreg/registry"
	"github.com/capreg/registry/internal/jsonform"
	"github.com/capreg/registry/internal/oneline"
)

const (
	// MaxRecord bounds the value of a record, in bytes: an announcer writes none that is larger, and a source refuses it.
	MaxRecord = 64 << 10

	// ShortestTTL is the shortest TTL of a lease, and LongestTTL the longest.
	ShortestTTL = 100 * time.Millisecond
	// LongestTTL bounds the TTL of a lease.
	LongestTTL = 10 * time.Minute

	longestWord    = 64 // of nodes, kinds and incarnations
	longestAddress = 1024
	longestName    = 256
	mostSuspects   = 256

	leasePrefix = "lease."
	entryPrefix = "entry."
)

// Phase says how far a node has come, by its own account.
type Phase string

// The phases of a node.
const (
	// Joining is a node that is writing its records: those it has written before stay in force until it is Serving.
	Joining Phase = "joining"
	// Serving is a node whose records are complete.
	Serving Phase = "serving"
	// Leaving is a node that wants no new calls; those in flight are answered.
	Leaving Phase = "leaving"
)

// Lease is the record by which a node says that it is there. It holds no time but its TTL, so that
// clocks do not matter.
type Lease struct {
	Node string `json:"node"`
	// Incarnation tells the runs of a node apart: a random word of its process.
	Incarnation string `json:"incarnation"`
	// Generation counts the incarnations of the node that the store remembers.
	Generation uint64 `json:"generation"`
	Phase      Phase  `json:"phase"`
	// TTL is the time after which a lease that was not renewed makes its node a suspect.
	TTL time.Duration `json:"ttl"`
	// Entries counts the records that the node has written, and Sum is the sum of their hashes, which tells a source
	// whether it has all of them.
	Entries int    `json:"entries"`
	Sum     uint64 `json:"sum,omitempty"`
	// Suspects names the nodes that this node suspects.
	Suspects []string `json:"suspects,omitempty"`
}

// MarshalJSON returns the fields by their tags, with the TTL as text.
func (l Lease) MarshalJSON() ([]byte, error) { return jsonform.Marshal(l) }

// UnmarshalJSON reads what MarshalJSON writes. The error names the field and matches [registry.ErrInvalid].
func (l *Lease) UnmarshalJSON(text []byte) error { return jsonform.Unmarshal(text, l) }

// Entry is the record of one provider that a node offers.
type Entry struct {
	Node        string `json:"node"`
	Incarnation string `json:"incarnation"`
	// Kind names the way to call the provider, such as "nats": at most 64 bytes of letters, digits, "-", "_" and ".".
	Kind string `json:"kind"`
	// Address says where it is called, in the form of its kind: at most 1 KiB.
	Address string `json:"address,omitempty"`
	// Definition describes the provider as the registry of its node has it.
	Definition registry.Definition `json:"definition"`
}

// sumOf returns the hash of a record: FNV-1a of its key, a zero byte and its value.
func sumOf(key string, value []byte) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(key)) // it never fails
	_, _ = h.Write([]byte{0})
	_, _ = h.Write(value)
	return h.Sum64()
}

// leaseKey returns the key of a node's lease.
func leaseKey(node string) string { return leasePrefix + node }

// title names a provider at its node, as names are those of a service.
type title struct{ service, name string }

func (t title) compare(with title) int {
	return cmp.Or(cmp.Compare(t.service, with.service), cmp.Compare(t.name, with.name))
}

func (t title) String() string { return t.service + "/" + t.name }

func (e *Entry) title() title { return title{e.Definition.Service, e.Definition.Name} }

// entryKey returns the key of a provider's record.
func entryKey(node, incarnation string, t title) string {
	encode := base64.RawURLEncoding.EncodeToString
	return entryPrefix + node + "." + incarnation + "." + encode([]byte(t.service)) + "." + encode([]byte(t.name))
}

// parseEntryKey returns the parts of an entry's key.
func parseEntryKey(key string) (node, incarnation string, t title, err error) {
	parts := strings.Split(strings.TrimPrefix(key, entryPrefix), ".")
	if len(parts) != 4 || !isWord(parts[0]) || !isWord(parts[1]) {
		return "", "", title{}, refused("the key is not of the form entry.NODE.INCARNATION.SERVICE.NAME")
	}
	decode := base64.RawURLEncoding.Strict().DecodeString
	service, badService := decode(parts[2])
	name, badName := decode(parts[3])
	if badService != nil || badName != nil {
		return parts[0], parts[1], title{}, refused("a name in the key is not encoded as base64url")
	}
	return parts[0], parts[1], title{string(service), string(name)}, nil
}

// isWord reports whether text may be a part of a key.
func isWord(text string) bool {
	if text == "" || len(text) > longestWord {
		return false
	}
	for _, c := range []byte(text) {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' {
			return false
		}
	}
	return true
}

// isPlain reports whether text is valid UTF-8 without control characters.
func isPlain(text string) bool {
	return utf8.ValidString(text) && !strings.ContainsFunc(text, unicode.IsControl)
}

// refused returns the error of a record that is not accepted.
func refused(why string) error { return fmt.Errorf("federation: %s: %w", why, registry.ErrInvalid) }

// decode reads a record of at most [MaxRecord] bytes.
func decode[T any](value []byte, into *T) error {
	if len(value) > MaxRecord {
		return refused(fmt.Sprintf("the record has %d bytes: want at most %d", len(value), MaxRecord))
	}
	if err := json.Unmarshal(value, into); err != nil {
		return refused("the record is not JSON of its form: " + oneline.Short(err.Error(), 200))
	}
	return nil
}

// readLease reads the record of a lease.
func readLease(record Record) (Lease, error) {
	var l Lease
	if err := decode(record.Value, &l); err != nil {
		return Lease{}, err
	}
	switch {
	case !isWord(l.Node) || leaseKey(l.Node) != record.Key:
		return Lease{}, refused("the lease is of another node than its key")
	case !isWord(l.Incarnation):
		return Lease{}, refused("the incarnation is no word of letters, digits, - and _")
	case l.Phase != Joining && l.Phase != Serving && l.Phase != Leaving:
		return Lease{}, refused("the phase is none")
	case l.TTL < ShortestTTL || l.TTL > LongestTTL:
		return Lease{}, refused(fmt.Sprintf("the TTL is %v: want %v to %v", l.TTL, ShortestTTL, LongestTTL))
	case len(l.Suspects) > mostSuspects:
		return Lease{}, refused(fmt.Sprintf("there are %d suspects: want at most %d", len(l.Suspects), mostSuspects))
	}
	for _, suspect := range l.Suspects {
		if !isWord(suspect) {
			return Lease{}, refused("the name of a suspect is no node's")
		}
	}
	return l, nil
}

// readEntry reads the record of a provider, which is to be of the node, the incarnation and the names of its key.
func readEntry(record Record, node, incarnation string, of title) (Entry, error) {
	var e Entry
	if err := decode(record.Value, &e); err != nil {
		return Entry{}, err
	}
	if e.Node != node || e.Incarnation != incarnation || e.title() != of {
		return Entry{}, refused("the record is of another provider than its key")
	}
	return e, e.check()
}

// check returns an error if the entry cannot be one.
func (e *Entry) check() error {
	d := &e.Definition
	switch {
	case d.Name == "" || len(d.Name) > longestName || !isPlain(d.Name):
		return refused("the name of the provider is empty, too long or has control characters")
	case d.Service == "" || len(d.Service) > longestName || !isPlain(d.Service):
		return refused("the name of the service is empty, too long or has control characters")
	case !isWord(strings.ReplaceAll(e.Kind, ".", "-")):
		return refused("the kind is no word of letters, digits, -, _ and .")
	case len(e.Address) > longestAddress || !isPlain(e.Address):
		return refused("the address is too long or has control characters")
	}
	return nil
}

// checkNode returns an error if the name cannot be a node's.
func checkNode(field, node string) error {
	if !isWord(node) {
		return fmt.Errorf("federation: %s is %q: want a word of letters, digits, - and _, of at most %d bytes: %w",
			field, oneline.Short(node, 80), longestWord, registry.ErrInvalid)
	}
	return nil
}

// short returns an error as text of one line.
func short(err error) string {
	if err == nil {
		return ""
	}
	return strings.TrimPrefix(oneline.Short(err.Error(), 300), "federation: ")
}
