// Package toollist reads the list of a server's tools, and decides what it says: a list is complete or it is no list, and a
// tool that is missing in one is suspected until later lists confirm it.
package toollist

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
)

const (
	mostPages  = 1000
	mostTools  = 10_000
	longestKey = 128 // bytes of a tool's name, as the protocol says

	// leastLists is the number of complete lists in a row without a tool that confirm that it is gone.
	leastLists = 3
)

var (
	errCursor = errors.New("a page names itself as the next one")
	errPages  = fmt.Errorf("it has more than %d pages", mostPages)
	errTools  = fmt.Errorf("it has more than %d tools", mostTools)
)

// Fetch returns all pages of a list, the tools by their names. One page that fails is an error: a part is no list.
func Fetch(ctx context.Context, page func(context.Context, *mcp.ListToolsParams) (*mcp.ListToolsResult, error)) (map[string]*mcp.Tool, error) {
	all := make(map[string]*mcp.Tool)
	cursor := ""
	for n := range mostPages {
		result, err := page(ctx, &mcp.ListToolsParams{Cursor: cursor})
		if err != nil {
			return nil, fmt.Errorf("page %d: %w", n+1, err)
		}
		for _, tool := range result.Tools {
			if tool != nil && tool.Name != "" && len(tool.Name) <= longestKey {
				all[tool.Name] = tool
			}
		}
		switch {
		case len(all) > mostTools:
			return nil, errTools
		case result.NextCursor == "":
			return all, nil
		case result.NextCursor == cursor:
			return nil, errCursor
		}
		cursor = result.NextCursor
	}
	return nil, errPages
}

// Known has the tools that a server is known to have. The zero value has none. It is not safe for concurrent use.
type Known struct {
	tools    map[string]*mcp.Tool
	suspects map[string]suspect
}

// suspect is a tool that lists lack.
type suspect struct {
	since time.Time
	lists int
}

// Change has the names that a list has changed, in order.
type Change struct {
	// Added are new tools, and Changed those with another definition. Suspected are missing for the first time,
	// and Removed confirmed to be gone.
	Added, Changed, Suspected, Removed []string
}

// Learn takes a complete list. A tool is gone when it was missing in each list for the given time, and in three of them.
func (k *Known) Learn(list map[string]*mcp.Tool, now time.Time, confirm time.Duration, same func(a, b *mcp.Tool) bool) (c Change) {
	if k.tools == nil {
		k.tools, k.suspects = make(map[string]*mcp.Tool), make(map[string]suspect)
	}
	for _, name := range slices.Sorted(maps.Keys(list)) {
		delete(k.suspects, name)
		switch known, there := k.tools[name]; {
		case !there:
			c.Added = append(c.Added, name)
		case !same(known, list[name]):
			c.Changed = append(c.Changed, name)
		default:
			continue
		}
		k.tools[name] = list[name]
	}
	for _, name := range slices.Sorted(maps.Keys(k.tools)) {
		if _, there := list[name]; there {
			continue
		}
		s, suspected := k.suspects[name]
		if !suspected {
			s.since = now
			c.Suspected = append(c.Suspected, name)
		}
		s.lists++
		k.suspects[name] = s
		if s.lists >= leastLists && now.Sub(s.since) >= confirm {
			delete(k.suspects, name)
			delete(k.tools, name)
			c.Removed = append(c.Removed, name)
		}
	}
	return c
}

// Names returns the names of the known tools, in order.
func (k *Known) Names() []string { return slices.Sorted(maps.Keys(k.tools)) }

// Tool returns a known tool; nil for another one.
func (k *Known) Tool(name string) *mcp.Tool { return k.tools[name] }

// SuspectedSince returns since when a tool is missing in lists; zero when it is not.
func (k *Known) SuspectedSince(name string) time.Time { return k.suspects[name].since }

// IsInDoubt reports whether a further list is wanted soon.
func (k *Known) IsInDoubt() bool { return len(k.suspects) > 0 }
