// Package registrytest helps to test programs that use a registry: a registry that
// is closed with the test, fakes that follow a script, one line that puts them in
// the place of real providers, a recorder that says who was asked and why, servers
// that speak the chat API of OpenAI and fail on request, and suites for those who
// write a selector, a probe or a source of providers.
//
// A program registers real providers. Its test swaps one of them, or all, for as long
// as it runs:
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
// A fake is a type of the test's own with a [Script] in it, which decides what a call
// meets; the answer is the test's:
//
//	type fake struct{ *registrytest.Script }
//
//	func (f fake) Chat(ctx context.Context, prompt string) (string, error) {
//		return "an answer", f.Play(ctx)
//	}
//
// A program that registers while it starts, such as under an orchestrator, gets its
// fakes before that: [Override] holds for whatever is registered later.
//
// What is swapped or overridden stays registered and is not picked. Its probes go on, so
// where they are those of a real server, turn them off with
// [registry.Registration.SetHealth].
//
// # Time
//
// Everything here uses package time and starts nothing in the background, so it works
// in a bubble of [testing/synctest], where an hour of cooldown takes no time. What is
// used in a bubble must be made there; contexts come from [testing.T.Context]. Real
// sockets do not work in a bubble, so there use [NewPipeServer].
//
// # Parallel tests
//
// Tests that swap or override need a registry for each of them, or must not be
// parallel: while one has something in the place of providers, others are told so
// and fail, but for its own subtests.
//
// The package imports package testing and the standard library, and is for tests only.
package registrytest
