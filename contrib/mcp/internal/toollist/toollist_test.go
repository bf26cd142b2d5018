package toollist_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/capreg/registry/contrib/mcp/internal/toollist"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pages answers with pages of one tool each.
func pages(names ...string) func(context.Context, *mcp.ListToolsParams) (*mcp.ListToolsResult, error) {
	return func(_ context.Context, p *mcp.ListToolsParams) (*mcp.ListToolsResult, error) {
		at := 0
		_, _ = fmt.Sscan(p.Cursor, &at)
		result := &mcp.ListToolsResult{Tools: []*mcp.Tool{{Name: names[at]}, nil, {Name: ""}, {Name: strings.Repeat("x", 129)}}}
		if at+1 < len(names) {
			result.NextCursor = strconv.Itoa(at + 1)
		}
		return result, nil
	}
}

func TestFetch_ReadsAllPages(t *testing.T) {
	t.Parallel()
	list, err := toollist.Fetch(t.Context(), pages("a", "b", "c"))
	require.NoError(t, err)
	require.Len(t, list, 3)
	require.Equal(t, "b", list["b"].Name)
}

func TestFetch_APartIsAnError(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	endless := 0
	for want, page := range map[string]func(context.Context, *mcp.ListToolsParams) (*mcp.ListToolsResult, error){
		"page 2: broken": func(_ context.Context, p *mcp.ListToolsParams) (*mcp.ListToolsResult, error) {
			if p.Cursor == "2" {
				return nil, broken
			}
			return &mcp.ListToolsResult{NextCursor: "2"}, nil
		},
		"a page names itself": func(context.Context, *mcp.ListToolsParams) (*mcp.ListToolsResult, error) {
			return &mcp.ListToolsResult{NextCursor: "same"}, nil
		},
		"it has more than 1000 pages": func(context.Context, *mcp.ListToolsParams) (*mcp.ListToolsResult, error) {
			endless++
			return &mcp.ListToolsResult{NextCursor: strconv.Itoa(endless)}, nil
		},
		"it has more than 10000 tools": func(context.Context, *mcp.ListToolsParams) (*mcp.ListToolsResult, error) {
			result := &mcp.ListToolsResult{}
			for i := range 10_001 {
				result.Tools = append(result.Tools, &mcp.Tool{Name: strconv.Itoa(i)})
			}
			return result, nil
		},
	} {
		list, err := toollist.Fetch(t.Context(), page)
		require.ErrorContains(t, err, want)
		require.Nil(t, list)
	}
}

// list makes a list; the description of a tool is what follows a colon.
func list(tools ...string) map[string]*mcp.Tool {
	all := make(map[string]*mcp.Tool)
	for _, tool := range tools {
		name, is, _ := strings.Cut(tool, ":")
		all[name] = &mcp.Tool{Name: name, Description: is}
	}
	return all
}

func same(a, b *mcp.Tool) bool { return a.Description == b.Description }

func TestKnown_AMissingToolIsSuspectedUntilItIsConfirmed(t *testing.T) {
	t.Parallel()
	var known toollist.Known
	now := time.Unix(0, 0)
	learn := func(after time.Duration, tools ...string) toollist.Change {
		now = now.Add(after)
		return known.Learn(list(tools...), now, 10*time.Second, same)
	}
	require.Equal(t, toollist.Change{Added: []string{"a", "b"}}, learn(0, "b", "a"))
	require.Equal(t, toollist.Change{Changed: []string{"a"}}, learn(0, "b", "a:new"))
	require.Equal(t, "new", known.Tool("a").Description)
	require.Equal(t, toollist.Change{Suspected: []string{"a"}}, learn(time.Second, "b"))
	require.Equal(t, now, known.SuspectedSince("a"))
	require.True(t, known.IsInDoubt())
	require.Equal(t, []string{"a", "b"}, known.Names())
	require.Equal(t, toollist.Change{}, learn(20*time.Second, "b"), "two lists are too few")
	require.Equal(t, toollist.Change{}, learn(0, "b", "a:new"), "it is there again")
	require.False(t, known.IsInDoubt())
	require.Equal(t, toollist.Change{Suspected: []string{"a", "b"}}, learn(0))
	require.Equal(t, toollist.Change{}, learn(time.Second))
	require.Equal(t, toollist.Change{}, learn(time.Second), "three seconds are too few")
	require.Equal(t, toollist.Change{Removed: []string{"a", "b"}}, learn(8*time.Second))
	require.Empty(t, known.Names())
	require.Equal(t, toollist.Change{Added: []string{"a"}}, learn(0, "a"))
}

// A naive model keeps the history of each tool.
func TestKnown_FollowsItsModel(t *testing.T) {
	t.Parallel()
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 1))
		var known toollist.Known
		missing := map[string][]time.Time{} // of known tools: the lists in a row that lack it
		now := time.Unix(0, 0)
		for range 60 {
			now = now.Add(time.Duration(random.IntN(5)) * time.Second)
			var tools []string
			for _, name := range []string{"a", "b", "c"} {
				if random.IntN(3) > 0 {
					tools = append(tools, name)
				}
			}
			in := list(tools...)
			known.Learn(in, now, 6*time.Second, same)
			for _, name := range []string{"a", "b", "c"} {
				lists, isKnown := missing[name]
				switch {
				case in[name] != nil:
					missing[name] = nil
				case !isKnown:
				default:
					missing[name] = append(lists, now)
					if n := len(missing[name]); n >= 3 && now.Sub(missing[name][0]) >= 6*time.Second {
						delete(missing, name)
					}
				}
				_, want := missing[name]
				require.Equal(t, want, known.Tool(name) != nil, "seed %d", seed)
			}
		}
	}
}
