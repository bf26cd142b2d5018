package config

import (
	"crypto/sha256"

	"go.yaml.in/yaml/v3"

	"github.com/capreg/registry"
	"github.com/capreg/registry/health"
	"github.com/capreg/registry/selection"
)

// Document is a configuration: all that it is to provide of each service that it names. Fields that are left out
// have the defaults of the registry. A document that was read is not to be changed.
type Document struct {
	// Include names further files, whose services, domains, queries and requirements are added. A path is relative
	// to the file that names it. Only [Load] reads them.
	Include []string `json:"include,omitempty"`
	// Required lists the services that must have a provider. A document without one of them is refused.
	Required []string `json:"required,omitempty"`
	// Domains are the failure domains, by name.
	Domains map[string]Domain `json:"domains,omitempty"`
	// Services are the services, by name.
	Services map[string]Service `json:"services,omitempty"`
	// Components are those components of the program whose start the document arranges, by name; see [Document.Arrange].
	Components map[string]Component `json:"components,omitempty"`
	// Queries are kinds of request, by a name of your choice, for which a plan says what is picked before and after.
	Queries map[string]Query `json:"queries,omitempty"`

	places places
	digest [sha256.Size]byte // of the texts that it was read from; zero: of none
}

// same reports whether two documents were read from the same texts, or are one.
func (d *Document) same(other *Document) bool {
	return d == other || d.digest == other.digest && d.digest != [sha256.Size]byte{}
}

// Domain is a failure domain, whose providers share limits and cooldown: a key, a host, a GPU.
type Domain struct {
	// Limits bounds the use of the domain by all of its providers together. Default: none.
	Limits registry.LimitPolicy `json:"limits,omitzero"`
}

// Service holds the providers of one service and their groups.
type Service struct {
	// Selection is the selection policy of the service. Default: that of the registry.
	Selection *selection.Policy `json:"selection,omitempty"`
	// Groups are the properties of priority groups, by number. They hold for the group of that number of each handler.
	Groups map[int]Group `json:"groups,omitempty"`
	// Providers are the providers. Among equals of a group the one that was registered first comes first: those that
	// are new together are registered in the order of the document.
	Providers []Provider `json:"providers,omitempty"`
}

// Group is a priority group of a service.
type Group struct {
	// Strategy picks among the members. Default: FALLBACK.
	Strategy selection.Strategy `json:"strategy,omitzero"`
}

// Provider is one provider of a service. Its fields have the meaning and the defaults of those of
// [registry.Provider]; strategy and limits are properties of the group and of the domain.
type Provider struct {
	// Name identifies the provider. It is required.
	Name string `json:"name" jsonschema:"required"`
	// Kind names the factory that makes the instance; see [Bind]. It is required.
	Kind string `json:"kind" jsonschema:"required"`
	// Settings are the input of the factory, of its own type. Only here texts may refer to the environment and to
	// files, as in "${env:NAME}".
	Settings Settings `json:"settings,omitzero"`

	Handler      string            `json:"handler,omitempty"`
	Capabilities []string          `json:"capabilities,omitempty"`
	Priority     registry.Priority `json:"priority,omitzero"`
	Group        int               `json:"group,omitempty"`
	Weight       float64           `json:"weight,omitempty"`
	NoTraffic    bool              `json:"no_traffic,omitempty"`
	Mock         bool              `json:"mock,omitempty"`
	LastResort   bool              `json:"last_resort,omitempty"`
	Window       int               `json:"window,omitempty"`
	Tags         []string          `json:"tags,omitempty"`
	Region       string            `json:"region,omitempty"`
	Cost         float64           `json:"cost,omitempty"`
	Version      string            `json:"version,omitempty"`
	Description  string            `json:"description,omitempty"`
	Endpoint     string            `json:"endpoint,omitempty"`
	Endpoints    map[string]string `json:"endpoints,omitempty"`
	Requires     []string          `json:"requires,omitempty"`
	Metadata     map[string]string `json:"metadata,omitempty"`
	Team         string            `json:"team,omitempty"`

	Documentation    string   `json:"documentation,omitempty"`
	ExpectedResponse Duration `json:"expected_response_time,omitzero"`

	// Domain names one of the document's domains. Default: a domain of its own.
	Domain string `json:"domain,omitempty"`
	// Limits bounds the use of a provider that names no domain.
	Limits registry.LimitPolicy `json:"limits,omitzero"`
	// AttemptTimeout bounds one attempt; NoTimeout leaves that to the caller.
	AttemptTimeout Duration               `json:"attempt_timeout,omitzero"`
	NoTimeout      bool                   `json:"no_timeout,omitempty"`
	Retry          registry.RetryPolicy   `json:"retry,omitzero"`
	Breaker        registry.BreakerPolicy `json:"breaker,omitzero"`
	Health         health.Policy          `json:"health,omitzero"`
	// ProveWithin bounds the time in which a new instance proves itself before it takes over.
	ProveWithin Duration `json:"prove_within,omitzero"`
	// AtOnce lets it take part without proving itself: its instance is made at first need.
	AtOnce bool `json:"at_once,omitempty"`
}

// Query is a kind of request to one service.
type Query struct {
	// Service is the name of the service. It is required.
	Service string `json:"service" jsonschema:"required"`
	registry.Query
}

// Settings are the settings of one provider, as they were written: with their references, not with the values.
type Settings struct {
	node *yaml.Node
	file string
}

// SettingsOf returns settings with the value's JSON form, for documents that are made by a program. A value without
// one is an error when the document is planned.
func SettingsOf(value any) Settings {
	var n yaml.Node
	text, err := jsonOf(value)
	if err == nil {
		err = yaml.Unmarshal(text, &n)
	}
	if err != nil || len(n.Content) == 0 {
		return Settings{node: &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null"}}
	}
	plain(n.Content[0])
	return Settings{node: n.Content[0]}
}

// IsZero reports whether there are no settings.
func (s Settings) IsZero() bool { return s.node == nil }

// MarshalJSON returns the settings as they were written.
func (s Settings) MarshalJSON() ([]byte, error) {
	if s.node == nil {
		return []byte("{}"), nil
	}
	var value any
	if err := s.node.Decode(&value); err != nil {
		return nil, err
	}
	return jsonOf(value)
}

// plain takes out what a node shows of the text it was read from.
func plain(n *yaml.Node) {
	n.Line, n.Column = 0, 0
	for _, child := range n.Content {
		plain(child)
	}
}
