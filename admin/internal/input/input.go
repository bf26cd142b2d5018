// Package input holds the parts of requests that several operations have.
package input

import "github.com/capreg/registry/admin/internal/control"

// Target names a provider.
type Target struct {
	Path    string `path:"provider" maxLength:"1024" doc:"Name of the provider, or any other text where the query names it"`
	Service string `query:"service" maxLength:"1024" doc:"Service of the provider, where several services have one of that name"`
	Query   string `query:"provider" maxLength:"1024" doc:"Name of the provider, where it cannot stand in a path"`
}

// Target returns the provider that is meant: the query's, or else the path's.
func (t *Target) Target() control.Target {
	name := t.Path
	if t.Query != "" {
		name = t.Query
	}
	return control.Target{Service: t.Service, Provider: name}
}

// Match holds the state that a change is based on.
type Match struct {
	IfMatch string `header:"If-Match" maxLength:"1024" doc:"ETag that the change is based on, or *"`
}
