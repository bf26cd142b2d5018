package config

import (
	"fmt"
	"time"
)

// EventKind is a kind of event of a manager.
type EventKind string

// The kinds of event.
const (
	// Applied is a document that was applied; one that changes nothing too.
	Applied EventKind = "applied"
	// Refused is a document that was not applied, or could not be read. The last one stays in force.
	Refused EventKind = "refused"
	// Reverted is a document that was applied and taken back, as the error rate had grown.
	Reverted EventKind = "reverted"
)

// Event is a document that was applied or refused.
type Event struct {
	Kind EventKind `json:"kind"`
	// Time is the moment at which that was known.
	Time time.Time `json:"time"`
	// Source names the source of the document; empty for one that the program applied by itself.
	Source string `json:"source,omitempty"`
	// Plan lists the changes; nil where it was refused before it was planned.
	Plan *Plan `json:"plan,omitempty"`
	// Err is the cause of a refusal, or of taking it back, an [Error] where the document is wrong.
	Err error `json:"-"`
}

// String returns the event in one line.
func (e Event) String() string {
	text := "config: " + string(e.Kind)
	if e.Source != "" {
		text += " " + e.Source
	}
	if e.Err != nil {
		return text + ": " + e.Err.Error()
	}
	if e.Plan != nil {
		return text + fmt.Sprintf(": %d added, %d altered, %d replaced, %d removed, %d kept",
			e.Plan.Count(Add), e.Plan.Count(Alter), e.Plan.Count(Replace), e.Plan.Count(Remove), e.Plan.Count(Keep))
	}
	return text
}

// tell calls the listener. Caller has the turn, so that it is called once at a time, in the order of the changes.
func (m *Manager) tell(e Event) {
	if m.options.Listen == nil {
		return
	}
	e.Time = time.Now()
	defer func() { _ = recover() }() // a listener's panic is not the document's
	m.options.Listen(e)
}
