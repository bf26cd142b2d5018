// Package top is a live view of a running program's services and providers for terminals: what needs attention first.
//
// Model is the view as a state machine of Bubble Tea: it is told what happened by messages and draws itself as text,
// so it needs no terminal. Run connects it with one. Table is the same as plain text.
package top

import (
	"context"
	"encoding/json"
	"time"
)

// Snapshot is a program at one moment, in the JSON form of the control API.
type Snapshot struct {
	State    string    `json:"overall_health"`
	Reason   string    `json:"reason"`
	Services []Service `json:"services"`
}

// Service is a service with its providers.
type Service struct {
	Name      string     `json:"name"`
	State     string     `json:"state"`
	Reason    string     `json:"reason"`
	Eligible  int        `json:"eligible"`
	Providers []Provider `json:"providers"`
}

// Provider is a provider of a service.
type Provider struct {
	Service    string          `json:"service"`
	Name       string          `json:"provider"`
	Group      int             `json:"priority_group"`
	Priority   json.RawMessage `json:"priority"`
	Strategy   string          `json:"strategy"`
	Weight     float64         `json:"weight"`
	State      string          `json:"state"`
	StateSince time.Time       `json:"state_since"`
	Eligible   bool            `json:"eligible"`
	Code       string          `json:"code"`
	Reason     string          `json:"reason"`
	Breaker    Breaker         `json:"circuit_breaker"`
	Cooldown   *Cooldown       `json:"cooldown"`
	InFlight   uint64          `json:"in_flight"`
	Places     int             `json:"places_taken"`
	MaxPlaces  int             `json:"max_concurrent"`
	Queued     int             `json:"queued"`
	MaxQueue   int             `json:"max_queue"`
	Attempts   uint64          `json:"attempts"`
	Failures   uint64          `json:"failures"`
	LastMinute Minute          `json:"last_minute"`
	LastError  *LastError      `json:"last_error"`
}

// Breaker is the state of a breaker. NextTrial is zero where it is not open.
type Breaker struct {
	State     string    `json:"state"`
	Since     time.Time `json:"since"`
	Reason    string    `json:"reason"`
	Forced    bool      `json:"forced"`
	NextTrial time.Time `json:"next_trial"`
	Failures  int       `json:"failures"`
	Threshold int       `json:"failure_threshold"`
}

// Cooldown is a time for which a provider is left alone.
type Cooldown struct {
	Until  time.Time `json:"until"`
	Parked bool      `json:"parked"`
}

// Minute holds the measurements of the last minute: attempts a second, the share of errors, and quantiles of durations.
type Minute struct {
	Rate   float64 `json:"rate"`
	Errors float64 `json:"errors"`
	P50    string  `json:"p50"`
	P99    string  `json:"p99"`
}

// LastError is the latest error of a provider.
type LastError struct {
	Text  string    `json:"text"`
	Class string    `json:"class"`
	Time  time.Time `json:"time"`
}

// Verb names an action on a service or a provider.
type Verb string

// The verbs, as the command line has them.
const (
	Reset   Verb = "reset"
	Drain   Verb = "drain"
	Undrain Verb = "undrain"
)

// Change is something that is done to a provider, or with an empty Provider (Reset only) to all of a service.
type Change struct {
	Verb     Verb
	Service  string
	Provider string
}

// Program is the running program. Its methods block until it has answered or ctx has ended, and are safe for concurrent use.
type Program interface {
	// Snapshot reads the program as it is now.
	Snapshot(ctx context.Context) (*Snapshot, error)
	// Follow calls connected when its events are followed, changed after each of them, and returns when the
	// connection ends.
	Follow(ctx context.Context, connected, changed func()) error
	// Explain says in lines of text which provider of a service is given a call now, and why not the others.
	Explain(ctx context.Context, service string) (string, error)
	// Fleet reads what it knows of other processes.
	Fleet(ctx context.Context) (*Fleet, error)
	// Change makes a change, and says in a line what was done.
	Change(ctx context.Context, change Change) (string, error)
}
