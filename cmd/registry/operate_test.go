package main_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/admin"
	"github.com/capreg/registry/admin/action"
	"github.com/capreg/registry/admin/configured"
	"github.com/capreg/registry/config"
)

var models = registry.NewService[string]("llm")

// live is a program with a control API, and the command that operates it.
type live struct {
	program

	reg    *registry.Registry
	server *httptest.Server
}

const token = "s3cret-token"

// fleet is one with a node that is suspected.
type fleet struct{}

func (fleet) View() admin.FleetView {
	return admin.FleetView{
		Store: "bucket", Reachable: true, Announcement: &admin.Announcement{Node: "control", State: "serving", Entries: 2},
		Nodes: []admin.FleetNode{
			{Name: "agent-1", State: "present", Offers: []admin.FleetOffer{{Service: "llm", Name: "x", Visible: true, As: "agent-1/x"}}},
			{Name: "agent-2", State: "suspect", Suspect: true, Reason: "its lease was not renewed", SuspectedBy: []string{"agent-1"}},
		},
	}
}

func operate(t *testing.T) live {
	t.Helper()
	reg, err := registry.New(registry.Options{})
	require.NoError(t, err)
	options := config.Options{Kinds: []config.Kind{
		config.Bind(models, "openai", func(_ context.Context, s struct {
			Model string `json:"model"`
		},
		) (string, error) {
			return s.Model, nil
		}),
	}}
	manager, err := config.New(reg, options)
	require.NoError(t, err)
	handler, err := admin.New(reg, admin.Options{
		Configuration: configured.By(manager, options), Fleet: fleet{},
		Authorize: admin.Tokens(map[string]string{"ops": token, "guest": "guest"}, func(actor string, a action.Action) error {
			if actor == "guest" && a.Verb != action.Read {
				return registry.ErrDenied
			}
			return nil
		}),
	})
	require.NoError(t, err)
	server := httptest.NewServer(http.StripPrefix("/ops", handler))
	t.Cleanup(func() {
		server.Close()
		handler.Close()
		require.NoError(t, reg.Close(context.Background()))
	})
	for _, name := range []string{"primary", "backup"} {
		_, err := models.Register(t.Context(), reg, registry.Provider[string]{Name: name, Instance: name})
		require.NoError(t, err)
	}
	return live{build(t), reg, server}
}

// ask runs the command with address and token.
func (l live) ask(t *testing.T, arguments ...string) (status int, out, problems string) {
	t.Helper()
	return l.run(t, append(arguments, "--address", l.server.URL+"/ops", "--token", token)...)
}

func (l live) provider(t *testing.T, name string) *registry.Registration {
	t.Helper()
	handle, ok := l.reg.Provider("llm", name)
	require.True(t, ok)
	return handle
}

func TestOperate_ListsProviders(t *testing.T) {
	t.Parallel()
	l := operate(t)
	require.NoError(t, l.provider(t, "primary").ForceOpen(time.Hour, "maintenance"))
	status, out, problems := l.ask(t, "providers")
	require.Equal(t, 0, status, problems)
	lines := strings.Split(strings.TrimSpace(out), "\n")
	require.Len(t, lines, 3)
	require.Regexp(t, `^SERVICE +PROVIDER +GROUP`, lines[0])
	require.Regexp(t, `^llm +primary +0 +NORMAL +1 +healthy +open, trial in (1h0m0s|59m\d+s) .* breaker_open$`, lines[1])
	require.NotContains(t, out, "\x1b", "no colours where there is no terminal")
	_, out, _ = l.ask(t, "providers", "--ineligible", "--json")
	var list struct {
		Providers []struct {
			Provider string `json:"provider"`
		} `json:"providers"`
	}
	require.NoError(t, json.Unmarshal([]byte(out), &list))
	require.Len(t, list.Providers, 1)
	require.Equal(t, "primary", list.Providers[0].Provider)
}

func TestOperate_HealthHasAStatusForScripts(t *testing.T) {
	t.Parallel()
	l := operate(t)
	for _, want := range []struct {
		status int
		text   string
		change func() error
	}{
		{0, "healthy: 1 of 1 services healthy", func() error { return nil }},
		{3, `provider "primary" of service "llm" has its breaker open`, func() error { return l.provider(t, "primary").ForceOpen(time.Hour, "maintenance") }},
		{1, `service "llm" has no provider for a call`, func() error {
			for _, name := range []string{"primary", "backup"} {
				if err := l.provider(t, name).MarkUnhealthy(nil); err != nil {
					return err
				}
			}
			return nil
		}},
	} {
		require.NoError(t, want.change())
		status, out, _ := l.ask(t, "health")
		require.Contains(t, out, want.text)
		require.Equal(t, want.status, status, out)
	}
	status, out, _ := l.ask(t, "health", "--json")
	require.Equal(t, 1, status)
	require.Contains(t, out, `"overall_health": "unhealthy"`)
}

func TestOperate_Explains(t *testing.T) {
	t.Parallel()
	l := operate(t)
	status, out, _ := l.ask(t, "explain", "--service", "llm")
	require.Equal(t, 0, status)
	require.Contains(t, out, "▶ group 0 NORMAL   primary: eligible")
	status, out, _ = l.ask(t, "explain", "--service", "llm", "--exclude", "primary", "--json")
	require.Equal(t, 0, status)
	require.Contains(t, out, `"winner": "backup"`)
	status, _, _ = l.ask(t, "explain", "--service", "llm", "--exclude", "primary,backup")
	require.Equal(t, 1, status, "none is picked")
	status, _, problems := l.ask(t, "explain", "--service", "none")
	require.Equal(t, 1, status)
	require.Contains(t, problems, `there is no service "none"`)
	status, _, problems = l.ask(t, "explain")
	require.Equal(t, 2, status)
	require.Contains(t, problems, "explain wants")
}

func TestOperate_Changes(t *testing.T) {
	t.Parallel()
	l := operate(t)
	primary := l.provider(t, "primary")
	for _, test := range []struct {
		arguments []string
		out       string
		done      func() bool
	}{
		{[]string{"drain", "--reason", "new disk", "primary"}, "primary gets no new calls: weight 0 (before: 1)\n", func() bool { return primary.Weight() == 0 }},
		{[]string{"undrain", "primary"}, "primary gets calls again: weight 1 (before: 0)\n", func() bool { return primary.Weight() == 1 }},
		{[]string{"force-open", "--for", "10m", "primary"}, "primary gets no calls for 10m0s; then it is tried again\n", func() bool { return primary.Breaker().Forced }},
		{[]string{"reset", "primary"}, "1 breaker reset, 1 of them not closed before\n", func() bool { return !primary.Breaker().Forced }},
		{[]string{"reset", "--all"}, "2 breakers reset, 0 of them not closed before\n", func() bool { return true }},
		{[]string{"mark-unhealthy", "--service", "llm", "primary"}, "primary is marked unhealthy and gets no calls until it is marked healthy\n", func() bool { return !primary.Info().Eligible }},
		{[]string{"mark-healthy", "primary"}, "primary is marked healthy; probes that fail count from the beginning\n", func() bool { return primary.Info().Eligible }},
		{[]string{"clear-cooldown", "primary"}, "primary does not cool down (before: none)\n", func() bool { return true }},
	} {
		status, out, problems := l.ask(t, test.arguments...)
		require.Equal(t, 0, status, problems)
		require.Equal(t, test.out, out)
		require.True(t, test.done(), test.arguments)
	}
	status, _, problems := l.ask(t, "drain", "none")
	require.Equal(t, 1, status)
	require.Equal(t, "registry: there is no provider \"none\"\n", problems)
	_, err := registry.NewService[int]("search").Register(t.Context(), l.reg, registry.Provider[int]{Name: "primary", Instance: 1})
	require.NoError(t, err)
	status, _, problems = l.ask(t, "drain", "primary")
	require.Equal(t, 1, status)
	require.Contains(t, problems, "--service \"llm\"\n  --service \"search\"")
	status, _, _ = l.run(t, "drain", "primary", "--service", "llm", "--address", l.server.URL+"/ops", "--token", "guest")
	require.Equal(t, 1, status, "the guest may not")
	require.NotZero(t, primary.Weight())
	status, _, _ = l.ask(t, "reset")
	require.Equal(t, 2, status)
}

func TestOperate_PlansAndAppliesDocuments(t *testing.T) {
	t.Parallel()
	l := operate(t)
	status, out, problems := l.ask(t, "apply", "good.yaml")
	require.Equal(t, 1, status)
	require.Contains(t, problems, "5:9: services.llm.providers[a].strategy: is ROUND_ROBIN: want FALLBACK", "which the program's own providers bring")
	require.Empty(t, out)
	require.NoError(t, os.WriteFile(filepath.Join(l.dir, "other.yaml"), []byte("services: {llm: {providers: [{name: a, kind: openai, settings: {model: big}}]}}\n"), 0o600))
	status, out, problems = l.ask(t, "plan", "--live", "other.yaml")
	require.Equal(t, 0, status, problems)
	require.Contains(t, out, "+ services.llm.providers[a]: add")
	require.Len(t, l.reg.Registrations(), 2)
	status, out, problems = l.ask(t, "apply", "--json", "other.yaml")
	require.Equal(t, 0, status, problems)
	require.Contains(t, out, `"action": "add"`)
	require.Len(t, l.reg.Registrations(), 3)
	status, _, problems = l.ask(t, "apply", "bad.yaml")
	require.Equal(t, 1, status)
	require.Contains(t, problems, "services.llm.providers[a].prioritty: unknown field")
}

func TestOperate_FollowsEvents(t *testing.T) {
	t.Parallel()
	l := operate(t)
	command := exec.CommandContext(t.Context(), l.path, "events", "-f", "--json", "--address", l.server.URL+"/ops", "--token", token)
	out, err := command.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, command.Start())
	lines := bufio.NewScanner(out)
	require.NoError(t, l.provider(t, "primary").ForceOpen(time.Hour, "maintenance"))
	found := false
	for !found && lines.Scan() {
		var e struct {
			Event *struct {
				Kind string `json:"kind"`
			} `json:"event"`
		}
		require.NoError(t, json.Unmarshal(lines.Bytes(), &e), lines.Text())
		found = e.Event != nil && e.Event.Kind == "breaker_opened"
	}
	require.True(t, found)
	require.NoError(t, command.Process.Signal(os.Interrupt))
	require.NoError(t, command.Wait(), "an interrupt is the way to end it")

	_, text, _ := l.ask(t, "events")
	require.Contains(t, text, "breaker_opened llm/primary closed → open: maintenance\n")
}

func TestOperate_FindsAddressAndToken(t *testing.T) {
	t.Parallel()
	l := operate(t)
	address := l.server.URL + "/ops"
	file := filepath.Join(l.dir, "client.yaml")
	require.NoError(t, os.WriteFile(file, []byte("address: "+address+"\ntoken: "+token+"\n"), 0o600))
	secret := filepath.Join(l.dir, "token")
	require.NoError(t, os.WriteFile(secret, []byte(token+"\n"), 0o600))
	for _, test := range []struct {
		arguments, environment []string
		status                 int
	}{
		{[]string{"--settings", file}, nil, 0},
		{[]string{"--address", address, "--token-file", secret}, nil, 0},
		{nil, []string{"REGISTRY_ADDRESS=" + address, "REGISTRY_TOKEN=" + token}, 0},
		{[]string{"--settings", file}, []string{"REGISTRY_TOKEN=wrong"}, 1},
		{[]string{"--address", address}, nil, 1},
		{nil, nil, 2},
		{[]string{"--address", "http://127.0.0.1:1/"}, nil, 2},
		{[]string{"--address", "ftp://localhost"}, nil, 2},
		{[]string{"--settings", file + ".none"}, nil, 2},
	} {
		command := exec.CommandContext(t.Context(), l.path, append([]string{"health"}, test.arguments...)...)
		command.Env = append([]string{"HOME=" + l.dir, "XDG_CONFIG_HOME=" + l.dir}, test.environment...)
		var problems bytes.Buffer
		command.Stderr = &problems
		err := command.Run()
		require.Equal(t, test.status, command.ProcessState.ExitCode(), "%v %v: %v %s", test.arguments, test.environment, err, problems.String())
		require.NotContains(t, problems.String(), token)
	}
	require.NoError(t, os.Chmod(file, 0o644))
	status, _, problems := l.run(t, "health", "--settings", file)
	require.Equal(t, 2, status)
	require.Contains(t, problems, "can be read by others")
}

func TestOperate_SpeaksOverAUnixSocket(t *testing.T) {
	t.Parallel()
	l := operate(t)
	socket := filepath.Join(l.dir, "s")
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", socket)
	require.NoError(t, err)
	server := &http.Server{Handler: l.server.Config.Handler, ReadHeaderTimeout: time.Minute}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	status, out, problems := l.run(t, "health", "--address", "unix:"+socket+":/ops", "--token", token)
	require.Equal(t, 0, status, problems)
	require.Contains(t, out, "healthy: 1 of 1")
	require.NoError(t, server.Close())
	require.ErrorIs(t, <-served, http.ErrServerClosed)
}

func TestOperate_NamesCannotMoveTheCursor(t *testing.T) {
	t.Parallel()
	l := operate(t)
	name := "evil\u202e<b>"
	_, err := models.Register(t.Context(), l.reg, registry.Provider[string]{Name: name, Instance: name, Group: 1})
	require.NoError(t, err)
	status, out, problems := l.ask(t, "drain", name)
	require.Equal(t, 0, status, problems)
	require.Contains(t, out, "evil\ufffd<b> gets no new calls")
	_, out, _ = l.ask(t, "providers")
	require.NotContains(t, out, "\u202e")
}

func TestOperate_ShowsTheFleet(t *testing.T) {
	t.Parallel()
	l := operate(t)
	status, out, problems := l.ask(t, "fleet")
	require.Equal(t, 3, status, problems)
	lines := strings.Split(strings.TrimSpace(out), "\n")
	require.Equal(t, "store bucket is reachable", lines[0])
	require.Equal(t, "this process is node control, serving; it announces 2", lines[1])
	require.Regexp(t, `^ ◆ suspect +agent-2 +- +this process, agent-1 +0 of 0 in use: its lease was not renewed$`, lines[3])
	require.Regexp(t, `^ +llm/x +agent-1/x$`, lines[5])
	_, out, _ = l.ask(t, "fleet", "--json")
	var all struct {
		Store string `json:"store"`
		Nodes []struct {
			Name string `json:"name"`
		} `json:"nodes"`
	}
	require.NoError(t, json.Unmarshal([]byte(out), &all))
	require.Equal(t, "bucket", all.Store)
	require.Len(t, all.Nodes, 2)
	require.NotContains(t, out, "next_page_token")
}

func TestOperate_UndoesADocument(t *testing.T) {
	t.Parallel()
	l := operate(t)
	document := func(name string) string {
		path := filepath.Join(t.TempDir(), name+".yaml")
		require.NoError(t, os.WriteFile(path, []byte("services: {llm: {providers: [{name: "+name+", kind: openai, settings: {model: m}}]}}\n"), 0o600))
		return path
	}
	for _, wrong := range [][]string{{"apply"}, {"apply", "--undo", document("x")}} {
		status, _, problems := l.ask(t, wrong...)
		require.Equal(t, 2, status)
		require.Contains(t, problems, "apply wants a FILE or --undo")
	}
	status, _, problems := l.ask(t, "apply", "--undo")
	require.Equal(t, 1, status)
	require.Contains(t, problems, "no document was applied here so far")
	for _, name := range []string{"one", "two"} {
		status, _, problems = l.ask(t, "apply", document(name))
		require.Equal(t, 0, status, problems)
	}
	status, out, problems := l.ask(t, "apply", "--undo")
	require.Equal(t, 0, status, problems)
	require.Contains(t, out, "services.llm.providers[one]: add")
	_, there := l.reg.Provider("llm", "two")
	require.False(t, there)
}
