package main

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/capreg/registry"
	"github.com/capreg/registry/config"
	"github.com/capreg/registry/selection"
)

// Config configures the gateway, in YAML or JSON. The zero value of each field is its default. Secrets and other texts may
// be references, "${env:NAME}" or "${file:/path}", which are read again with the configuration.
type Config struct {
	// Clients are the programs that may ask, by name. Without any every request is admitted.
	Clients map[string]Client `json:"clients"`
	// Upstreams are the servers that answer, by name.
	Upstreams map[string]Upstream `json:"upstreams"`
	// Routes map models to upstreams.
	Routes []Route `json:"routes"`
	// Timeouts bound the work for one request. Those of a route come before them, those of an upstream before both.
	Timeouts Timeouts `json:"timeouts"`
	// WholeAnswers holds streams back until they are complete, so that one that is cut is answered by another upstream.
	WholeAnswers bool `json:"whole_answers"`
	// Origins are those of web pages that may ask (CORS), such as "https://chat.example", or "*".
	Origins []string `json:"origins"`
	// Memory bounds the bytes of requests and answers that are held at once: 512MiB. It is not read again.
	Memory config.Size `json:"memory"`
	// Admin are the operators, by name, with their tokens: they may look and change things at /admin/. A browser asks for a
	// token as the password of any name. Default: none, and nothing is there. It is not read again.
	Admin map[string]config.Secret `json:"admin"`
}

// Client is a program that may ask.
type Client struct {
	// Key is the secret that it sends.
	Key config.Secret `json:"key"`
	// Models are those that it may ask for, with a star at their end for all that begin so. Default: all.
	Models []string `json:"models"`
	// RequestsPerMinute, TokensPerMinute (of questions and answers together) and Concurrency bound its use. Default: any number.
	RequestsPerMinute int   `json:"requests_per_minute"`
	TokensPerMinute   int   `json:"tokens_per_minute"`
	Concurrency       int64 `json:"concurrency"`
}

// Upstream is a server with an API like OpenAI's. Its policies are those of the registry, for each key and model.
type Upstream struct {
	// URL is the base to which "/chat/completions" is appended; it often ends in "/v1", and may have a query.
	URL string `json:"url"`
	// Keys are secrets. A request goes out with the next one where one is refused, or limited in its rate.
	Keys []config.Secret `json:"keys"`
	// Headers are sent with each request; "{key}" stands for the key. Default: "Authorization": "Bearer {key}".
	Headers map[string]string `json:"headers"`
	// Models maps the names that clients use to those of the upstream. Without it names are passed on as they are; with it
	// the upstream has no others.
	Models map[string]string `json:"models"`
	// Window is the longest request that it takes, in any unit; 0: unknown. Weight is its share in a group, for strategies
	// that use weights.
	Window int     `json:"window"`
	Weight float64 `json:"weight"`
	// TokensPerMinute bounds what it is asked for, by all keys together: then other upstreams are asked. Default: any number.
	TokensPerMinute int `json:"tokens_per_minute"`
	// LastResort is asked although its breaker is open, when there is nothing else. Sole upstreams and those of a star are, too.
	LastResort bool `json:"last_resort"`
	// Retry is the policy of retries. Default: one.
	Retry   *registry.RetryPolicy  `json:"retry"`
	Breaker registry.BreakerPolicy `json:"breaker"`
	// Limits bound the requests in progress, for each key; more wait in its queue, here or at another upstream.
	Limits   registry.LimitPolicy `json:"limits"`
	Timeouts Timeouts             `json:"timeouts"`
}

// Route maps a model to the upstreams that answer for it.
type Route struct {
	// Model is a name, or the beginning of names and a star: "gpt-*". The most exact route is taken.
	Model string `json:"model"`
	// Groups are tried one after another.
	Groups []Group `json:"groups"`
	// WholeAnswers is that of [Config], for this route.
	WholeAnswers bool     `json:"whole_answers"`
	Timeouts     Timeouts `json:"timeouts"`
}

// Group is some upstreams of the same rank.
type Group struct {
	Upstreams []string           `json:"upstreams"`
	Strategy  selection.Strategy `json:"strategy"`
}

// Timeouts bound a request. The times that a client takes to send and to read are bounded by the defaults of llm.Proxy.
type Timeouts struct {
	Answer     config.Duration `json:"answer"`      // a plain answer of one upstream, which may think for long: 5 min
	FirstToken config.Duration `json:"first_token"` // of a stream: 10 s
	Stall      config.Duration `json:"stall"`       // between two tokens: 20 s
	Total      config.Duration `json:"total"`       // everything: 15 min; not of an upstream
	Comment    config.Duration `json:"comment"`     // without anything for a client, until a comment is sent: 15 s; not of an upstream
}

// over returns the timeouts with those of the outer scope where they have none.
func (t Timeouts) over(outer Timeouts) Timeouts {
	return Timeouts{
		Answer: cmp.Or(t.Answer, outer.Answer, config.Duration(5*time.Minute)), FirstToken: cmp.Or(t.FirstToken, outer.FirstToken, config.Duration(10*time.Second)),
		Stall: cmp.Or(t.Stall, outer.Stall, config.Duration(20*time.Second)), Total: cmp.Or(t.Total, outer.Total, config.Duration(15*time.Minute)),
		Comment: cmp.Or(t.Comment, outer.Comment, config.Duration(15*time.Second)),
	}
}

// headers returns the headers to send, for each key.
func (u Upstream) headers() (all []http.Header) {
	texts := maps.Clone(u.Headers)
	if len(u.Keys) > 0 && !strings.Contains(fmt.Sprint(texts), "{key}") {
		texts = map[string]string{"Authorization": "Bearer {key}"}
		maps.Copy(texts, u.Headers)
	}
	for _, key := range append(slices.Clip(u.Keys), "")[:max(len(u.Keys), 1)] { // none is one that is empty
		header := make(http.Header)
		for name, text := range texts {
			header.Set(name, strings.ReplaceAll(text, "{key}", key.Reveal()))
		}
		all = append(all, header)
	}
	return all
}

// Validate finds names that do not exist, and what else the registry would not notice.
func (c Config) Validate() error {
	var found []error
	wrong := func(right bool, field string, value any, want string) {
		if !right {
			found = append(found, fmt.Errorf("%s is %q: want %s", field, fmt.Sprint(value), want))
		}
	}
	c.Timeouts.check("timeouts", wrong)
	for name, client := range c.Clients {
		limits := []int64{int64(client.RequestsPerMinute), int64(client.TokensPerMinute), client.Concurrency}
		wrong(client.Key != "", "clients."+name+".key", client.Key, "a secret that is not empty")
		wrong(name != "" && slices.Min(limits) >= 0, "clients."+name, limits, "a name, and limits of 0 (any number) or more")
	}
	wrong(c.Memory >= 0, "memory", c.Memory, "0 (512MiB) or more")
	for name, upstream := range c.Upstreams {
		upstream.Timeouts.check("upstreams."+name+".timeouts", wrong)
		wrong(upstream.TokensPerMinute >= 0, "upstreams."+name+".tokens_per_minute", upstream.TokensPerMinute, "0 (any number) or more")
		for i, key := range upstream.Keys {
			wrong(key != "", fmt.Sprintf("upstreams.%s.keys[%d]", name, i), key, "a secret that is not empty")
		}
		for model, known := range upstream.Models {
			wrong(model != "" && known != "" && !strings.HasSuffix(model, "*"), "upstreams."+name+".models", model+": "+known, "two names")
		}
	}
	wrong(len(c.Routes) > 0, "routes", "[]", "at least one")
	seen := make(map[string]bool)
	for i, route := range c.Routes {
		field := fmt.Sprintf("routes[%d]", i)
		wrong(!seen[route.Model], field+".model", route.Model, "one route for each")
		seen[route.Model] = true
		c.checkRoute(field, route, wrong)
	}
	return errors.Join(found...)
}

func (t Timeouts) check(field string, wrong func(right bool, field string, value any, want string)) {
	least := min(t.Answer, t.FirstToken, t.Stall, t.Total, t.Comment)
	wrong(least >= 0, field, least, "durations of 0 (the default) or more")
}

func (c Config) checkRoute(field string, route Route, wrong func(right bool, field string, value any, want string)) {
	named := route.Model != "" && !strings.Contains(strings.TrimSuffix(route.Model, "*"), "*")
	wrong(named, field+".model", route.Model, "a name, or the beginning of one and a star")
	route.Timeouts.check(field+".timeouts", wrong)
	wrong(len(route.Groups) > 0, field+".groups", "[]", "at least one")
	wrong(len(c.expanded(route, nil)) > 0, field+".model", route.Model, "one that an upstream of the route has")
	seen := make(map[string]bool)
	for i, group := range route.Groups {
		field := fmt.Sprintf("%s.groups[%d].upstreams", field, i)
		wrong(len(group.Upstreams) > 0, field, "[]", "at least one")
		for _, name := range group.Upstreams {
			_, known := c.Upstreams[name]
			wrong(known && !seen[name], field, name, "one of the upstreams, once")
			seen[name] = true
		}
	}
}
