package federation

import "context"

// List holds all that a [Listing] lists: the providers of one node, all of them.
type List struct {
	// Node names what is listed: a peer, or the listing itself.
	Node string `json:"node"`
	// Incarnation tells the runs of a peer apart. It is any word, and may be left out.
	Incarnation string `json:"incarnation,omitempty"`
	// Leaving reports a peer that wants no new calls.
	Leaving bool    `json:"leaving,omitempty"`
	Entries []Entry `json:"entries"`
}

// Listing is a place that lists providers, without leases: see [HTTPPeer] and [DNS].
type Listing interface {
	// String names the listing in one line. It is the node of its providers until a list names another one.
	String() string
	// Follow tells each list that differs from the last one, in one goroutine, until ctx ends, or until the listing
	// cannot be read: then it returns the error, and is called again after a while. Within an error the last
	// list stays in force.
	Follow(ctx context.Context, tell func(List)) error
}
