package federation

import (
	"encoding/base64"
	"strings"
	"time"

	"github.com/capreg/registry"
	"github.com/capreg/registry/event"
	"github.com/capreg/registry/internal/oneline"
)

const (
	openingPrefix = "opening."
	mostOpenings  = 1024
	sameEnd       = time.Second // two ends that are nearer are one: each process has a clock of its own
)

// sharedOpening is the record of a breaker that was forced open.
type sharedOpening struct {
	Node    string    `json:"node"` // that tells so
	Of      string    `json:"of"`   // the node whose provider it is
	Service string    `json:"service"`
	Name    string    `json:"name"` // that the provider has there
	Domain  string    `json:"domain,omitempty"`
	Own     bool      `json:"own,omitempty"` // it is one of the process that it was opened in
	Why     string    `json:"why,omitempty"`
	LeftMS  int64     `json:"left_ms"` // when it was written
	Until   time.Time `json:"until"`
	Reset   bool      `json:"reset,omitempty"`
}

// openings holds what is known of forced openings, by the keys of their records.
type openings struct {
	told map[string]sharedOpening // by other nodes
	own  map[string]bool
	// ended has the providers that were reset here as another node has told: the event of that is no news.
	ended map[title]bool
}

func (s *sharedOpening) key() string {
	encode := base64.RawURLEncoding.EncodeToString
	return openingPrefix + s.Of + "." + encode([]byte(s.Service)) + "." + encode([]byte(s.Name))
}

// identify returns the record of a provider as all nodes know it.
func (c *Cooldowns) identify(d *registry.Definition) sharedOpening {
	s := sharedOpening{Node: c.options.Node, Of: c.options.Node, Service: d.Service, Name: d.Name, Domain: d.Domain, Own: true}
	if node := d.Metadata[MetadataNode]; isWord(node) {
		s.Own, s.Of, s.Name = false, node, strings.TrimPrefix(d.Name, node+"/")
	}
	return s
}

// means reports whether the record is of a provider: that very one, or one of its own of each node that is the same by name and domain.
func means(s, of *sharedOpening) bool {
	if s.Service != of.Service || s.Name != of.Name {
		return false
	}
	return s.Of == of.Of || s.Domain != "" && s.Domain == of.Domain && s.Own && of.Own
}

// toldOf returns what other nodes have told of a provider, with mu held: of several openings the one that ends last.
func (c *Cooldowns) toldOf(of *sharedOpening) (key string, told sharedOpening, has bool) {
	for at, s := range c.openings.told {
		if means(&s, of) && (!has || s.Until.After(told.Until)) {
			key, told, has = at, s, true
		}
	}
	return key, told, has
}

// heardOpening tells the other nodes what became of a breaker.
func (c *Cooldowns) heardOpening(reg *registry.Registry, registration *registry.Registration, e event.Event) {
	d := registration.Definition()
	of := c.identify(&d)
	switch e.Kind {
	case event.Registered:
		c.mu.Lock()
		_, told, has := c.toldOf(&of)
		c.mu.Unlock()
		if has {
			c.open(registration, &told, false)
		}
	case event.BreakerOpened:
		c.mu.Lock()
		delete(c.openings.ended, title{e.Service, e.Provider})
		c.mu.Unlock()
		c.tellOpening(registration)
	default: // it is not forced open any more
		c.mu.Lock()
		if c.openings.ended[title{e.Service, e.Provider}] {
			delete(c.openings.ended, title{e.Service, e.Provider})
			c.mu.Unlock()
			return
		}
		key, told, has := c.toldOf(&of)
		own := c.openings.own[of.key()]
		delete(c.openings.own, of.key())
		c.mu.Unlock()
		reset := e.Kind == event.BreakerClosed && e.Reason == reasonOfReset
		switch {
		case reset && has:
			told.Node, told.Reset, told.LeftMS = c.options.Node, true, 0
			c.applyOpening(reg, &told, d.Name) // to others of the same name and domain
			c.telling.put(key, &told)
		case reset && own:
			of.Reset = true
			c.telling.put(of.key(), &of)
		case own:
			c.telling.put(of.key(), nil) // it is over, whatever the record says
		}
	}
}

// tellOpening tells an opening that was forced here.
func (c *Cooldowns) tellOpening(registration *registry.Registration) {
	now, d := registration.Breaker(), registration.Definition()
	if !now.Forced || now.RetryIn <= 0 {
		return
	}
	s := c.identify(&d)
	s.Why, s.Until = oneline.Short(now.Reason, longestName), time.Now().Add(now.RetryIn)
	c.mu.Lock()
	_, told, has := c.toldOf(&s)
	mine := !has || told.Until.Sub(s.Until).Abs() > sameEnd
	if mine {
		c.openings.own[s.key()] = true
	}
	c.mu.Unlock()
	if mine {
		c.telling.put(s.key(), &s)
	}
}

// tellOpenings tells the openings that are forced here.
func (c *Cooldowns) tellOpenings(reg *registry.Registry) {
	if !c.options.Openings {
		return
	}
	for _, registration := range reg.Registrations() {
		c.tellOpening(registration)
	}
}

// now implements tellable.
func (s *sharedOpening) now() (record any, holds bool) {
	written := *s
	if !s.Reset {
		written.LeftMS = time.Until(s.Until).Milliseconds()
	}
	return written, s.Reset || written.LeftMS > 0
}

// resets implements tellable.
func (s *sharedOpening) resets() bool { return s.Reset }

// readOpening returns the opening that another node tells. A record that is not of its form is left out.
func (c *Cooldowns) readOpening(record Record) (s sharedOpening, ok bool) {
	if record.Deleted || decode(record.Value, &s) != nil || s.Node == c.options.Node || !isWord(s.Node) || !isWord(s.Of) ||
		record.Key != s.key() || !isPlain(s.Service+s.Name+s.Domain+s.Why) {
		return sharedOpening{}, false
	}
	if s.Reset {
		return s, true
	}
	left := min(time.Duration(min(max(s.LeftMS, 0), longestCooldown.Milliseconds()))*time.Millisecond, time.Until(s.Until))
	s.Until = time.Now().Add(left)
	return s, left > 0
}

// applyOpening opens breakers here as another node tells, or resets them, but that of one provider.
func (c *Cooldowns) applyOpening(reg *registry.Registry, s *sharedOpening, except string) {
	was, changed := c.noteOpening(s)
	for _, registration := range reg.Registrations() {
		d := registration.Definition()
		of := c.identify(&d)
		if d.Name == except || !means(s, &of) {
			continue
		}
		switch {
		case !s.Reset:
			c.open(registration, s, changed && s.Of == of.Of)
		case was && registration.Breaker().Forced:
			c.mu.Lock()
			c.openings.ended[title{d.Service, d.Name}] = true
			c.mu.Unlock()
			_ = registration.Reset() // an error says that it has left
		}
	}
}

// noteOpening notes what another node tells. It reports whether it was known, and whether it is another opening than before and
// not only told again.
func (c *Cooldowns) noteOpening(s *sharedOpening) (was, changed bool) {
	key := s.key()
	c.mu.Lock()
	defer c.mu.Unlock()
	before, told := c.openings.told[key]
	own := c.openings.own[key]
	delete(c.openings.own, key)
	delete(c.openings.told, key)
	if !s.Reset {
		for key, told := range c.openings.told {
			if time.Until(told.Until) <= 0 {
				delete(c.openings.told, key)
			}
		}
		if len(c.openings.told) < mostOpenings {
			c.openings.told[key] = *s
		}
	}
	return told || own, own || told && before.Until.Sub(s.Until).Abs() > sameEnd
}

// open forces a breaker open, unless it is already as another node tells. Of several openings the one that ends last counts, and of
// one that is changed the change.
func (*Cooldowns) open(registration *registry.Registration, s *sharedOpening, changed bool) {
	left := time.Until(s.Until)
	now := registration.Breaker()
	longer := left - now.RetryIn
	if left > 0 && (!now.Forced || longer > sameEnd || changed && longer < -sameEnd) {
		_ = registration.ForceOpen(left, "node "+s.Node+": "+s.Why) // an error says that it has left
	}
}
