// Command gateway is an HTTP proxy in front of several servers with an API like
// OpenAI's: one address for clients, which keeps answering while the servers fail.
//
// Without a configuration it starts two servers of its own on loopback, so that
// this works at once:
//
//	go run ./examples/gateway
//	curl -s localhost:8080/v1/chat/completions -d '{"model":"demo","messages":[{"role":"user","content":"hello"}]}'
//	curl -sN localhost:8080/v1/chat/completions -d '{"model":"demo","stream":true,"messages":[{"role":"user","content":"hello"}]}'
//	curl -s localhost:8080/v1/models
//	curl -s localhost:8080/status
//
// [Config] documents the configuration file; gateway.json is one. The headers
// X-Served-By, X-Served-Model and X-Attempts of an answer name its source.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/capreg/registry/examples/internal/loopback"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "gateway:", err)
		os.Exit(1) //nolint:gocritic // the process ends; stop has nothing left to undo
	}
}

// run serves until ctx ends, and then until the requests in progress have ended,
// for a while.
func run(ctx context.Context, arguments []string, out io.Writer) (err error) {
	flags := flag.NewFlagSet("gateway", flag.ContinueOnError)
	flags.SetOutput(out)
	address := flags.String("listen", "localhost:8080", "the address to listen on")
	path := flags.String("config", "", "the configuration file; none: two built-in servers on loopback")
	if err := flags.Parse(arguments); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q: a configuration file is given with -config", flags.Arg(0))
	}
	var config Config
	if *path != "" {
		config, err = readConfigFile(*path)
	} else {
		var end func()
		config, end, err = builtIn()
		defer end()
	}
	if err != nil {
		return err
	}
	logger := log.New(out, "", log.LstdFlags)
	g, err := newGateway(ctx, config, logger)
	if err != nil {
		return err
	}
	const longestGoodbye = 10 * time.Second
	defer func() {
		ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), longestGoodbye)
		defer cancel()
		err = errors.Join(err, g.close(ending))
	}()
	var listen net.ListenConfig
	listener, err := listen.Listen(ctx, "tcp", *address)
	if err != nil {
		return err
	}
	if len(config.Clients) == 0 {
		logger.Print("no clients are configured: every request is admitted")
	}
	logger.Printf("listening on http://%s", listener.Addr())
	return serve(ctx, &http.Server{
		Handler: g, ErrorLog: logger, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute,
	}, listener, longestGoodbye)
}

func serve(ctx context.Context, server *http.Server, listener net.Listener, patience time.Duration) error {
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	server.ErrorLog.Print("stopping: requests in progress may end")
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	err := server.Shutdown(ending)
	if err != nil {
		err = errors.Join(err, server.Close())
	}
	if served := <-failed; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}

// builtIn starts two servers, and returns a configuration for them.
func builtIn() (_ Config, end func(), err error) {
	config := Config{
		Upstreams: make(map[string]Upstream),
		Routes:    []Route{{Model: "demo*", Groups: []Group{{Upstreams: []string{"loopback-a"}}, {Upstreams: []string{"loopback-b"}}}}},
	}
	var servers []*loopback.Server
	end = func() {
		for _, server := range servers {
			server.Close()
		}
	}
	for _, name := range []string{"loopback-a", "loopback-b"} {
		server, err := loopback.Start(name, loopback.OpenAI)
		if err != nil {
			return Config{}, end, err
		}
		servers = append(servers, server)
		config.Upstreams[name] = Upstream{
			URL: server.URL() + "/v1", Models: map[string]string{"demo": "words-1", "demo-large": "words-2"},
		}
	}
	return config, end, nil
}
