//go:build unix

package process_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/startup"
	"github.com/capreg/registry/startup/picture"
	"github.com/capreg/registry/startup/process"
)

// programs is a graph of real programs: PostgreSQL, a migration, and then Redis and nginx.
type programs struct {
	postgres, initdb, psql, redis, nginx string
	folder, data, dbUser                 string
}

// installed finds the programs and makes a database.
func installed(t *testing.T) *programs {
	t.Helper()
	p := &programs{
		postgres: testkit.Program(t, "postgres"), initdb: testkit.Program(t, "initdb"), psql: testkit.Program(t, "psql"),
		redis: testkit.Program(t, "redis-server"), nginx: testkit.Program(t, "nginx"), folder: t.TempDir(),
	}
	require.NoError(t, os.Chmod(filepath.Dir(p.folder), 0o711)) // its parent is closed to other users
	p.data = filepath.Join(p.folder, "data")
	require.NoError(t, os.Mkdir(p.data, 0o700))
	if os.Getuid() == 0 { // PostgreSQL does not run as root
		p.dbUser = "postgres"
		as, err := user.Lookup(p.dbUser)
		require.NoError(t, err)
		uid, err := strconv.Atoi(as.Uid)
		require.NoError(t, err)
		require.NoError(t, os.Chown(p.data, uid, -1))
	}
	options := process.Options{
		Component: registry.Component{Name: "initdb", Completes: true, StartTimeout: time.Minute},
		Command:   p.initdb, Args: []string{"-D", p.data, "-A", "trust", "-U", "postgres", "--no-sync"}, User: p.dbUser, Dir: "/",
	}
	require.NoError(t, started(t, options).Stop(t.Context()))
	return p
}

// graph returns the processes of a run, with the statements of its migration.
func (p *programs) graph(t *testing.T, sql string) []process.Options {
	t.Helper()
	folder, err := os.MkdirTemp(p.folder, "run") //nolint:usetesting // within the folder that another user may enter
	require.NoError(t, err)
	database, cache, web := freePort(t), freePort(t), freePort(t)
	portOf := func(address string) string {
		_, port, err := net.SplitHostPort(address)
		require.NoError(t, err)
		return port
	}
	asRoot := ""
	if os.Getuid() == 0 {
		asRoot = "user root root;\n"
	}
	configuration := asRoot + `worker_processes 2; error_log stderr; pid ` + folder + `/nginx.pid;
events {}
http {
	access_log off; client_body_temp_path ` + folder + `; proxy_temp_path ` + folder + `; fastcgi_temp_path ` + folder + `;
	uwsgi_temp_path ` + folder + `; scgi_temp_path ` + folder + `;
	server { listen ` + web + `; location / { default_type application/json; return 200 '{"status":"ok"}'; } }
}`
	require.NoError(t, os.WriteFile(folder+"/nginx.conf", []byte(configuration), 0o600))
	restart := startup.Restart{Mode: startup.OnFailure, MaxRestarts: 10, FirstDelay: time.Millisecond, Dependants: true}
	return []process.Options{
		{
			Component: registry.Component{Name: "postgresql", Provides: []string{"sql"}, Restart: restart},
			Command:   p.postgres, Args: []string{"-D", p.data, "-h", "127.0.0.1", "-p", portOf(database), "-k", "", "-F"}, User: p.dbUser, Dir: "/",
			Signal: syscall.SIGINT, SignalLeader: true,
			Ready: process.Ready{Port: database, Line: regexp.MustCompile("database system is ready to accept connections")},
		},
		{
			Component: registry.Component{Name: "migration", Provides: []string{"schema"}, Needs: startup.Capabilities("sql"), Completes: true},
			Command:   p.psql, Args: []string{"-X", "-q", "-h", "127.0.0.1", "-p", portOf(database), "-U", "postgres", "-v", "ON_ERROR_STOP=1", "-c", sql, "postgres"},
		},
		{
			Component: registry.Component{Name: "redis", Needs: startup.Capabilities("schema"), Restart: restart},
			Command:   p.redis, Args: []string{"--bind", "127.0.0.1", "--port", portOf(cache), "--save", "", "--dir", folder},
			Ready: process.Ready{Port: cache, Line: regexp.MustCompile("Ready to accept connections")},
		},
		{
			Component: registry.Component{Name: "nginx", Needs: startup.Capabilities("schema"), Restart: restart},
			Command:   p.nginx, Args: []string{"-p", folder, "-e", "stderr", "-c", folder + "/nginx.conf", "-g", "daemon off;"},
			Ready: process.Ready{HTTP: "http://" + web + "/healthz"},
		},
	}
}

const migrate = "create table if not exists visits (n int); insert into visits values (1)"

// function returns a component that is a function, and needs others.
func function(name string, needs ...string) registry.Component {
	return registry.Component{
		Name: name, Provides: []string{name}, Needs: startup.Capabilities(needs...),
		Start: func(context.Context, *startup.Run) error { return nil },
	}
}

func TestComponent_StandsBesideFunctionsInPlanReportAndPictures(t *testing.T) {
	t.Parallel()
	migration := script(t, "migration", "pause:10ms")
	migration.Component.Completes, migration.Component.Needs = true, startup.Capabilities("db")
	db := script(t, "db", "pause:20ms", "say:ready", "wait")
	db.Component.Needs = startup.Capabilities("settings")
	db.Ready.Line = regexp.MustCompile("ready")
	o, err := registry.NewOrchestrator(nil, startup.Options{}, function("app", "migration"), made(t, migration), made(t, db), function("settings"))
	require.NoError(t, err)
	report, err := o.Start(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{"settings", "db", "migration", "app"}, report.Chain)
	require.Regexp(t, `(?s)app @\S+ \+\S+\n  migration @\S+ \+\S+ \(process \d+, completed\)\n    db @\S+ \+\S+ \(process \d+\)\n      settings @\S+ \+\S+$`, report.String())

	var dot, trace bytes.Buffer
	require.NoError(t, picture.DOT(&dot, o.Plan()))
	require.Contains(t, dot.String(), `"db" [peripheries=2, label="db\nprocess"];`)
	require.Contains(t, dot.String(), `"migration" [peripheries=2, style=rounded, label="migration\nprocess, completes"];`)
	require.NotContains(t, dot.String(), `"app" [`)
	require.NoError(t, picture.ChromeTrace(&trace, report))
	require.Contains(t, trace.String(), `"kind":"process","detail":"process `+strconv.Itoa(pidOf(t, o, "db"))+`","state":"ready"`)
	require.Contains(t, trace.String(), `"state":"completed"`)
	text, err := json.Marshal(report)
	require.NoError(t, err)
	require.Contains(t, string(text), `"kind":"process","detail":"process `)
	require.NoError(t, o.Stop(t.Context()))
}

func TestPrograms_AreRestartedWithWhatNeedsThem(t *testing.T) {
	t.Parallel()
	p := installed(t)
	graph := p.graph(t, migrate)
	components := []registry.Component{function("app", "cache", "web")}
	for i := range graph {
		graph[i].Component.Provides = append(graph[i].Component.Provides, []string{"", "", "cache", "web"}[i])
		graph[i].Component.Provides = slices.DeleteFunc(graph[i].Component.Provides, func(name string) bool { return name == "" })
		components = append(components, made(t, graph[i]))
	}
	o, err := registry.NewOrchestrator(nil, startup.Options{}, components...)
	require.NoError(t, err)
	report, err := o.Start(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{"postgresql", "migration"}, report.Chain[:2], report.String())
	var groups []int
	for _, name := range []string{"postgresql", "redis", "nginx"} {
		groups = append(groups, pidOf(t, o, name))
	}
	// The workers of nginx would keep its port when their master is killed.
	for _, index := range []int{2, 0} {
		require.NoError(t, syscall.Kill(groups[index], syscall.SIGKILL))
		name := []string{"postgresql", "redis", "nginx"}[index]
		eventually(t, func() bool {
			state, _ := o.State(name)
			app, _ := o.State("app")
			return state == startup.Ready && app == startup.Ready && pidOf(t, o, name) != groups[index]
		}, name)
		groups = append(groups, pidOf(t, o, name))
	}
	for _, name := range []string{"redis", "nginx"} {
		groups = append(groups, pidOf(t, o, name))
	}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, graph[3].Ready.HTTP, nil)
	require.NoError(t, err)
	response, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	require.JSONEq(t, `{"status":"ok"}`, string(body))
	http.DefaultClient.CloseIdleConnections()
	args := graph[1].Args
	count := exec.CommandContext(t.Context(), graph[1].Command, append(slices.Clone(args[:len(args)-3]), "-t", "-A", "-c", "select count(*) from visits", "postgres")...)
	out, err := count.CombinedOutput()
	require.NoError(t, err, string(out))
	require.Equal(t, "2", strings.TrimSpace(string(out)), "the migration was done again")
	require.NoError(t, o.Stop(t.Context()))
	eventually(t, func() bool { return len(leftOf(groups, "")) == 0 }, "%v are gone", groups)
}

func TestPrograms_SayThatAPortIsInUse(t *testing.T) {
	t.Parallel()
	redis := testkit.Program(t, "redis-server")
	listener, err := listen("127.0.0.1:0")
	require.NoError(t, err)
	defer func() { require.NoError(t, listener.Close()) }()
	_, port, err := net.SplitHostPort(listener.Addr().String())
	require.NoError(t, err)
	err = failedLater(t, process.Options{
		Component: registry.Component{Name: "redis"}, Command: redis, Args: []string{"--bind", "127.0.0.1", "--port", port, "--save", "", "--dir", t.TempDir()},
		Ready: process.Ready{Line: regexp.MustCompile("Ready to accept connections")},
	})
	var exit *process.ExitError
	require.ErrorAs(t, err, &exit)
	require.Equal(t, 1, exit.Code)
	require.Contains(t, strings.Join(exit.Lines, "\n"), "Address already in use")
}
