package sdktest

import (
	"slices"
	"strings"
	"time"

	"github.com/capreg/registry/verdict"
)

// Exception is a reason for which cells differ from what their fault demands.
type Exception struct {
	// Clients and Faults have the names of the columns and rows that it is about.
	Clients, Faults []string
	// Change returns what the cells have to mean instead.
	Change func(verdict.Verdict) verdict.Verdict
	// Why is the reason.
	Why string
}

func names(list string) []string { return strings.Split(list, "; ") }

// becomes changes the class, and with it drops the delay.
func becomes(c verdict.Class) func(verdict.Verdict) verdict.Verdict {
	return func(verdict.Verdict) verdict.Verdict { return verdict.Verdict{Class: c} }
}

func withoutDelay(v verdict.Verdict) verdict.Verdict {
	v.After = 0
	return v
}

func ofProvider(v verdict.Verdict) verdict.Verdict {
	v.Scope = verdict.ScopeProvider
	return v
}

const (
	limits  = "429; 429 seconds; 429 date; 429 ms; 429 reset-after; 429 reset; 429 reset ms; 429 requests; 429 rfc3339; 429 draft; 429 fields; 429 body"
	delayed = "429 seconds; 429 date; 429 ms; 429 reset-after; 429 reset; 429 reset ms; 429 requests; 429 rfc3339; 429 draft; 429 fields"
)

// Exceptions returns them in the order in which they apply.
func Exceptions() []Exception {
	const (
		ollamas = "ollama; ollama +"
		coheres = "cohere; cohere +"
		geminis = "genai; genai +"
	)
	return []Exception{
		{
			names("openai-go; go-openai; go-openai +; anthropic-sdk-go; " + geminis + "; bedrockruntime"), names(limits), ofProvider,
			"Its code for rate limits is one of limits per model, so that the pause is the provider's alone.",
		},
		{
			names("go-openai; genai; ollama; cohere"), names(delayed), withoutDelay,
			"The client's error has no header, so that the registry chooses the delay. Through `verdict.ErrorTransport` it is known.",
		},
		{
			names("slack"), names("429 ms; 429 reset-after; 429 reset; 429 reset ms; 429 requests; 429 rfc3339; 429 draft; 429 fields"), withoutDelay,
			"The client reads no header but `Retry-After` in seconds. Through `verdict.ErrorTransport` the delay is known.",
		},
		{
			names("slack"), names("429 date"), becomes(verdict.ClassUnknown),
			"The client fails to parse the date, and returns that as its error. Through `verdict.ErrorTransport` the answer is known.",
		},
		{
			names("slack; slack +"), names("429 body"), withoutDelay,
			"The API says so with status 200, and without a delay.",
		},
		{
			names("go-openai; ollama; cohere; slack"), names("503 seconds"), becomes(verdict.ClassServerError),
			"The client's error has no header, so that nothing tells this from another 503. Through `verdict.ErrorTransport` it is known.",
		},
		{
			names("anthropic-sdk-go; " + geminis + "; " + ollamas + "; " + coheres + "; bedrockruntime"), names("400 context"), becomes(verdict.ClassBadRequest),
			"The API has no code for it, only a text.",
		},
		{
			names("anthropic-sdk-go"), names("402"), becomes(verdict.ClassFatal),
			"The API's code says that the account has to be mended.",
		},
		{
			names("anthropic-sdk-go; " + geminis), names("404; 404 model"), becomes(verdict.ClassNotForMe),
			"The API has one code for models and for all else, so that another provider is asked and this one goes on.",
		},
		{
			names(ollamas + "; " + coheres + "; bedrockruntime"), names("404 model"), becomes(verdict.ClassResource),
			"The API has no code that tells a model from another resource. With `verdict.LLM` as the classifier it is \"not for it\".",
		},
		{
			names("anthropic-sdk-go"), names("413"), becomes(verdict.ClassTooLong),
			"The API's code says so.",
		},
		{
			names("anthropic-sdk-go; " + geminis), names("429 quota"), func(v verdict.Verdict) verdict.Verdict {
				return ofProvider(becomes(verdict.ClassRateLimited)(v))
			},
			"The API has one code for quotas and for rate limits.",
		},
		{
			names("bedrockruntime; genai"), names("503"), becomes(verdict.ClassOverloaded),
			"The API's code says that it has no capacity.",
		},
		{
			names("genai +"), names("503"), becomes(verdict.ClassOverloaded),
			"The API's code says that it has no capacity.",
		},
		{
			names("genai"), names("503 seconds"), withoutDelay,
			"The client's error has no header, so that the registry chooses the delay. Through `verdict.ErrorTransport` it is known.",
		},
		{
			names("openai-go; openai-go, Azure; anthropic-sdk-go; " + ollamas + "; discordgo; discordgo +; MCP go-sdk; MCP go-sdk +"), names("HTML"),
			becomes(verdict.ClassUnknown),
			"The client's error is a text. As one that is unknown it fails over and counts.",
		},
		{
			names(ollamas), names("cut; in stream"), becomes(verdict.ClassUnknown),
			"The client's error is a text. As one that is unknown it fails over and counts.",
		},
		{
			names("MCP go-sdk; MCP go-sdk +"), names("cut"), becomes(verdict.ClassUnknown),
			"The client's error is a text. As one that is unknown it fails over and counts.",
		},
		{
			names("discordgo"), names("502"), becomes(verdict.ClassUnknown),
			"The client's error is a text. Through `verdict.ErrorTransport` the status is known.",
		},
		{
			names("MCP go-sdk"), append(names("401; 402; 403; 404; 408; 409; 413; 422; 500; 502; 503; 503 seconds; 504"), names(limits)...),
			becomes(verdict.ClassUnknown),
			"The client's error is a text. Through `verdict.ErrorTransport` the status is known.",
		},
		{
			names("MCP go-sdk +"), names("404"), becomes(verdict.ClassUnknown),
			"The status ends a session, so that the client has to see it: `verdict.ErrorTransport` keeps it. The error is a text.",
		},
		{
			names("MCP go-sdk; MCP go-sdk +"), names("in stream"), becomes(verdict.ClassServerError),
			"JSON-RPC has no code for it but that of an internal error.",
		},
		{
			names("database/sql, pgx"), names("404"), becomes(verdict.ClassBadRequest),
			"The code is one of a table that is not there: the statement is wrong.",
		},
		{
			names("database/sql, pgx; grpc-go"), names("408"), becomes(verdict.ClassAttemptTimeout),
			"The code says that the time was up.",
		},
		{
			names("database/sql, pgx"), names("503"), becomes(verdict.ClassNotSent),
			"The code says that no session was begun.",
		},
		{
			names("database/sql, pgx"), names("TLS"), becomes(verdict.ClassNotSent),
			"The driver says that nothing was sent.",
		},
		{
			names("grpc-go"), names("refused; DNS; 502; 503; HTML; in stream"), becomes(verdict.ClassTransport),
			"gRPC has one code for a server that is not reached, is no server of gRPC, or is not available.",
		},
		{
			names("grpc-go"), names("deadlock"), becomes(verdict.ClassServerError),
			"The code does not say whether all of it was rolled back.",
		},
	}
}

// Expected returns what the error has to mean, and the numbers of the exceptions, from 1.
func Expected(client Client, fault Fault) (want verdict.Verdict, exceptions []int) {
	want = fault.Want
	for i, e := range Exceptions() {
		if slices.Contains(e.Clients, client.Name) && slices.Contains(e.Faults, fault.Name) {
			want = e.Change(want)
			exceptions = append(exceptions, i+1)
		}
	}
	return want, exceptions
}

// llmClasses has the statuses that APIs of language models mean in another way where no code says more.
//
//nolint:gochecknoglobals // immutable data
var llmClasses = map[int]verdict.Class{
	404: verdict.ClassNotForMe, 409: verdict.ClassElsewhere, 413: verdict.ClassTooLong,
}

// ExpectedOfLLM returns the class that [verdict.LLM] has to find in an answer with a status; of is the class that
// [verdict.Of] has found.
func ExpectedOfLLM(fault Fault, of verdict.Class) verdict.Class {
	plain := verdict.OfHTTPStatus(fault.Status, 0).Class
	if class, differs := llmClasses[fault.Status]; differs && of == plain {
		return class
	}
	return of
}

// Same reports whether the delays are the same but for the time that passed since the server named a moment.
func Same(got, want verdict.Verdict) bool {
	const passed = 20 * time.Second
	near := got.After == want.After || want.After == delay && got.After <= delay && got.After > delay-passed
	return got.Class == want.Class && got.Scope == want.Scope && near
}
