// Command gateway is an HTTP proxy in front of several servers with an API like OpenAI's: one address for clients, which keeps
// answering while the servers fail. Without a configuration it starts two servers of its own, so that this works at once:
//
//	go run ./examples/gateway
//	curl -s localhost:8080/v1/chat/completions -d '{"model":"demo","messages":[{"role":"user","content":"hello"}]}'
//	curl -sN localhost:8080/v1/chat/completions -d '{"model":"demo","stream":true,"messages":[{"role":"user","content":"hello"}]}'
//	curl -s localhost:8080/status
//
// [Config] documents the configuration file; gateway.yaml is one. The header X-Served-By of an answer names the upstream, X-Served-Model the
// model there, where that is another one, and X-Attempts counts the attempts, where there were several; of an error the log tells them, by
// its X-Request-Id. /healthz, /readyz and /metrics need no key.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"go.uber.org/zap"

	"github.com/capreg/registry/config"
	"github.com/capreg/registry/examples/internal/heap"
	"github.com/capreg/registry/examples/internal/loglines"
	"github.com/capreg/registry/examples/internal/loopback"
	"github.com/capreg/registry/registryhttp"
)

func main() {
	heap.Floor(14 << 20) // of what 200 streams at once need anyway
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)   // a second signal ends the process at once
	signal.Ignore(syscall.SIGPIPE) // that nothing reads the log any more does not
	reload := make(chan os.Signal, 1)
	signal.Notify(reload, syscall.SIGHUP)
	if err := run(ctx, os.Args[1:], os.Stderr, reload); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "gateway:", err)
		os.Exit(1)
	}
}

// run serves until ctx ends, and then the requests in progress for a while. It reads the configuration again at each reload.
func run(ctx context.Context, arguments []string, out io.Writer, reload <-chan os.Signal) (err error) {
	flags := flag.NewFlagSet("gateway", flag.ContinueOnError)
	flags.SetOutput(out)
	address := flags.String("listen", "localhost:8080", "the address to listen on")
	file := flags.String("config", "", "the configuration file, read again when it changes and at SIGHUP; none: two built-in servers on loopback")
	drain := flags.Duration("drain", 30*time.Second, "the time that requests in progress have at the end; 0: 30s")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q: a configuration file is given with -config", flags.Arg(0))
	}
	var settings Config
	if *file != "" {
		settings, err = config.LoadAs[Config](*file)
	} else {
		var stop func()
		settings, stop, err = builtIn()
		defer stop()
	}
	if err != nil {
		return err
	}
	log, end := loglines.Logger(out)
	defer end()
	network := &http.Transport{
		Proxy: http.ProxyFromEnvironment, DialContext: (&net.Dialer{Timeout: 5 * time.Second}).DialContext, TLSHandshakeTimeout: 5 * time.Second,
		MaxIdleConnsPerHost: 256, IdleConnTimeout: 30 * time.Second, MaxResponseHeaderBytes: 256 << 10, ForceAttemptHTTP2: true,
		DisableCompression: true, // a compressor keeps tokens until it has more of them
	}
	defer network.CloseIdleConnections()
	g, err := newGateway(ctx, settings, log, network)
	if err != nil {
		return err
	}
	defer func() {
		ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		err = errors.Join(err, g.close(ending))
	}()
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", *address)
	if err != nil {
		return err
	}
	if len(settings.Clients) == 0 {
		log.Warn("no clients are configured: every request is admitted")
	}
	log.Info("listening", zap.String("url", "http://"+listener.Addr().String()))
	_ = log.Sync() // at once
	var following sync.WaitGroup
	defer following.Wait()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	following.Go(func() { g.follow(ctx, *file, reload) })
	return registryhttp.Serve(ctx, &http.Server{
		Handler: g, ErrorLog: zap.NewStdLog(log), ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
	}, listener, *drain)
}

// follow reads the configuration again when its file changes and at each signal, until ctx ends: then the gateway is not
// ready any more.
func (g *gateway) follow(ctx context.Context, file string, signals <-chan os.Signal) {
	defer func() { g.stopping.Store(true); _ = g.log.Sync() }()
	defer g.log.Info("ending: requests in progress have their time")
	read := func() {
		next, err := config.LoadAs[Config](file)
		if err == nil {
			err = g.apply(ctx, next)
		}
		if err != nil {
			g.log.Error("the configuration could not be read again, and stays as it was", zap.Error(err))
			return
		}
		g.log.Info("the configuration was read again")
	}
	var watching sync.WaitGroup
	defer watching.Wait()
	if file != "" {
		watching.Go(func() {
			_ = config.File(file).Watch(ctx, func() { time.Sleep(100 * time.Millisecond); read() }) // else it may be half written
		})
	}
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-signals:
			if file != "" {
				read()
			}
		}
	}
}

// builtIn starts two servers, and returns a configuration for them.
func builtIn() (_ Config, end func(), err error) {
	built := Config{
		Upstreams: make(map[string]Upstream),
		Routes:    []Route{{Model: "demo*", Groups: []Group{{Upstreams: []string{"loopback-a"}}, {Upstreams: []string{"loopback-b"}}}}},
	}
	end = func() {}
	for _, name := range []string{"loopback-a", "loopback-b"} {
		server, err := loopback.Start(name, loopback.OpenAI)
		if err != nil {
			return Config{}, end, err
		}
		before := end
		end = func() { server.Close(); before() }
		built.Upstreams[name] = Upstream{URL: server.URL() + "/v1", Models: map[string]string{"demo": "words-1", "demo-large": "words-2"}}
	}
	return built, end, nil
}
