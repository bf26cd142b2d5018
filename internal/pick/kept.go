package pick

import (
	"math/rand/v2"
	"sync/atomic"

	"github.com/capreg/registry/internal/choice"
)

// Kept holds what outlives the plans of one query, so that a change of membership restarts nothing: the rotations, the
// measurements of members and the number of lookups that may spill over. The zero value is that of a new query. Its
// owner guards it.
type Kept[M comparable] struct {
	rotations map[TierKey]*Rotation
	tracks    map[M]*choice.Track
	lookups   *atomic.Uint64
}

// About describes the members of plans.
type About[M any] struct {
	Rank    func(M) Rank
	Group   func(M) *Group
	Profile func(M) choice.Profile
	Vitals  func(M) *choice.Vitals // for plans that measure
}

// Init makes p a plan of the candidates, which are in the order of their ranks, with what is kept for them; what is kept
// for others is dropped. Tiers and lookups of the configuration are filled in. hooks gets the groups of the tiers.
func (k *Kept[M]) Init(p *Plan, candidates []M, about About[M], c Config, hooks func(groups []*Group) Hooks) {
	if c.Policy.SpillOver > 0 && k.lookups == nil {
		k.lookups = &atomic.Uint64{}
		if c.Policy.Seed == 0 {
			k.lookups.Store(rand.Uint64()) //nolint:gosec // shares, not secrets
		}
	}
	s := &source[M]{About: about, kept: k, candidates: candidates, seed: c.Policy.Seed}
	s.rotations, s.tracks = make(map[TierKey]*Rotation), make(map[M]*choice.Track)
	s.cuts = CutTiers(len(candidates), func(i int) TierKey { return about.Rank(candidates[i]).Tier })
	groups := make([]*Group, len(s.cuts))
	for i, cut := range s.cuts {
		g := about.Group(candidates[cut.First])
		groups[i] = g
		c.Tiers = append(c.Tiers, Tier{Size: cut.Size, Strategy: g.Strategy, Scope: cut.Scope, Faults: &g.Faults})
	}
	c.Lookups, c.Hooks, s.tiers = k.lookups, hooks(groups), c.Tiers
	p.Init(c, s)
	k.rotations, k.tracks = s.rotations, s.tracks
}

// source is the [Source] of a plan, and collects what outlives it.
type source[M comparable] struct {
	About[M]

	kept       *Kept[M]
	candidates []M
	cuts       []Cut
	tiers      []Tier
	seed       uint64
	rotations  map[TierKey]*Rotation
	tracks     map[M]*choice.Track
}

// OrderKey implements [Source].
func (s *source[M]) OrderKey(candidate int) uint64 { return s.Rank(s.candidates[candidate]).Key() }

// Rotation implements [Source] with the rotation of the plan before.
func (s *source[M]) Rotation(tier int) *Rotation {
	key := s.cuts[tier].Key
	r := RotationFor(s.kept.rotations[key], s.tiers[tier].Strategy, s.seed)
	s.Group(s.candidates[s.cuts[tier].First]).Had.Begin(r)
	s.rotations[key] = r
	return r
}

// Member implements [Source].
func (s *source[M]) Member(candidate int, measured bool) choice.Member {
	of := s.candidates[candidate]
	m := choice.Member{Profile: s.Profile(of)}
	if measured {
		track := s.kept.tracks[of]
		if track == nil {
			track = &choice.Track{}
		}
		s.tracks[of] = track
		m.Vitals, m.Context = s.Vitals(of), track
	}
	return m
}
