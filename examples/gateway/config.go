package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/capreg/registry/selection"
)

// Config configures the gateway. The zero value of each field is its default.
type Config struct {
	// Clients maps the name of each client to the environment variable that
	// holds its key. Without clients every request is admitted.
	Clients map[string]string `json:"clients"`
	// Upstreams are the servers that answer, by name.
	Upstreams map[string]Upstream `json:"upstreams"`
	// Routes map models to upstreams.
	Routes []Route `json:"routes"`
	// Timeouts bound the work for one request.
	Timeouts Timeouts `json:"timeouts"`
	// WholeAnswers holds streams back until they are complete, so that one that
	// is cut is answered by another upstream. Each route can ask for it as well.
	WholeAnswers bool `json:"whole_answers"`
}

// Upstream is a server with an API like OpenAI's.
type Upstream struct {
	// URL is the base to which "/chat/completions" is appended; it often ends in "/v1".
	URL string `json:"url"`
	// Key is the environment variable that holds the key. None: no key is sent.
	Key string `json:"key_variable"`
	// Models maps the names that clients use to those of the upstream. Without
	// it names are passed on as they are; with it the upstream has no others.
	Models map[string]string `json:"models"`
	// Concurrency bounds the requests in progress; more wait for a slot, here or
	// at another upstream. Zero: any number.
	Concurrency int `json:"concurrency"`
}

// Route maps a model to the upstreams that answer for it.
type Route struct {
	// Model is a name, or the beginning of names and a star: "gpt-*". The most
	// exact route is taken.
	Model string `json:"model"`
	// Groups are tried one after another.
	Groups []Group `json:"groups"`
	// WholeAnswers is that of [Config], for this route.
	WholeAnswers bool `json:"whole_answers"`
}

// Group is some upstreams of the same rank.
type Group struct {
	Upstreams []string           `json:"upstreams"`
	Strategy  selection.Strategy `json:"strategy"`
}

// Timeouts bound a request; see the defaults for each.
type Timeouts struct {
	Attempt    Duration `json:"attempt"`     // a plain answer of one upstream: 60 s
	FirstToken Duration `json:"first_token"` // of a stream: 15 s
	Stall      Duration `json:"stall"`       // between two tokens: 30 s
	Total      Duration `json:"total"`       // everything: 5 min
	Comment    Duration `json:"comment"`     // between two comments to a client, while there is nothing else to send: 20 s
}

// Duration is a time.Duration written as "1m30s".
type Duration time.Duration

// UnmarshalText reads a duration that is positive.
func (d *Duration) UnmarshalText(text []byte) error {
	parsed, err := time.ParseDuration(string(text))
	if err != nil || parsed <= 0 {
		return fmt.Errorf("a duration is %q: want one such as \"1m30s\", more than 0", text)
	}
	*d = Duration(parsed)
	return nil
}

func or(d Duration, usual time.Duration) time.Duration { return cmp.Or(time.Duration(d), usual) }

// readConfig reads the configuration; an unknown field is an error.
func readConfig(from io.Reader) (Config, error) {
	var config Config
	decoder := json.NewDecoder(from)
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&config); err != nil {
		return Config{}, fmt.Errorf("configuration: %w", err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return Config{}, errors.New("configuration: want one JSON object and nothing behind it")
	}
	return config, config.check()
}

func readConfigFile(path string) (Config, error) {
	text, err := os.ReadFile(path) //nolint:gosec // the operator names it
	if err != nil {
		return Config{}, err
	}
	return readConfig(bytes.NewReader(text))
}

// check finds names that do not exist, which the registry would not notice.
func (c Config) check() error {
	var found problems
	c.checkClients(&found)
	for _, name := range slices.Sorted(maps.Keys(c.Upstreams)) {
		c.Upstreams[name].check("upstreams."+name, &found)
	}
	if len(c.Routes) == 0 {
		found.wrong("routes", "[]", "at least one")
	}
	seen := make(map[string]bool)
	for i, route := range c.Routes {
		field := fmt.Sprintf("routes[%d]", i)
		if seen[route.Model] {
			found.wrong(field+".model", route.Model, "one route for each")
		}
		seen[route.Model] = true
		c.checkRoute(field, route, &found)
	}
	return errors.Join(found...)
}

// problems are the errors of a configuration.
type problems []error

// add adds the error of a field.
func (p *problems) add(format string, args ...any) {
	*p = append(*p, fmt.Errorf("configuration: "+format, args...))
}

// wrong adds the error of a field whose value is not the wanted one.
func (p *problems) wrong(field string, value any, want string) {
	p.add("%s is %q: want %s", field, fmt.Sprint(value), want)
}

func (c Config) checkClients(found *problems) {
	keys := make(map[string]string)
	for _, name := range slices.Sorted(maps.Keys(c.Clients)) {
		key := os.Getenv(c.Clients[name])
		if key == "" {
			found.add("clients.%s names no environment variable that is set", name)
		} else if other, taken := keys[key]; taken {
			found.add("clients.%s has the same key as clients.%s", name, other)
		}
		keys[key] = name
	}
}

func (u Upstream) check(field string, found *problems) {
	if at, err := url.Parse(u.URL); err != nil || at.Host == "" || at.Scheme != "http" && at.Scheme != "https" {
		found.wrong(field+".url", u.URL, "an absolute URL of http or https")
	}
	for model, known := range u.Models {
		if model == "" || known == "" || strings.HasSuffix(model, "*") {
			found.wrong(field+".models", model+": "+known, "two names")
		}
	}
	if u.Key != "" && os.Getenv(u.Key) == "" {
		// Its value is not shown: it may be the key itself.
		found.add("%s.key_variable names no environment variable that is set", field)
	}
	if u.Concurrency < 0 {
		found.wrong(field+".concurrency", u.Concurrency, "0 (any number) or more")
	}
}

func (c Config) checkRoute(field string, route Route, found *problems) {
	if route.Model == "" || strings.Contains(strings.TrimSuffix(route.Model, "*"), "*") {
		found.wrong(field+".model", route.Model, "a name, or the beginning of one and a star")
	}
	if len(route.Groups) == 0 {
		found.wrong(field+".groups", "[]", "at least one")
	}
	if !c.serves(route) {
		found.wrong(field+".model", route.Model, "one that an upstream of the route has")
	}
	named := make(map[string]bool)
	for j, group := range route.Groups {
		field := fmt.Sprintf("%s.groups[%d].upstreams", field, j)
		if len(group.Upstreams) == 0 {
			found.wrong(field, "[]", "at least one")
		}
		for _, name := range group.Upstreams {
			if _, known := c.Upstreams[name]; !known || named[name] {
				found.wrong(field, name, "one of the upstreams, once")
			}
			named[name] = true
		}
	}
}

// expanded returns the routes with a route of its own for each model that an
// upstream maps: other upstreams of the route may not have it. What remains with
// a star is for the names that are passed on as they are.
func (c Config) expanded() []Route {
	var all []Route
	routed := make(map[string]bool)
	for _, route := range c.Routes {
		routed[route.Model] = true
	}
	byLength := slices.SortedStableFunc(slices.Values(c.Routes), func(a, b Route) int { return len(b.Model) - len(a.Model) })
	for _, route := range byLength { // longest first: the most exact route is taken
		if own := c.of(route, route.Model); own.answered() {
			all = append(all, own)
		}
		for _, model := range c.mapped(route) {
			if !routed[model] {
				routed[model] = true
				all = append(all, c.of(route, model))
			}
		}
	}
	return all
}

// serves reports whether any model of the route has an upstream.
func (c Config) serves(route Route) bool {
	if c.of(route, route.Model).answered() {
		return true
	}
	return len(c.mapped(route)) > 0
}

// mapped returns the models that upstreams of a route with a star map by name.
func (c Config) mapped(route Route) (models []string) {
	prefix, many := strings.CutSuffix(route.Model, "*")
	for _, group := range route.Groups {
		for _, upstream := range group.Upstreams {
			for _, model := range slices.Sorted(maps.Keys(c.Upstreams[upstream].Models)) {
				if many && strings.HasPrefix(model, prefix) {
					models = append(models, model)
				}
			}
		}
	}
	return models
}

// of returns the route for one model, with the upstreams that have it.
func (c Config) of(route Route, model string) Route {
	route.Model = model
	var groups []Group
	for _, group := range route.Groups {
		group.Upstreams = slices.DeleteFunc(slices.Clone(group.Upstreams), func(name string) bool {
			models := c.Upstreams[name].Models
			return len(models) > 0 && models[model] == ""
		})
		groups = append(groups, group)
	}
	route.Groups = groups
	return route
}

func (r Route) answered() bool {
	return slices.ContainsFunc(r.Groups, func(g Group) bool { return len(g.Upstreams) > 0 })
}
