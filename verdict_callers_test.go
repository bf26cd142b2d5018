package registry_test

import (
	"context"
	"math/rand/v2"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/internal/testkit"
	"github.com/capreg/registry/verdict"
)

// nonsense is what one caller asks for: each kind has an outcome that is about the request, or about the caller.
var nonsense = []func(ctx context.Context, cancel func()) error{
	func(context.Context, func()) error { return testkit.StatusError{Code: http.StatusNotFound} },
	func(context.Context, func()) error {
		return testkit.StatusError{Code: http.StatusForbidden, After: time.Minute}
	},
	func(context.Context, func()) error { return testkit.StatusError{Code: http.StatusBadRequest} },
	func(context.Context, func()) error { return testkit.StatusError{Code: http.StatusGone} },
	func(context.Context, func()) error { return testkit.StatusError{Code: http.StatusConflict} },
	func(context.Context, func()) error {
		return testkit.StatusError{Code: http.StatusRequestEntityTooLarge}
	},
	func(context.Context, func()) error { return testkit.StatusError{Code: 499} },
	func(context.Context, func()) error { return &codeError{400, "unsupported_parameter"} },
	func(context.Context, func()) error { return &codeError{400, "context_length_exceeded"} },
	func(context.Context, func()) error { return &codeError{400, "content_policy_violation"} },
	func(context.Context, func()) error { return verdict.Permanent(testkit.ErrDown) },
	func(context.Context, func()) error { return verdict.Cannot(testkit.ErrDown) },
	func(ctx context.Context, cancel func()) error { cancel(); return ctx.Err() },
	func(ctx context.Context, cancel func()) error {
		time.AfterFunc(time.Millisecond, cancel)
		<-ctx.Done()
		return ctx.Err()
	},
}

// A caller that only asks for nonsense, leaves, or reads slowly takes no provider from another one. Variants: one
// provider and two, own domains and a shared one, calls, once-only calls, and leases that are held for long.
func TestCall_NonsenseOfOneCallerCostsOthersNothing(t *testing.T) {
	t.Parallel()
	for _, names := range [][]string{{"a"}, {"a", "b"}} {
		for _, domain := range []string{"", "key"} {
			testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
				var all []*registry.Registration
				for _, name := range names {
					all = append(all, testkit.Add(t, reg, testkit.Provider{Name: name, Domain: domain}))
				}
				askForNonsense(t, reg)
				for _, registration := range all {
					require.True(t, registration.Info().Eligible)
					require.Zero(t, registration.Breaker().ConsecutiveFailures)
				}
			})
		}
	}
}

// askForNonsense makes 1,000 calls at random times: half of one caller, which asks for nonsense, half of one that
// does not, which loses none.
func askForNonsense(t *testing.T, reg *registry.Registry) {
	t.Helper()
	random := rand.New(rand.NewPCG(5, 6))
	r := testkit.Bind(reg)
	var running sync.WaitGroup
	for range 500 {
		kind, lease, once := random.IntN(len(nonsense)), random.IntN(3) == 0, random.IntN(3) == 0
		running.Go(func() { askNonsense(r, nonsense[kind], lease, once) })
		text, err := testkit.Ask(t.Context(), r, registry.Caller("good"))
		require.NoError(t, err)
		require.NotEmpty(t, text)
		testkit.Pass(time.Duration(random.IntN(50)) * time.Millisecond)
	}
	running.Wait()
}

func askNonsense(r *registry.Resolver[testkit.ChatModel], kind func(context.Context, func()) error, lease, once bool) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	options := []registry.CallOption{registry.Caller("nonsense")}
	if once {
		options = append(options, registry.OnceOnly())
	}
	if !lease {
		_, _ = registry.Call(ctx, r, func(ctx context.Context, _ testkit.ChatModel) (int, error) { return 0, kind(ctx, cancel) }, options...)
		return
	}
	held, err := r.Acquire(ctx, options...)
	if err != nil {
		return
	}
	held.Steps().Answered()
	time.Sleep(10 * time.Second) // it reads slowly
	held.Done(kind(ctx, cancel))
}

// Statuses by default mean what RFC 9110 says. The wanted provider is the one that answers, or none where the status
// is the answer.
func TestCall_StatusDecidesWhetherAnotherProviderIsAsked(t *testing.T) {
	t.Parallel()
	for code, moves := range map[int]bool{
		400: false, 401: true, 402: true, 403: true, 404: false, 405: false, 406: false, 407: true, 408: true, 409: false,
		410: false, 412: false, 413: false, 414: false, 415: false, 421: true, 422: false, 423: false, 424: true, 425: true,
		428: false, 429: true, 431: false, 451: false, 499: false, 500: true, 501: true, 503: true, 529: true,
	} {
		testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
			testkit.Add(t, reg, testkit.Provider{Name: "a", Instance: testkit.Fails(testkit.StatusError{Code: code})})
			testkit.Add(t, reg, testkit.Provider{Name: "b"})
			text, err := testkit.Ask(t.Context(), testkit.Bind(reg))
			require.Equal(t, moves, err == nil, "%d: %v", code, err)
			require.Equal(t, moves, text == "b", code)
		})
	}
}

// The profile of a provider is its classifier's choice.
func TestCall_ProfileIsTheClassifiersChoice(t *testing.T) {
	t.Parallel()
	ask := func(t *testing.T, classify verdict.Classifier, err error) (text string) {
		t.Helper()
		testkit.Bubble(t, registry.Options{}, func(t *testing.T, reg *registry.Registry) {
			testkit.Add(t, reg, testkit.Provider{Name: "a", Classify: classify, Instance: testkit.Fails(err)})
			testkit.Add(t, reg, testkit.Provider{Name: "b"})
			text, _ = testkit.Ask(t.Context(), testkit.Bind(reg))
		})
		return text
	}
	notThere, conflict := testkit.StatusError{Code: 404}, testkit.StatusError{Code: 409}
	require.Empty(t, ask(t, nil, notThere))
	require.Equal(t, "b", ask(t, verdict.LLM, notThere))
	require.Equal(t, "b", ask(t, verdict.LLM, conflict))
	require.Equal(t, "b", ask(t, nil, &codeError{404, "model_not_found"}))
	require.Empty(t, ask(t, verdict.HTTP, &codeError{404, "model_not_found"}))
	errNoUser := verdict.Map(map[error]verdict.Class{testkit.ErrDown: verdict.ClassResource})
	require.Equal(t, "b", ask(t, nil, testkit.ErrDown))
	require.Empty(t, ask(t, errNoUser, testkit.ErrDown))
}
