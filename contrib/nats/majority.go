package registrynats

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// A leader that is cut off from the others finds that out ten to twenty seconds later, and answers until then with what it has, which
// gets old: the others elect another leader when they have not heard of it for four seconds at the earliest. So its answer is the
// last word only where a majority has answered it more recently than that.
const heardWithin = 3 * time.Second

var errMinority = errors.New("the leader of the bucket has not heard from a majority of the servers that keep it")

// confirm returns an error unless the leader of the bucket is one that leads a majority.
func (s *Store) confirm(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, longestAsk)
	defer cancel()
	for alone := false; ; alone = true {
		stream, err := s.js.Stream(ctx, "KV_"+s.options.Bucket)
		switch {
		case err != nil && alone:
			return errMinority
		case err != nil:
			return err
		}
		if hasMajority(stream.CachedInfo().Cluster) {
			return nil
		}
		select { // it may have begun to lead a moment ago
		case <-time.After(askAgain):
		case <-ctx.Done():
			return errMinority
		}
	}
}

// hasMajority reports whether the leader has heard from a majority, itself included. A bucket on one server has no others.
func hasMajority(c *jetstream.ClusterInfo) bool {
	if c == nil {
		return true
	}
	heard := 1
	for _, replica := range c.Replicas {
		if replica.Active > 0 && replica.Active < heardWithin { // zero: never
			heard++
		}
	}
	return c.Leader != "" && 2*heard > len(c.Replicas)+1
}
