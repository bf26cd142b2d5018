package selection

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/capreg/registry/internal/check"
	"github.com/capreg/registry/internal/choice"
	"github.com/capreg/registry/internal/jsonform"
	"github.com/capreg/registry/internal/version"
	"github.com/capreg/registry/reason"
)

// ErrUnmet is a provider that does not meet the requirements of a query.
var ErrUnmet = errors.New("requirement not met")

// Request is the kind of query of a pick, as selectors see it. It is shared and must not be
// changed.
type Request struct {
	// Service is the requested service, and Handler the handler of the query.
	Service, Handler string
	// Require are the capabilities that every candidate has.
	Require []string
	// Prefer are preferred words; see [Candidate.Fit].
	Prefer []string
	// Near is the region of the caller; see [Candidate.Proximity].
	Near string
	// Where are the requirements that every candidate meets.
	Where Requirements
}

// Requirements filter the candidates of a query before any strategy. The zero value excludes no
// provider.
type Requirements struct {
	// MaxLatency excludes providers that have lately taken longer; see [Candidate.Latency]. A
	// provider without an answer so far is included, and so is one whose measured latency has
	// lost enough of its weight, so that it gets another chance.
	MaxLatency time.Duration `json:"max_latency,omitempty"`
	// MaxCost excludes providers that cost more. A provider without a cost costs nothing.
	MaxCost float64 `json:"max_cost,omitempty"`
	// MinVersion excludes older providers, and those without a version. The order is that of Semantic Versioning 2.0.0
	// for any number of numbers: a leading v does not matter, missing numbers are 0, and everything after a + is ignored.
	// A version with a - is older than the same without it. Parts that are no number come after numbers, in the order
	// of their bytes.
	MinVersion string `json:"min_version,omitempty"`
	// Tags are the tags that a provider must have, all of them.
	Tags []string `json:"tags,omitempty"`
	// Regions are the accepted regions. None: any region.
	Regions []string `json:"regions,omitempty"`
	// Exclude are the names of excluded providers.
	Exclude []string `json:"exclude,omitempty"`
}

// MarshalJSON returns the fields by their tags, with durations as text such as "1m30s".
func (r Requirements) MarshalJSON() ([]byte, error) { return jsonform.Marshal(r) }

// UnmarshalJSON reads what MarshalJSON writes. Its errors name field, value and bound, match registry.ErrInvalid and change nothing.
func (r *Requirements) UnmarshalJSON(text []byte) error { return jsonform.Unmarshal(text, r) }

// IsZero reports whether there are no requirements.
func (r Requirements) IsZero() bool {
	return r.MaxLatency == 0 && r.MaxCost == 0 && r.MinVersion == "" && len(r.Tags) == 0 && len(r.Regions) == 0 && len(r.Exclude) == 0
}

// Clone returns a deep copy.
func (r Requirements) Clone() Requirements {
	r.Tags, r.Regions, r.Exclude = slices.Clone(r.Tags), slices.Clone(r.Regions), slices.Clone(r.Exclude)
	return r
}

// Unmet returns the first requirement, other than the latency, that the profile does not meet:
// a stable code, and the same in words. Both are empty when it meets all.
func (r Requirements) Unmet(p *choice.Profile) (code reason.Code, words string) {
	if r.IsZero() {
		return "", ""
	}
	if r.MaxCost > 0 && p.Cost > r.MaxCost {
		return reason.TooExpensive, fmt.Sprintf("costs %g, more than %g", p.Cost, r.MaxCost)
	}
	if r.MinVersion != "" && (p.Version == "" || version.Compare(p.Version, r.MinVersion) < 0) {
		return reason.TooOld, fmt.Sprintf("version %q, older than %q", p.Version, r.MinVersion)
	}
	for _, tag := range r.Tags {
		if !slices.Contains(p.Tags, tag) {
			return reason.TagMissing, fmt.Sprintf("tag %q missing", tag)
		}
	}
	if len(r.Regions) > 0 && !slices.Contains(r.Regions, p.Region) {
		return reason.OtherRegion, fmt.Sprintf("in region %q", p.Region)
	}
	if slices.Contains(r.Exclude, p.Name) {
		return reason.Excluded, "excluded by the query"
	}
	return "", ""
}

// String returns the requirements in words; empty for the zero value.
func (r Requirements) String() string {
	var parts []string
	add := func(set bool, format string, value any) {
		if set {
			parts = append(parts, fmt.Sprintf(format, value))
		}
	}
	add(r.MaxLatency > 0, "within %v", r.MaxLatency)
	add(r.MaxCost > 0, "costing at most %g", r.MaxCost)
	add(r.MinVersion != "", "from version %s", r.MinVersion)
	add(len(r.Tags) > 0, "tagged %s", strings.Join(r.Tags, ", "))
	add(len(r.Regions) > 0, "in %s", strings.Join(r.Regions, " or "))
	add(len(r.Exclude) > 0, "without %s", strings.Join(r.Exclude, ", "))
	return strings.Join(parts, ", ")
}

// proximityOf returns how near two regions are; see [Candidate.Proximity].
func proximityOf(near, region string) float64 {
	switch {
	case near == "" || near == region:
		return 1
	case region == "":
		return 0.5
	}
	labels, others := strings.Split(near, "-"), strings.Split(region, "-")
	same := 0
	for same < min(len(labels), len(others)) && labels[same] == others[same] {
		same++
	}
	return float64(same) / float64(len(labels))
}

// keyOfContext is the context key of the caller's sticky key.
type keyOfContext struct{}

// WithKey returns a context whose look-ups and calls stick to one provider by that key, where
// the strategy heeds it: a session, a user, a prompt. A key in the query takes precedence.
func WithKey(ctx context.Context, key string) context.Context {
	return context.WithValue(ctx, keyOfContext{}, key)
}

// KeyFrom returns the key that [WithKey] put into the context, or "".
func KeyFrom(ctx context.Context) string {
	if ctx == nil {
		return ""
	}
	key, _ := ctx.Value(keyOfContext{}).(string)
	return key
}

// Check returns the field that is out of bounds, its value and the bound; an empty field when
// all are valid.
func (r Requirements) Check() (field string, value any, bound string) {
	switch {
	case r.MaxLatency < 0:
		return "MaxLatency", r.MaxLatency, "0 (any) or more"
	case !(r.MaxCost >= 0) || math.IsInf(r.MaxCost, 0):
		return "MaxCost", r.MaxCost, "0 (any) or more"
	}
	if v := check.Line("MinVersion", r.MinVersion); v != nil {
		return v.Field, r.MinVersion, v.Bound
	}
	return "", nil, ""
}
