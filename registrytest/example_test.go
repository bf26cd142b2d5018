package registrytest_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/capreg/registry"
	"github.com/capreg/registry/health"
	"github.com/capreg/registry/registrytest"
	"github.com/capreg/registry/selection"
	"github.com/capreg/registry/startup"
	"github.com/capreg/registry/stream"
	"github.com/capreg/registry/verdict"
)

// exampleT is the t of a test in examples, which have none.
type exampleT struct {
	testing.TB

	name    string
	cleanup []func()
}

func (t *exampleT) Helper()                           {}
func (t *exampleT) Name() string                      { return t.name }
func (t *exampleT) Failed() bool                      { return false }
func (t *exampleT) Context() context.Context          { return context.Background() }
func (t *exampleT) Errorf(format string, args ...any) { fmt.Printf("--- FAIL: "+format+"\n", args...) }
func (t *exampleT) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }
func (t *exampleT) Logf(string, ...any)               {}
func (t *exampleT) Cleanup(f func())                  { t.cleanup = append(t.cleanup, f) }

// run runs a test.
func run(name string, test func(*exampleT)) {
	t := &exampleT{name: name}
	defer func() {
		for _, cleanup := range slices.Backward(t.cleanup) {
			cleanup()
		}
	}()
	test(t)
}

// newProgram registers what a program would: two real models.
func newProgram(t *exampleT) (*registry.Registry, *registry.Resolver[chatModel]) {
	reg := registrytest.New(t, registry.Options{})
	for group, name := range []string{"cloud", "local"} {
		if _, err := chat.Register(t.Context(), reg, registry.Provider[chatModel]{Name: name, Group: group, Instance: says("the real " + name)}); err != nil {
			t.Fatalf("%v", err)
		}
	}
	return reg, chat.Bind(reg, registry.Query{})
}

// talk makes a call and prints what comes of it.
func talk(t *exampleT, models *registry.Resolver[chatModel]) {
	answer, err := registry.Call(t.Context(), models, func(ctx context.Context, m chatModel) (string, error) {
		return m.Chat(ctx, "hello")
	})
	fmt.Println(answer, err)
}

func ExampleSwap() {
	run("TestProgram", func(t *exampleT) { // func TestProgram(t *testing.T) {
		reg, models := newProgram(t)
		undo := registrytest.Swap[chatModel](t, reg, chat, "cloud", fake{registrytest.NewScript(), "a fake"})
		talk(t, models)
		undo() // else the end of the test does
		talk(t, models)
	})
	// Output:
	// a fake <nil>
	// the real cloud <nil>
}

func ExampleOverride() {
	run("TestProgram", func(t *exampleT) {
		reg, models := newProgram(t)
		down := fake{registrytest.NewScript(registrytest.Fail(verdict.ClassServerError)), "the first fake"}
		undo := registrytest.Override[chatModel](t, reg, chat, down, fake{registrytest.NewScript(), "the second fake"})
		talk(t, models) // the first one fails once
		talk(t, models)
		undo()
		registrytest.Override(t, reg, chat) // without instances: an outage
		_, err := models.Get(t.Context())
		fmt.Println(errors.Is(err, registry.ErrUnavailable))
	})
	// Output:
	// the second fake <nil>
	// the first fake <nil>
	// true
}

// A program that registers while it starts gets its fakes before that.
func ExampleOverride_start() {
	run("TestProgram", func(t *exampleT) {
		reg := registrytest.New(t, registry.Options{})
		registrytest.Override[chatModel](t, reg, chat, fake{registrytest.NewScript(), "a fake"})
		program, err := registry.NewOrchestrator(reg, startup.Options{}, registry.Component{
			Name: "models", Register: []func(context.Context, *registry.Registry) (*registry.Registration, error){
				func(ctx context.Context, reg *registry.Registry) (*registry.Registration, error) {
					return chat.Register(ctx, reg, registry.Provider[chatModel]{Name: "cloud", Instance: says("the real cloud")})
				},
			},
		})
		if err != nil {
			t.Fatalf("%v", err)
		}
		if _, err := program.Start(t.Context()); err != nil {
			t.Fatalf("%v", err)
		}
		talk(t, chat.Bind(reg, registry.Query{}))
		fmt.Println(program.Stop(t.Context()))
	})
	// Output:
	// a fake <nil>
	// <nil>
}

func ExampleOverrideWith() {
	run("TestProgram", func(t *exampleT) {
		reg, models := newProgram(t)
		registrytest.OverrideWith(t, reg, chat,
			registry.Provider[chatModel]{Name: "fast", Instance: says("the fast fake"), Priority: registry.PriorityHigh},
			registry.Provider[chatModel]{Name: "slow", Instance: says("the slow fake")},
		)
		talk(t, models)
	})
	// Output:
	// the fast fake <nil>
}

func ExampleScript() {
	ctx := context.Background()
	script := registrytest.NewScript(
		registrytest.Fail(verdict.ClassServerError).Times(2), // two calls fail,
		registrytest.RateLimit(30*time.Second),               // the next is turned away,
		registrytest.OK(),                                    // one is answered,
		registrytest.Error(io.ErrUnexpectedEOF),              // one fails as you like,
	).Always(registrytest.OK().After(time.Millisecond)) // and from then on answers take a while
	for script.Left() > 0 {
		fmt.Println(script.Play(ctx))
	}
	fmt.Println(script.Play(ctx), script.Calls())
	// Output:
	// scripted: server error
	// scripted: server error
	// scripted: 429 Too Many Requests
	// <nil>
	// unexpected EOF
	// <nil> 6
}

func ExampleScript_Sometimes() {
	script := registrytest.NewScript().Sometimes(7, 0.25, registrytest.Fail(verdict.ClassTransport))
	failed := 0
	for range 1000 {
		if script.Play(context.Background()) != nil {
			failed++
		}
	}
	fmt.Println(failed > 200 && failed < 300) // and with the seed 7 always the same calls
	// Output:
	// true
}

func ExampleStream() {
	ctx := context.Background()
	script := registrytest.NewScript(registrytest.Cut(2))
	words, err := registrytest.Stream(ctx, script, "one", "two", "three")
	if err != nil {
		panic(err)
	}
	for word, err := range words {
		fmt.Println(word, err)
	}
	// Output:
	// one <nil>
	// two <nil>
}

// A fake that streams, read through package stream: what was cut before its end mark
// is answered elsewhere.
func ExampleStream_failover() {
	run("TestProgram", func(t *exampleT) {
		reg := registrytest.New(t, registry.Options{})
		speakers := registry.NewService[*registrytest.Script]("speaker")
		for group, script := range []*registrytest.Script{registrytest.NewScript(registrytest.Cut(1)), registrytest.NewScript()} {
			if _, err := speakers.Register(t.Context(), reg, registry.Provider[*registrytest.Script]{Group: group, Instance: script}); err != nil {
				t.Fatalf("%v", err)
			}
		}
		open := func(ctx context.Context, script *registrytest.Script) (iter.Seq2[string, error], error) {
			return registrytest.Stream(ctx, script, "hello", "world", "end")
		}
		words, err := stream.Open(t.Context(), speakers.Bind(reg, registry.Query{}), open, stream.Options[string]{
			Last: func(word string) bool { return word == "end" }, Whole: true,
		})
		if err != nil {
			t.Fatalf("%v", err)
		}
		for word, err := range words.All() {
			fmt.Println(word, err)
		}
		fmt.Println(words.Attempts()[0].Class, words.Provider())
	})
	// Output:
	// hello <nil>
	// world <nil>
	// end <nil>
	// malformed speaker-2
}

func ExampleRecorder() {
	run("TestProgram", func(t *exampleT) {
		reg, models := newProgram(t)
		registrytest.Swap[chatModel](t, reg, chat, "cloud", fake{registrytest.NewScript(registrytest.Fail(verdict.ClassServerError)), ""})
		record := registrytest.Record(t, reg)
		talk(t, models)
		record.AssertAttempts("cloud", "local")
		record.AssertAnsweredBy("local")
		record.AssertAnsweredBy("cloud") // fails the test, and prints what happened
		for _, attempt := range record.Calls()[0].Attempts {
			fmt.Println(attempt.Provider, attempt.Why, attempt.Class)
		}
	})
	// Output:
	// the real local <nil>
	// --- FAIL: registrytest: "local" answered the last call, want "cloud"
	// cloud first server error
	// local failover success
}

func ExampleHealth() {
	run("TestProgram", func(t *exampleT) {
		reg, models := newProgram(t)
		probed := &struct {
			fake
			registrytest.Health
		}{fake: says("a fake with a health")}
		registrytest.Swap[chatModel](t, reg, chat, "cloud", probed)
		cloud, _ := reg.Provider("chat", "cloud")
		for _, err := range []error{nil, health.Limp(errors.New("hot")), errors.New("melted")} {
			probed.Set(err)
			for range 3 { // so many failures in a row make it ill
				if _, err := cloud.CheckHealth(t.Context()); err != nil {
					t.Fatalf("%v", err)
				}
			}
			fmt.Println(cloud.Health().State)
		}
		talk(t, models)
	})
	// Output:
	// healthy
	// degraded
	// unhealthy
	// the real local <nil>
}

func ExampleChatServer() {
	run("TestProvider", func(t *exampleT) {
		server := registrytest.NewChatServer(t, registrytest.NewScript(registrytest.RateLimit(time.Minute)))
		for range 2 { // an SDK gets server.URL() and server.Client()
			response, err := post(t.Context(), server, `{"model": "any", "messages": [{"role": "user", "content": "hello"}]}`)
			if err != nil {
				t.Fatalf("%v", err)
			}
			fmt.Printf("%d %q\n", response.StatusCode, response.Header.Get("Retry-After"))
			_ = response.Body.Close()
		}
		fmt.Println(server.Hits(), server.Requests()[0].Prompt)
	})
	// Output:
	// 429 "60"
	// 200 ""
	// 2 hello
}

func ExampleChatServer_AssertNoRetries() {
	run("TestProvider", func(t *exampleT) {
		server := registrytest.NewChatServer(t, nil)
		ask := func(ctx context.Context) error { // through the SDK that is to be tested
			request, err := http.NewRequestWithContext(ctx, http.MethodPost, server.URL()+"chat/completions",
				strings.NewReader(`{"model": "any", "messages": [{"role": "user", "content": "hello"}]}`))
			if err != nil {
				return err
			}
			response, err := server.Client().Do(request)
			if err != nil {
				return err
			}
			if response.StatusCode != http.StatusOK {
				err = errors.New(response.Status)
			}
			return errors.Join(err, response.Body.Close())
		}
		fmt.Println(server.AssertNoRetries(ask))
	})
	// Output:
	// true
}

func ExampleTestProbe() {
	run("TestPing", func(t *exampleT) {
		ping := func(err error) func(testing.TB) health.Probe {
			return func(testing.TB) health.Probe {
				return func(context.Context) error { return err }
			}
		}
		registrytest.TestProbe(t, registrytest.ProbeSuite{Well: ping(nil), Ill: ping(errors.New("no\nroute"))})
	})
	// Output:
	// --- FAIL: registrytest: ill probe: its error is "no\nroute", want one line
}

func ExampleTestSelector() {
	run("TestCheapest", func(t *exampleT) {
		cheapest := selection.Func(func(v selection.View) int {
			best := v.Next(0)
			for i := best; i >= 0; i = v.Next(i + 1) {
				if v.At(i).Cost() < v.At(best).Cost() {
					best = i
				}
			}
			return best
		})
		registrytest.TestSelector(t, func() selection.Selector { return cheapest })
		fmt.Println("done")
	})
	// Output:
	// done
}

// A source that follows a list of names; others follow a file or a catalogue.
func ExampleTestSource() {
	follow := func(ctx context.Context, reg *registry.Registry, lists <-chan []string) error {
		known := map[string]*registry.Registration{}
		for {
			select {
			case <-ctx.Done():
				return nil
			case names := <-lists:
				for name, registration := range known {
					if !slices.Contains(names, name) {
						delete(known, name)
						if err := registration.Unregister(ctx); err != nil {
							return err
						}
					}
				}
				for _, name := range names {
					if known[name] != nil {
						continue
					}
					added, err := chat.Register(ctx, reg, registry.Provider[chatModel]{Name: name, Instance: says(name), Until: ctx})
					if err == nil { // else the next list may bring it
						known[name] = added
					}
				}
			}
		}
	}
	run("TestFollow", func(t *exampleT) {
		registrytest.TestSource(t, func(testing.TB) registrytest.Source {
			lists := make(chan []string, 8)
			return registrytest.Source{
				Run: func(ctx context.Context, reg *registry.Registry) error { return follow(ctx, reg, lists) },
				Set: func(names ...string) { lists <- names },
			}
		})
		fmt.Println("done")
	})
	// Output:
	// done
}
