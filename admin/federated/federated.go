// Package federated lets the control API and the console show the fleet of package federation: which process announces
// what, and which one suspects which.
//
//	handler, err := admin.New(reg, admin.Options{Fleet: federated.By(source, announcer), …})
package federated

import (
	"time"

	"github.com/capreg/registry/admin"
	"github.com/capreg/registry/federation"
)

// By returns what a source sees of other processes and what an announcer tells them, for [admin.Options]. Either may be
// nil. It is safe for concurrent use.
func By(source *federation.Source, announcer *federation.Announcer) admin.Fleet {
	return fleet{source, announcer}
}

type fleet struct {
	source    *federation.Source
	announcer *federation.Announcer
}

// View returns what is known now.
func (f fleet) View() admin.FleetView {
	now := time.Now()
	v := admin.FleetView{Nodes: []admin.FleetNode{}}
	if f.announcer != nil {
		v.Announcement = announcementOf(f.announcer.Announcement(), now)
		v.Reachable, v.Cause = v.Announcement.Cause == "", v.Announcement.Cause // where no source says it
	}
	if f.source == nil {
		return v
	}
	seen := f.source.Fleet()
	v.Store, v.Reachable, v.Cause, v.Refused, v.Beyond = seen.Store, seen.Reachable, seen.Cause, seen.Refused, seen.Beyond
	for i := range seen.Nodes {
		n := nodeOf(&seen.Nodes[i], now)
		n.This = v.Announcement != nil && v.Announcement.Node == n.Name
		v.Nodes = append(v.Nodes, n)
	}
	return v
}

func announcementOf(a federation.Announcement, now time.Time) *admin.Announcement {
	return &admin.Announcement{
		Node: a.Node, State: string(a.State), Incarnation: a.Incarnation, Entries: a.Entries, Pending: a.Pending,
		Renewed: before(now, a.Silent), Cause: a.Cause, Refused: a.Refused,
	}
}

func nodeOf(seen *federation.Node, now time.Time) admin.FleetNode {
	n := admin.FleetNode{
		Name: seen.Name, State: string(seen.State), Suspect: seen.State == federation.NodeSuspect, Incarnation: seen.Incarnation,
		Generation: seen.Generation, Since: before(now, seen.InState), Heard: before(now, seen.Silent), Reason: seen.Reason,
		SuspectedBy: seen.SuspectedBy, Offers: make([]admin.FleetOffer, len(seen.Offers)),
	}
	if seen.TTL > 0 {
		n.TTL = seen.TTL.String()
	}
	for i, o := range seen.Offers {
		n.Offers[i] = admin.FleetOffer{
			Service: o.Service, Name: o.Name, Kind: o.Kind, Address: o.Address, Visible: o.Visible, As: o.As, Reason: o.Reason,
		}
	}
	return n
}

// before returns the time that long ago; zero for none.
func before(now time.Time, ago time.Duration) time.Time {
	if ago <= 0 {
		return time.Time{}
	}
	return now.Add(-ago)
}
