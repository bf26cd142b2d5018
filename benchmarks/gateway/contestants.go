package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// contestant is a server in processes of its own.
type contestant struct {
	name    string
	address string
	headers string // of requests to it
	command *exec.Cmd
}

// field is all servers of a run.
type field struct {
	folder      string // of what they need
	program     string // the gateway
	upstream    *contestant
	contestants []*contestant
	ways        []*contestant // the way of a request through the gateway, by the library and without it
	started     []*contestant
	absent      []string
}

// buildGateway builds examples/gateway in its own module, of which this one knows nothing without a workspace.
func buildGateway(ctx context.Context, program string) error {
	folder, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "github.com/capreg/registry").Output()
	if err != nil {
		return fmt.Errorf("finding the repository: %w", err)
	}
	build := exec.CommandContext(ctx, "go", "build", "-o", program, "./gateway") //nolint:gosec // of our own folder
	build.Dir = filepath.Join(strings.TrimSpace(string(folder)), "examples")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("building examples/gateway: %w: %s", err, out)
	}
	return nil
}

// newField builds and starts the servers.
func newField(ctx context.Context, portkey string) (_ *field, err error) {
	folder, err := os.MkdirTemp("", "gateway")
	if err != nil {
		return nil, err
	}
	f := &field{folder: folder}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.end())
		}
	}()
	if f.upstream, err = f.startOwn(ctx, "upstream", "-serve", "upstream"); err != nil {
		return nil, err
	}
	proxy, err := f.startOwn(ctx, "reverse proxy", "-serve", "proxy", "-target", f.upstream.address)
	if err != nil {
		return nil, err
	}
	for _, way := range [][2]string{{withLibrary, "library"}, {withoutLibrary, "bare"}} {
		c, err := f.startOwn(ctx, way[0], "-serve", way[1], "-target", f.upstream.address)
		if err != nil {
			return nil, err
		}
		f.ways = append(f.ways, c)
	}
	f.program = filepath.Join(folder, "program")
	if err := buildGateway(ctx, f.program); err != nil {
		return nil, err
	}
	gateway, err := f.startGateway(ctx, "gateway", f.upstream.address)
	if err != nil {
		return nil, err
	}
	f.contestants = []*contestant{gateway, proxy}
	return f, f.startForeign(ctx, portkey)
}

// startForeign starts the gateways of others that are installed.
func (f *field) startForeign(ctx context.Context, portkey string) error {
	if nginx, err := exec.LookPath("nginx"); err != nil {
		f.absent = append(f.absent, "nginx is not installed")
	} else if err := f.startNginx(ctx, nginx); err != nil {
		return err
	}
	if portkey == "" {
		f.absent = append(f.absent, "Portkey: no -portkey")
		return nil
	}
	address, err := freeAddress(ctx)
	if err != nil {
		return err
	}
	_, port, _ := net.SplitHostPort(address)
	c := &contestant{
		name: "portkey", address: address,
		headers: fmt.Sprintf("x-portkey-provider: openai\r\nx-portkey-custom-host: http://%s/v1\r\n", f.upstream.address),
	}
	if err := f.start(ctx, c, "node", filepath.Join(portkey, "node_modules/@portkey-ai/gateway/build/start-server.js"), "--port="+port, "--headless"); err != nil {
		return err
	}
	f.contestants = append(f.contestants, c)
	return nil
}

// startOwn starts this program in another role.
func (f *field) startOwn(ctx context.Context, name string, arguments ...string) (*contestant, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	said, says := io.Pipe()
	c := &contestant{name: name, command: exec.CommandContext(ctx, self, arguments...)} //nolint:gosec // this program
	c.command.Stdout = says
	if err := f.launch(c); err != nil {
		return nil, err
	}
	scanner := bufio.NewScanner(said)
	if !scanner.Scan() {
		return nil, fmt.Errorf("%s: %w", name, errNoAddress)
	}
	c.address = scanner.Text()
	go func() { _, _ = io.Copy(io.Discard, said) }()
	return c, nil
}

// startGateway starts examples/gateway over the upstreams, one group for each.
func (f *field) startGateway(ctx context.Context, name string, upstreams ...string) (*contestant, error) {
	var servers, groups []string
	for i, address := range upstreams {
		servers = append(servers, fmt.Sprintf(`"u%d":{"url":"http://%s/v1"}`, i, address))
		groups = append(groups, fmt.Sprintf(`{"upstreams":["u%d"]}`, i))
	}
	file := filepath.Join(f.folder, strings.ReplaceAll(name, " ", "-")+".json")
	document := fmt.Sprintf(`{"upstreams":{%s},"routes":[{"model":"bench*","groups":[%s]}]}`, strings.Join(servers, ","), strings.Join(groups, ","))
	if err := os.WriteFile(file, []byte(document), 0o600); err != nil {
		return nil, err
	}
	address, err := freeAddress(ctx)
	if err != nil {
		return nil, err
	}
	c := &contestant{name: name, address: address}
	return c, f.start(ctx, c, f.program, "-listen", address, "-config", file)
}

// startNginx starts nginx with a worker for each CPU and idle connections to its upstream.
func (f *field) startNginx(ctx context.Context, program string) error {
	address, err := freeAddress(ctx)
	if err != nil {
		return err
	}
	file := filepath.Join(f.folder, "nginx.conf")
	text := fmt.Sprintf(`daemon off; worker_processes auto; pid %[1]s/nginx.pid; error_log %[1]s/nginx.log;
events { worker_connections 4096; }
http {
  access_log off; client_body_temp_path %[1]s/body; proxy_temp_path %[1]s/proxy;
  fastcgi_temp_path %[1]s/fastcgi; uwsgi_temp_path %[1]s/uwsgi; scgi_temp_path %[1]s/scgi;
  keepalive_requests 1000000;
  upstream up { server %[2]s; keepalive 256; keepalive_requests 1000000; }
  server { listen %[3]s; location / { proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off; } }
}
`, f.folder, f.upstream.address, address)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return err
	}
	c := &contestant{name: "nginx", address: address}
	if err := f.start(ctx, c, program, "-c", file, "-e", filepath.Join(f.folder, "nginx.log")); err != nil {
		return err
	}
	f.contestants = append(f.contestants, c)
	return nil
}

// start starts a server that listens on the contestant's address, and waits until it does.
func (f *field) start(ctx context.Context, c *contestant, program string, arguments ...string) error {
	c.command = exec.CommandContext(ctx, program, arguments...) //nolint:gosec // a contestant
	if err := f.launch(c); err != nil {
		return err
	}
	var dialer net.Dialer
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		connection, err := dialer.DialContext(ctx, "tcp", c.address)
		if err == nil {
			return connection.Close()
		}
		if ctx.Err() != nil || time.Now().After(deadline) {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
}

// launch starts the processes, in a group of their own.
func (f *field) launch(c *contestant) error {
	c.command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.command.Cancel = c.end
	if err := c.command.Start(); err != nil {
		return fmt.Errorf("%s: %w", c.name, err)
	}
	f.started = append(f.started, c)
	return nil
}

// end kills the processes of the group.
func (c *contestant) end() error { return syscall.Kill(-c.command.Process.Pid, syscall.SIGKILL) }

// end ends all servers.
func (f *field) end() error {
	for _, c := range f.started {
		_ = c.end()
		_ = c.command.Wait()
		if out, ok := c.command.Stdout.(io.Closer); ok {
			_ = out.Close()
		}
	}
	return os.RemoveAll(f.folder)
}

func (f *field) named(name string) *contestant {
	return f.contestants[slices.IndexFunc(f.contestants, func(c *contestant) bool { return c.name == name })]
}

// figures are those of each round, by name.
type figures map[string][]float64

// median returns the figure in the middle.
func (f figures) median(name string) float64 {
	sorted := slices.Sorted(slices.Values(f[name]))
	return sorted[len(sorted)/2]
}

// ratio returns the median of one by the other in the same round, and difference that of one less the other: what the machine
// does beside concerns both of them alike.
func (f figures) ratio(of, by string) float64 {
	return f.paired(of, by, func(a, b float64) float64 { return a / b })
}

func (f figures) difference(of, less string) float64 {
	return f.paired(of, less, func(a, b float64) float64 { return a - b })
}

func (f figures) paired(a, b string, join func(a, b float64) float64) float64 {
	joined := make(figures)
	for i, value := range f[a] {
		joined[""] = append(joined[""], join(value, f[b][i]))
	}
	return joined.median("")
}

// compete gives each contestant its turns, and returns the requests per second and the µs of CPU for one.
func (f *field) compete(ctx context.Context, all []*contestant, s settings, l load) (rates, costs figures, err error) {
	rates, costs = make(figures), make(figures)
	for round := -1; round < s.rounds; round++ { // the first warms up
		for i := range all {
			c := all[(i+round+1)%len(all)]
			before := c.cpuTime()
			answered, took, err := l.play(ctx, c, s.turn)
			if err != nil {
				return nil, nil, fmt.Errorf("%s: %w", c.name, err)
			}
			if round >= 0 {
				rates[c.name] = append(rates[c.name], float64(answered)/took.Seconds())
				costs[c.name] = append(costs[c.name], float64((c.cpuTime()-before).Nanoseconds())/1e3/float64(answered))
			}
		}
	}
	return rates, costs, nil
}

// members returns the processes of the group.
func (c *contestant) members() []string {
	group := strconv.Itoa(c.command.Process.Pid)
	files, _ := filepath.Glob("/proc/[0-9]*/stat")
	return slices.DeleteFunc(files, func(file string) bool {
		fields := statOf(file)
		return len(fields) < 3 || fields[2] != group
	})
}

// statOf returns the fields of a process behind its name: state, parent, group and so on.
func statOf(file string) []string {
	text, err := os.ReadFile(file) //nolint:gosec // a process
	if err != nil {
		return nil
	}
	_, behind, _ := bytes.Cut(text, []byte(") "))
	return strings.Fields(string(behind))
}

// cpuTime returns the CPU time of the processes, to the ns, by their threads. Those of Go and of the others do not end.
func (c *contestant) cpuTime() (all time.Duration) {
	for _, file := range c.members() {
		threads, _ := filepath.Glob(filepath.Join(filepath.Dir(file), "task/*/schedstat"))
		for _, thread := range threads {
			text, _ := os.ReadFile(thread) //nolint:gosec // of a process
			first, _, _ := strings.Cut(string(text), " ")
			ns, _ := strconv.ParseInt(first, 10, 64)
			all += time.Duration(ns)
		}
	}
	return all
}

// peakMemory returns the bytes that the processes have had at most.
func (c *contestant) peakMemory() (all int64) {
	for _, file := range c.members() {
		text, _ := os.ReadFile(filepath.Join(filepath.Dir(file), "status"))
		_, behind, _ := strings.Cut(string(text), "VmHWM:")
		var kib int64
		if _, err := fmt.Sscan(behind, &kib); err == nil {
			all += kib << 10
		}
	}
	return all
}

func freeAddress(ctx context.Context) (string, error) {
	var listen net.ListenConfig
	listener, err := listen.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return listener.Addr().String(), listener.Close()
}
