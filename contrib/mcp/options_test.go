//go:build unix

package registrymcp_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	registrymcp "github.com/capreg/registry/contrib/mcp"
	"github.com/capreg/registry/startup"
	"github.com/capreg/registry/startup/process"
)

func TestComponents_RefuseWhatIsOutOfBounds(t *testing.T) {
	t.Parallel()
	s := with(t, registrymcp.ToolsOptions{})
	const ofPackage = "nothing: it is the package's"
	for want, change := range map[string]func(o *registrymcp.Options){
		`Options.Name is "": want 1 to 100 bytes`:                         func(o *registrymcp.Options) { o.Name = "" },
		`Options.Set is "xx`:                                              func(o *registrymcp.Options) { o.Set = strings.Repeat("x", 101) },
		`Options.Process is one of 0 with URL and Dial: want exactly one`: func(o *registrymcp.Options) { o.Process = nil },
		`Options.Process is one of 2 with URL and Dial: want exactly one`: func(o *registrymcp.Options) { o.URL = "http://host" },
		`Options.URL is refused: want an absolute http or https URL`:      func(o *registrymcp.Options) { o.Process, o.URL = nil, "ftp://secret@host" },
		`Options.HTTPClient is set: want nothing without URL`:             func(o *registrymcp.Options) { o.HTTPClient = http.DefaultClient },
		`Options.Client.KeepAlive is 1s: want 0`:                          func(o *registrymcp.Options) { o.Client = &mcp.ClientOptions{KeepAlive: time.Second} },
		`Options.Process.Talk is set: want nothing`: func(o *registrymcp.Options) {
			o.Process.Talk = func(context.Context, process.Streams) error { return nil }
		},
		`Options.Component.Name is "other": want Options.Name`: func(o *registrymcp.Options) { o.Component.Name = "other" },
		`Options.Component.Start is set: want ` + ofPackage: func(o *registrymcp.Options) {
			o.Component.Start = func(context.Context, *startup.Run) error { return nil }
		},
		`Options.Component.Stop is set: want ` + ofPackage:                  func(o *registrymcp.Options) { o.Component.Stop = func(context.Context) error { return nil } },
		`Options.Component.Ready is set: want ` + ofPackage:                 func(o *registrymcp.Options) { o.Component.Ready = func(context.Context) error { return nil } },
		`Options.Component is one that notifies or completes: want nothing`: func(o *registrymcp.Options) { o.Component.Notifies = true },
		`Options.AnswerTimeout is -1ns: want`:                               func(o *registrymcp.Options) { o.AnswerTimeout = -1 },
		`Options.PingInterval is 1ns: want`:                                 func(o *registrymcp.Options) { o.PingInterval = 1 },
		`Options.PingTimeout is 25h0m0s: want`:                              func(o *registrymcp.Options) { o.PingTimeout = 25 * time.Hour },
		`Options.Patience is -1ns: want`:                                    func(o *registrymcp.Options) { o.Patience = -1 },
		`Options.RefreshInterval is -1ns: want`:                             func(o *registrymcp.Options) { o.RefreshInterval = -1 },
		`Options.ConfirmTime is -1ns: want`:                                 func(o *registrymcp.Options) { o.ConfirmTime = -1 },
		`Options.MaxMessage is 1: want`:                                     func(o *registrymcp.Options) { o.MaxMessage = 1 },
		`Options.Command is "": want the path or name of a program`:         func(o *registrymcp.Options) { o.Process.Command = "" },
	} {
		options := registrymcp.Options{Name: "a", Process: &process.Options{Command: "a"}}
		change(&options)
		_, err := registrymcp.Components(s.tools, options)
		require.ErrorIs(t, err, registry.ErrInvalid, want)
		require.ErrorContains(t, err, want)
		require.NotContains(t, err.Error(), "secret")
	}
	_, err := registrymcp.Components(nil, registrymcp.Options{})
	require.ErrorContains(t, err, "tools is nil: want a value of NewTools")
	_, err = registrymcp.NewTools(nil, service, registrymcp.ToolsOptions{})
	require.ErrorContains(t, err, "reg is nil: want a registry")
	_, err = registrymcp.NewTools(s.registry, service, registrymcp.ToolsOptions{Wait: 25 * time.Hour})
	require.ErrorContains(t, err, "ToolsOptions.Wait is 25h0m0s")
}

func TestComponents_DoNotChangeWhatTheyAreGiven(t *testing.T) {
	t.Parallel()
	s := with(t, registrymcp.ToolsOptions{})
	child := &process.Options{Command: "a"}
	needs := make([]startup.Need, 1, 2)
	needs[0] = startup.Need{Component: "db"}
	components, err := registrymcp.Components(s.tools, registrymcp.Options{Name: "a", Process: child, Component: registry.Component{Needs: needs}})
	require.NoError(t, err)
	require.Equal(t, process.Options{Command: "a"}, *child)
	require.Equal(t, startup.Need{}, needs[:2][1])
	require.Equal(t, "a process", components[0].Name)
	require.Equal(t, "process", components[0].Kind)
	require.Equal(t, startup.Always, components[0].Restart.Mode)
	require.Equal(t, "a", components[1].Name)
	require.Equal(t, "mcp", components[1].Kind)
	require.Equal(t, []startup.Need{{Component: "db"}, {Component: "a process"}}, components[1].Needs)
}
