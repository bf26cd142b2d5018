package federation

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/capreg/registry"
	"github.com/capreg/registry/event"
	"github.com/capreg/registry/internal/fault"
)

const (
	longestList = 16 << 20 // bytes
	longestPoll = 5 * time.Minute
	defaultPoll = 30 * time.Second
	pollGrace   = 10 * time.Second // beyond the wait that a peer was asked for
)

// PeerOptions configures a [Peer].
type PeerOptions struct {
	// Node is the name of this process.
	Node string
	// Offer says which providers are offered, as [AnnouncerOptions.Offer] does.
	Offer func(registry.Info) (Offer, bool)
}

// Peer is an [http.Handler] that lists the providers of a registry for the [HTTPPeer] of other processes, without a store between them.
// Use [NewPeer] to create one. Its methods are safe for concurrent use, and it starts no goroutine.
//
// A GET is answered with a [List] in JSON and its ETag. One with that ETag in If-None-Match, and "wait=SECONDS" in its query, is
// answered when the list has changed, or with 304 after that time, at most five minutes.
type Peer struct {
	reg         *registry.Registry
	options     PeerOptions
	incarnation string

	mu      sync.Mutex // guards leaving
	leaving chan struct{}
}

// NewPeer returns a handler. The error names the option and matches [registry.ErrInvalid].
func NewPeer(reg *registry.Registry, options PeerOptions) (*Peer, error) {
	if reg == nil || options.Offer == nil {
		return nil, fmt.Errorf("federation: NewPeer needs a registry and an Offer: %w", registry.ErrInvalid)
	}
	if err := checkNode("PeerOptions.Node", options.Node); err != nil {
		return nil, err
	}
	return &Peer{reg: reg, options: options, incarnation: rand.Text(), leaving: make(chan struct{})}, nil
}

// Leave tells all that this process leaves: it wants no new calls, and those in flight are answered. Call it some time before
// the HTTP server is shut down. It may be called any number of times.
func (p *Peer) Leave() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.left() {
		close(p.leaving)
	}
}

func (p *Peer) left() bool {
	select {
	case <-p.leaving:
		return true
	default:
		return false
	}
}

// list returns the present list in JSON, and its tag.
func (p *Peer) list() (text []byte, tag string, err error) {
	l := List{Node: p.options.Node, Incarnation: p.incarnation, Leaving: p.left(), Entries: []Entry{}}
	for info := range p.reg.All() {
		if info.Metadata[MetadataNode] != "" {
			continue
		}
		var offer Offer
		offered := false
		if err := fault.Run(func() error { offer, offered = p.options.Offer(info); return nil }); err != nil || !offered {
			continue
		}
		e := Entry{
			Node: l.Node, Incarnation: l.Incarnation, Kind: offer.Kind, Address: offer.Address, Definition: info.Definition,
		}
		if e.check() == nil {
			l.Entries = append(l.Entries, e)
		}
	}
	text, err = json.Marshal(l)
	if err == nil && len(text) > longestList {
		err = fmt.Errorf("federation: the list has %d bytes: want at most %d", len(text), longestList)
	}
	h := fnv.New64a()
	_, _ = h.Write(text) // it never fails
	return text, `"` + strconv.FormatUint(h.Sum64(), 16) + `"`, err
}

// ServeHTTP answers a request.
func (p *Peer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "want GET", http.StatusMethodNotAllowed)
		return
	}
	seconds, err := strconv.ParseUint(r.URL.Query().Get("wait"), 10, 16)
	if err != nil {
		seconds = 0
	}
	ctx, cancel := context.WithTimeout(r.Context(), min(time.Duration(seconds)*time.Second, longestPoll))
	defer cancel()
	changes := p.reg.Subscribe(1, event.Filter{Kinds: []event.Kind{event.Registered, event.Draining, event.Changed}})
	defer changes.Close()
	text, tag, err := p.list()
	for err == nil && tag == r.Header.Get("If-None-Match") && p.changed(ctx, changes) {
		text, tag, err = p.list()
	}
	if err != nil {
		http.Error(w, "the list cannot be written", http.StatusInternalServerError)
		return
	}
	w.Header().Set("ETag", tag)
	w.Header().Set("Cache-Control", "no-cache")
	if tag == r.Header.Get("If-None-Match") {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(text) // the client has gone
}

// changed waits for a change, and reports whether there is one before ctx ends.
func (p *Peer) changed(ctx context.Context, changes *registry.Subscription) bool {
	if p.left() {
		<-ctx.Done() // there are no more changes of interest
		return false
	}
	within, cancel := context.WithCancel(ctx)
	defer cancel()
	var watch sync.WaitGroup
	defer watch.Wait()
	defer cancel() // before the wait
	watch.Go(func() {
		select {
		case <-p.leaving:
			cancel()
		case <-within.Done():
		}
	})
	_, err := changes.Next(within)
	return err == nil || p.left()
}

// HTTPPeerOptions configures [HTTPPeer]. The zero value of each field is its default.
type HTTPPeerOptions struct {
	// Client makes the requests; its time-out has to be longer than Wait. Default: one without a time-out of its own.
	Client *http.Client
	// Header is sent with each request, such as an Authorization.
	Header http.Header
	// Wait is the time for which the peer is asked to wait for a change, in whole seconds. A request that has no answer ten
	// seconds after that has failed. Default: 30 s.
	Wait time.Duration
}

// httpPeer lists the providers of a peer.
type httpPeer struct {
	url     *url.URL
	options HTTPPeerOptions
}

// HTTPPeer returns the listing of a [Peer] at an absolute URL of http or https. It is asked by long polls: a change is seen at once.
// The error of a bad URL or option matches [registry.ErrInvalid].
func HTTPPeer(address string, options HTTPPeerOptions) (Listing, error) {
	at, err := url.Parse(address)
	if err != nil || at.Host == "" || at.Scheme != "http" && at.Scheme != "https" {
		return nil, fmt.Errorf("federation: the address of a peer is no absolute URL of http or https: %w", registry.ErrInvalid)
	}
	if options.Wait < 0 || options.Wait > longestPoll {
		return nil, fmt.Errorf("federation: HTTPPeerOptions.Wait is %v: want 0 (%v) to %v: %w", options.Wait, defaultPoll, longestPoll, registry.ErrInvalid)
	}
	if options.Wait == 0 {
		options.Wait = defaultPoll
	}
	if options.Client == nil {
		options.Client = &http.Client{}
	}
	options.Header = options.Header.Clone()
	query := at.Query()
	query.Set("wait", strconv.Itoa(int(options.Wait/time.Second)))
	at.RawQuery = query.Encode()
	return &httpPeer{at, options}, nil
}

// String returns the URL without user, password and query, which may be secrets.
func (p *httpPeer) String() string {
	return (&url.URL{Scheme: p.url.Scheme, Host: p.url.Host, Path: p.url.Path}).String()
}

// Follow implements [Listing].
func (p *httpPeer) Follow(ctx context.Context, tell func(List)) error {
	for tag := ""; ; {
		list, next, err := p.ask(ctx, tag)
		if err != nil {
			return fmt.Errorf("federation: %s: %w", p, err)
		}
		if list != nil {
			tell(*list)
		}
		if tag = next; tag == "" { // the peer cannot wait
			if !sleep(ctx, p.options.Wait) {
				return ctx.Err()
			}
		}
	}
}

// ask makes a request. It returns nothing where the list is as before.
func (p *httpPeer) ask(ctx context.Context, tag string) (list *List, next string, err error) {
	within, cancel := context.WithTimeout(ctx, p.options.Wait+pollGrace)
	defer cancel()
	request, err := http.NewRequestWithContext(within, http.MethodGet, p.url.String(), http.NoBody)
	if err != nil {
		return nil, "", err
	}
	maps.Copy(request.Header, p.options.Header)
	if tag != "" {
		request.Header.Set("If-None-Match", tag)
	}
	response, err := p.options.Client.Do(request)
	if err != nil {
		if of := new(url.Error); errors.As(err, &of) {
			err = of.Err // the URL may have secrets
		}
		return nil, "", err
	}
	defer response.Body.Close() //nolint:errcheck // it was read, or is not wanted
	switch {
	case response.StatusCode == http.StatusNotModified && tag != "":
		return nil, tag, nil
	case response.StatusCode != http.StatusOK:
		return nil, "", errors.New("the answer is " + response.Status)
	}
	text, err := io.ReadAll(io.LimitReader(response.Body, longestList+1))
	if err == nil && len(text) > longestList {
		err = errors.New("the list has more than 16 MiB")
	}
	if err != nil {
		return nil, "", err
	}
	list = new(List)
	if err := json.Unmarshal(text, list); err != nil {
		return nil, "", fmt.Errorf("the list is not JSON of its form: %w", err)
	}
	if !isWord(list.Node) {
		return nil, "", errors.New("the list names no node")
	}
	return list, response.Header.Get("ETag"), nil
}
