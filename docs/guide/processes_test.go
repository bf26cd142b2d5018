package guide_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/capreg/registry"
	"github.com/capreg/registry/health"
	"github.com/capreg/registry/registryhttp"
	"github.com/capreg/registry/startup"
)

// webServer returns a server that tells whether the program is ready.
func webServer(reg *registry.Registry) *http.Server {
	mux := http.NewServeMux()
	mux.HandleFunc("/readyz", func(w http.ResponseWriter, _ *http.Request) {
		if reg.Health(health.Readiness).State == health.Unhealthy { // else health.Healthy or health.Degraded
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	return &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
}

// webComponent returns the component of a server.
func webComponent(server *http.Server, address string) registry.Component {
	web := registry.Component{
		Name: "web", Needs: startup.Capabilities("chat"),
		Start: func(ctx context.Context, run *startup.Run) error {
			listener, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
			if err != nil {
				return err // the start fails
			}
			run.Detail(listener.Addr().String()) // for the report
			run.Go(func(ctx context.Context) error {
				return registryhttp.Serve(ctx, server, listener, 5*time.Second)
			})
			return nil
		},
	}
	return web
}

func modelComponent() registry.Component {
	return registry.Component{
		Name: "model", Provides: []string{"chat"},
		Register: []func(context.Context, *registry.Registry) (*registry.Registration, error){
			func(ctx context.Context, reg *registry.Registry) (*registry.Registration, error) {
				return LLM.Register(ctx, reg, registry.Provider[Model]{Name: "local", Instance: model{"local", nil}})
			},
		},
		Stop: func(context.Context) error { fmt.Println("model stopped"); return nil },
	}
}

func Example_webServer() {
	ctx := context.Background()
	reg, err := registry.New(registry.Options{})
	if err != nil {
		panic(err)
	}
	defer func() { _ = reg.Close(ctx) }()
	o, err := registry.NewOrchestrator(reg, startup.Options{}, webComponent(webServer(reg), "localhost:0"), modelComponent())
	if err != nil {
		panic(err)
	}
	report, err := o.Start(ctx)
	if err != nil {
		panic(err)
	}
	response, err := http.Get("http://" + report.Components[1].Detail + "/readyz") //nolint:noctx // answered at once
	if err != nil {
		panic(err)
	}
	_, _ = io.Copy(io.Discard, response.Body)
	_ = response.Body.Close()
	http.DefaultClient.CloseIdleConnections()
	fmt.Println(response.Status)
	fmt.Println(o.Stop(ctx))
	fmt.Println(reg.Health(health.Readiness).State)
	// Output:
	// 200 OK
	// model stopped
	// <nil>
	// unhealthy
}

// It is compiled, and not run, since what it prints has times.
func Example_startReport() { //nolint:testableexamples // see above
	ctx, reg := context.Background(), new(registry.Registry)
	web, model := webComponent(webServer(reg), "localhost:8080"), modelComponent()
	o, err := registry.NewOrchestrator(reg, startup.Options{Listen: startup.Progress(os.Stdout)}, web, model)
	if err != nil {
		panic(err)
	}
	report, err := o.Start(ctx)
	fmt.Println(report)
	for _, c := range report.Components {
		fmt.Println(c.Name, c.State, c.Took(), c.Reason)
	}
	fmt.Println(err, o.Stop(ctx))
}
