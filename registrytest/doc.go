// Package registrytest helps to test programs that use a registry. It provides a registry that
// is closed with the test, fakes that follow a script, one-line replacement of real providers
// by fakes, a recorder of calls and their reasons, servers that speak the chat API of OpenAI
// and fail on request, and test suites for selectors, probes and sources of providers.
//
// A program registers real providers. Its test swaps one of them, or all, for the duration of
// the test:
//
//	func TestTheBackupAnswersWhenTheCloudIsDown(t *testing.T) {
//		reg := newRegistryAsTheProgramDoes(t)
//		down := registrytest.NewScript().Always(registrytest.Fail(verdict.ClassServerError))
//		registrytest.Swap[ChatModel](t, reg, LLM, "cloud", fake{down})
//		record := registrytest.Record(t, reg)
//		...
//		record.AssertAttempts("cloud", "local")
//	}
//
// A fake is a type of the test's own with a [Script] in it, which decides the outcome of each
// call; the answer is the test's:
//
//	type fake struct{ *registrytest.Script }
//
//	func (f fake) Chat(ctx context.Context, prompt string) (string, error) {
//		return "an answer", f.Play(ctx)
//	}
//
// A program that registers while it starts, such as under an orchestrator, gets its fakes
// before that: [Override] also applies to providers that are registered later.
//
// A provider that is swapped or overridden stays registered and is not picked. Its probes go
// on; where they are those of a real server, turn them off with
// [registry.Registration.SetHealthPolicy].
//
// # Time
//
// The package uses package time and starts nothing in the background, so it works in a bubble
// of [testing/synctest], where an hour of cooldown takes no time. Values used in a bubble must
// be made there; contexts come from [testing.T.Context]. Real sockets do not work in a bubble;
// use [NewPipeServer] there.
//
// # Parallel tests
//
// Tests that swap or override need a registry of their own, or must not be parallel: while one
// test has replaced providers, others are refused and fail, except for its own subtests.
//
// The package imports package testing and the standard library, and is for tests only.
package registrytest
