package config

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/capreg/registry"
	"github.com/capreg/registry/health"
	"github.com/capreg/registry/status"
)

// stateVersion is that of the form of saved states.
const stateVersion = 1

// savedState is the form of a file of states.
type savedState struct {
	Version   int             `json:"version"`
	Saved     time.Time       `json:"saved"`
	Salt      string          `json:"salt"` // of the identities, which depend on secrets
	Providers []providerState `json:"providers"`
}

// providerState is the state of one provider that calls have taught.
type providerState struct {
	Service  string `json:"service"`
	Provider string `json:"provider"`
	// Identity is the same as long as kind and settings are, references resolved.
	Identity string `json:"identity"`
	// OpenUntil is the end of the breaker's open time.
	OpenUntil time.Time `json:"open_until,omitzero"`
	Reason    string    `json:"reason,omitempty"`
	// Cooldown is the one in progress, with its cause.
	Cooldown status.Cooldown `json:"cooldown,omitzero"`
	Cause    string          `json:"cause,omitempty"`
	// Marked is the reason for which the program, or an operator, has marked it unhealthy; empty: neither has. Where
	// there are probes they are asked again instead.
	Marked string `json:"marked,omitempty"`
	// Performance has the lessons of its attempts, with their age.
	Performance status.Performance `json:"performance,omitzero"`
}

// stateOf returns what is to be kept of a provider; false: nothing.
func stateOf(handle *registry.Registration, scrub func(string) string, now time.Time) (p providerState, some bool) {
	info := handle.Info()
	p = providerState{Service: info.Service, Provider: info.Name}
	if info.Breaker.State == status.BreakerOpen && info.Breaker.RetryIn > 0 {
		p.OpenUntil, p.Reason = now.Add(info.Breaker.RetryIn), scrub(info.Breaker.Reason)
	}
	if info.Cooldown.Until.After(now) {
		p.Cooldown, p.Cause = info.Cooldown, "it was cooling down"
		if info.LastError != nil {
			p.Cause = scrub(info.LastError.Text)
		}
	}
	if h := info.Health; h.State == health.Unhealthy && !h.Probed {
		p.Marked = "no reason given"
		if h.Err != nil {
			p.Marked = scrub(h.Err.Error())
		}
	}
	taught := handle.Performance()
	if taught != (status.Performance{At: taught.At}) {
		p.Performance = taught
	}
	return p, p != providerState{Service: p.Service, Provider: p.Provider}
}

// giveTo continues the state on a provider that has just joined. It may have left again, and then needs none.
func (p *providerState) giveTo(handle *registry.Registration, now time.Time) {
	if left := p.OpenUntil.Sub(now); left > 0 {
		_ = handle.ForceOpen(min(left, longestState), p.Reason)
	}
	if c := p.Cooldown; c.Until.After(now) && c.Until.After(handle.Info().Cooldown.Until) {
		if last := now.Add(longestState); c.Until.After(last) {
			c.Until = last
		}
		_ = handle.CoolDown(c, errors.New(p.Cause))
	}
	if p.Marked != "" && !handle.Info().Health.Probed {
		_ = handle.MarkUnhealthy(errors.New(p.Marked))
	}
	_ = handle.ContinueFrom(p.Performance)
}

// longestState bounds what is continued: the clock may have been set back.
const longestState = 24 * time.Hour

// Save writes the state of the providers of the applied document to a file, for [Manager.Restore] in a later process:
// open breakers with the rest of their time, cooldowns, parked ones too, with their causes, of providers without a
// probe the marks of [registry.Registration.MarkUnhealthy], and what attempts have taught strategies, limits of time and
// rotations ([registry.Registration.Performance]). It does not write counts and what probes have found, which a new
// process finds out by itself.
//
// The file is written beside the old one and renamed over it, so that it is whole at every moment; an error leaves
// the old one as it is. It is readable to its owner only, and holds no secret: where a provider's settings have some,
// it has a salted hash of them, by which the state of a key that was changed is dropped. Save blocks on the file system.
func (m *Manager) Save(path string) error {
	salt := make([]byte, 16)
	_, _ = rand.Read(salt) // it never fails
	at, now := m.current(), time.Now()
	saved := savedState{Version: stateVersion, Saved: now, Salt: hex.EncodeToString(salt), Providers: []providerState{}}
	for _, handle := range m.registry.Registrations() {
		d := handle.Definition()
		s := at.by[identity{d.Service, d.Name}]
		if s == nil {
			continue
		}
		if p, some := stateOf(handle, at.secrets.scrub, now); some {
			p.Identity = s.hash(salt)
			saved.Providers = append(saved.Providers, p)
		}
	}
	text, err := json.MarshalIndent(saved, "", "  ")
	if err == nil {
		err = writeWhole(path, append(text, '\n'))
	}
	if err != nil {
		return fmt.Errorf("config: the state is not saved: %w", err)
	}
	return nil
}

// hash returns the identity of kind and settings, which tells nothing of them.
func (s *spec) hash(salt []byte) string {
	mac := hmac.New(sha256.New, salt)
	mac.Write(s.fingerprint[:])
	return hex.EncodeToString(mac.Sum(nil))
}

// writeWhole writes a file that is whole at every moment.
func writeWhole(path string, text []byte) (err error) {
	file, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(file.Name()))
		}
	}()
	_, err = file.Write(text)
	if err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return err
	}
	return os.Rename(file.Name(), path)
}

// Restored tells what was read of a file of states.
type Restored struct {
	// Age is the time since it was saved.
	Age time.Duration
	// Providers is the number of providers that it has a state of.
	Providers int
}

// Restore reads a file that [Manager.Save] has written. The state of a provider is continued when a document with it
// is applied, right after it has joined, and only where its kind and settings are as they were. States whose time is
// over are dropped; what attempts have taught fades with its age and is dropped after an hour, as
// [registry.Registration.ContinueFrom] says.
//
// The error matches [os.ErrNotExist] where there is no file yet, and otherwise says what is wrong with it; nothing is
// restored then. Call Restore before the first document is applied.
func (m *Manager) Restore(path string) (Restored, error) {
	text, err := os.ReadFile(path) //nolint:gosec // the operator names it
	if err != nil {
		return Restored{}, err
	}
	var saved savedState
	err = json.Unmarshal(text, &saved)
	if err == nil && saved.Version != stateVersion {
		err = fmt.Errorf("its version is %d: want %d", saved.Version, stateVersion)
	}
	var salt []byte
	if err == nil {
		salt, err = hex.DecodeString(saved.Salt)
	}
	if err != nil {
		return Restored{}, fmt.Errorf("config: %s is no state that was saved: %w: %w", path, registry.ErrInvalid, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.salt, m.restored = salt, make(map[identity]providerState)
	for _, p := range saved.Providers {
		m.restored[identity{p.Service, p.Provider}] = p
	}
	return Restored{max(time.Since(saved.Saved), 0), len(saved.Providers)}, nil
}

// last is a provider just before it is replaced by one of the same kind and settings.
type last struct {
	handle *registry.Registration
	state  providerState
}

// lastBefore returns those that are about to be replaced.
func (p *planned) lastBefore(r *registry.Registry) map[identity]last {
	before := make(map[identity]last)
	for i := range p.plan.Changes {
		c := &p.plan.Changes[i]
		id := identity{c.Service, c.Provider}
		if c.Action != Replace || p.next.by[id].fingerprint != p.old.by[id].fingerprint {
			continue
		}
		if handle, there := r.Provider(id.service, id.name); there {
			state, _ := stateOf(handle, p.next.secrets.scrub, time.Now())
			before[id] = last{handle, state}
		}
	}
	return before
}

// keep returns the states that providers of a plan continue once they have joined: that of an earlier process, or
// that of the provider of the same kind and settings that is replaced.
func (m *Manager) keep(p *planned, before map[identity]last) map[identity]providerState {
	kept := make(map[identity]providerState)
	m.mu.Lock()
	salt, restored := m.salt, m.restored
	m.mu.Unlock()
	for i := range p.plan.Changes {
		c := &p.plan.Changes[i]
		if c.Action != Add || len(restored) == 0 {
			continue
		}
		id := identity{c.Service, c.Provider}
		if state, there := restored[id]; there && hmac.Equal([]byte(state.Identity), []byte(p.next.by[id].hash(salt))) {
			kept[id] = state
		}
	}
	for id, replaced := range before {
		kept[id] = replaced.after(p.next.secrets.scrub)
	}
	return kept
}

// after returns the state of a provider that was replaced: that of its last moment, and what has ended with it: the
// cooldown of its domain, as the key might be a new one, and its mark.
func (l last) after(scrub func(string) string) providerState {
	state, _ := stateOf(l.handle, scrub, time.Now())
	if state.Cooldown.Until.IsZero() {
		state.Cooldown, state.Cause = l.state.Cooldown, l.state.Cause
	}
	state.Marked = l.state.Marked
	return state
}
