package sdktest_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anthropics/anthropic-sdk-go"
	anthropicoption "github.com/anthropics/anthropic-sdk-go/option"
	"github.com/openai/openai-go/v3"
	openaioption "github.com/openai/openai-go/v3/option"
	"github.com/stretchr/testify/require"

	"github.com/capreg/registry"
	"github.com/capreg/registry/registryhttp"
	"github.com/capreg/registry/registrytest"
)

var upstreams = registry.NewService[*registryhttp.Upstream]("llm")

// keyOfProgram is the key that the programs have; the upstreams have their own.
const keyOfProgram = "key-of-the-program"

// ofOpenAI is a program on the official SDK: it is asked plainly, as a stream, and with a tool. The transport is all that was changed.
func ofOpenAI(ctx context.Context, transport http.RoundTripper, question, kind string) (string, error) {
	client := openai.NewClient(openaioption.WithAPIKey(keyOfProgram), openaioption.WithHTTPClient(&http.Client{Transport: transport}))
	params := openai.ChatCompletionNewParams{Model: "model", Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage(question)}}
	if kind == "stream" {
		stream, answer := client.Chat.Completions.NewStreaming(ctx, params), openai.ChatCompletionAccumulator{}
		for stream.Next() {
			answer.AddChunk(stream.Current())
		}
		if err := stream.Err(); err != nil || len(answer.Choices) == 0 {
			return "", fmt.Errorf("stream: %w", err)
		}
		return answer.Choices[0].Message.Content, nil
	}
	if kind == "tools" {
		params.Tools = []openai.ChatCompletionToolUnionParam{openai.ChatCompletionFunctionTool(openai.FunctionDefinitionParam{Name: "look_up"})}
	}
	answer, err := client.Chat.Completions.New(ctx, params)
	for err == nil && len(answer.Choices[0].Message.ToolCalls) > 0 {
		call := answer.Choices[0].Message.ToolCalls[0]
		params.Messages = append(params.Messages, answer.Choices[0].Message.ToParam(), openai.ToolMessage("found "+call.Function.Name, call.ID))
		answer, err = client.Chat.Completions.New(ctx, params)
	}
	if err != nil {
		return "", err
	}
	return answer.Choices[0].Message.Content, nil
}

// ofAnthropic is the same on the other SDK.
func ofAnthropic(ctx context.Context, transport http.RoundTripper, question, kind string) (string, error) {
	client := anthropic.NewClient(anthropicoption.WithAPIKey(keyOfProgram), anthropicoption.WithHTTPClient(&http.Client{Transport: transport}))
	params := anthropic.MessageNewParams{Model: "model", MaxTokens: 100, Messages: []anthropic.MessageParam{anthropic.NewUserMessage(anthropic.NewTextBlock(question))}}
	if kind == "stream" {
		stream, answer := client.Messages.NewStreaming(ctx, params), anthropic.Message{}
		for stream.Next() {
			if err := answer.Accumulate(stream.Current()); err != nil {
				return "", err
			}
		}
		if err := stream.Err(); err != nil || len(answer.Content) == 0 {
			return "", fmt.Errorf("stream: %w", err)
		}
		return answer.Content[0].Text, nil
	}
	if kind == "tools" {
		params.Tools = []anthropic.ToolUnionParam{{OfTool: &anthropic.ToolParam{Name: "look_up"}}}
	}
	answer, err := client.Messages.New(ctx, params)
	for err == nil && answer.StopReason == anthropic.StopReasonToolUse {
		call := answer.Content[0]
		params.Messages = append(params.Messages, answer.ToParam(), anthropic.NewUserMessage(anthropic.NewToolResultBlock(call.ID, "found "+call.Name, false)))
		answer, err = client.Messages.New(ctx, params)
	}
	if err != nil {
		return "", err
	}
	return answer.Content[0].Text, nil
}

// api is what the two programs speak.
type api struct {
	program     func(ctx context.Context, transport http.RoundTripper, question, kind string) (string, error)
	base        string // of the URLs of its SDK
	path        string
	key, prefix string // the header of the key
	answer      func(question string, done, tools bool) string
	events      func(words []string) []string
}

var apis = map[string]api{
	"openai-go": {
		program: ofOpenAI, base: "/v1", path: "/chat/completions", key: "Authorization", prefix: "Bearer ",
		answer: func(question string, done, tools bool) string {
			if tools && !done {
				return `{"choices":[{"finish_reason":"tool_calls","message":{"role":"assistant","tool_calls":[{"id":"1","type":"function","function":{"name":"look_up","arguments":"{}"}}]}}]}`
			}
			return fmt.Sprintf(`{"choices":[{"finish_reason":"stop","message":{"role":"assistant","content":"answer to %s"}}]}`, question)
		},
		events: func(words []string) (events []string) {
			for _, word := range words {
				events = append(events, fmt.Sprintf(`data: {"choices":[{"index":0,"delta":{"content":%q}}]}`, word))
			}
			return append(events, `data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}`, "data: [DONE]")
		},
	},
	"anthropic-sdk-go": {
		program: ofAnthropic, base: "", path: "/v1/messages", key: "X-Api-Key",
		answer: func(question string, done, tools bool) string {
			if tools && !done {
				return `{"role":"assistant","stop_reason":"tool_use","content":[{"type":"tool_use","id":"1","name":"look_up","input":{}}]}`
			}
			return fmt.Sprintf(`{"role":"assistant","stop_reason":"end_turn","content":[{"type":"text","text":"answer to %s"}]}`, question)
		},
		events: func(words []string) (events []string) {
			event := func(kind, data string) {
				events = append(events, fmt.Sprintf("event: %s\ndata: {\"type\":%q%s}", kind, kind, data))
			}
			event("message_start", `,"message":{"role":"assistant","content":[]}`)
			event("content_block_start", `,"index":0,"content_block":{"type":"text","text":""}`)
			for _, word := range words {
				event("content_block_delta", fmt.Sprintf(`,"index":0,"delta":{"type":"text_delta","text":%q}`, word))
			}
			event("content_block_stop", `,"index":0`)
			event("message_delta", `,"delta":{"stop_reason":"end_turn"}`)
			event("message_stop", "")
			return events
		},
	},
}

// troubles are the ways in which an upstream fails before its answer has begun.
var troubles = []func(w http.ResponseWriter){
	func(w http.ResponseWriter) { w.WriteHeader(http.StatusInternalServerError) },
	func(w http.ResponseWriter) {
		w.Header().Set("Retry-After-Ms", "20")
		w.WriteHeader(http.StatusTooManyRequests)
	},
	func(http.ResponseWriter) { panic(http.ErrAbortHandler) },
	func(w http.ResponseWriter) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Retry-After-Ms", "20")
		w.WriteHeader(529)
		_, _ = io.WriteString(w, `{"type":"error","error":{"type":"overloaded_error","message":"busy"}}`)
	},
	func(w http.ResponseWriter) { // cut before the first byte
		w.Header().Set("Content-Type", "text/event-stream")
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	},
	func(w http.ResponseWriter) {
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = io.WriteString(w, strings.Repeat("<html>unavailable</html>", 1000))
	},
}

// scripted is an upstream that fails while it is in trouble.
type scripted struct {
	t       *testing.T
	api     api
	key     string
	trouble atomic.Int32 // its index; -1: none
	retries atomic.Int32 // of the SDK itself
	asked   atomic.Int32
}

func (s *scripted) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.asked.Add(1)
	var asked struct {
		Stream   bool
		Tools    []any
		Messages []struct{ Content any }
	}
	body, err := io.ReadAll(r.Body)
	if err == nil {
		err = json.Unmarshal(body, &asked)
	}
	if err != nil || r.URL.Path != "/own"+s.api.path || r.Header.Get(s.api.key) != s.api.prefix+s.key {
		s.t.Errorf("%s with key %q: %v: %s", r.URL, r.Header.Get(s.api.key), err, body)
	}
	for name, values := range r.Header {
		if strings.Contains(strings.Join(values, " "), keyOfProgram) {
			s.t.Errorf("%s has the program's key", name)
		}
	}
	if r.Header.Get("X-Stainless-Retry-Count") != "0" {
		s.retries.Add(1)
	}
	if trouble := s.trouble.Load(); trouble >= 0 {
		troubles[int(trouble)%len(troubles)](w)
		return
	}
	question := textOf(asked.Messages[0].Content)
	if !asked.Stream {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, s.api.answer(question, len(asked.Messages) > 1, len(asked.Tools) > 0))
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	for _, event := range s.api.events([]string{"answer", " to", " " + question}) {
		_, _ = io.WriteString(w, event+"\n\n")
		_ = http.NewResponseController(w).Flush()
	}
}

// textOf returns the text of a message in either API.
func textOf(content any) string {
	if parts, ok := content.([]any); ok && len(parts) > 0 {
		part, _ := parts[0].(map[string]any)
		content = part["text"]
	}
	text, _ := content.(string)
	return text
}

// withoutEnvironment makes the SDKs ask for their own servers, whatever is set where the test runs.
func withoutEnvironment(t *testing.T) {
	t.Helper()
	t.Setenv("OPENAI_BASE_URL", "https://api.openai.com/v1/")
	t.Setenv("ANTHROPIC_BASE_URL", "https://api.anthropic.com/")
}

// session has three upstreams, each with its own key, behind a transport.
func session(t *testing.T, api api) (*registryhttp.Transport, []*scripted) {
	t.Helper()
	reg, err := registry.New(registry.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, reg.Close(context.Background())) })
	servers := make([]*scripted, 0, 3)
	for _, name := range []string{"a", "b", "c"} {
		s := &scripted{t: t, api: api, key: "key-" + name}
		s.trouble.Store(-1)
		server := httptest.NewServer(s)
		t.Cleanup(server.Close)
		upstream, err := registryhttp.NewUpstream(server.URL+"/own", registryhttp.UpstreamOptions{Header: http.Header{api.key: {api.prefix + s.key}}})
		require.NoError(t, err)
		_, err = upstreams.Register(t.Context(), reg, registry.Provider[*registryhttp.Upstream]{
			Name: name, Instance: upstream, Retry: registry.RetryPolicy{Budget: 1000}, // two of three attempts fail, of as many as the test can make
		})
		require.NoError(t, err)
		servers = append(servers, s)
	}
	transport, err := registryhttp.NewTransport(upstreams.Bind(reg, registry.Query{}), registryhttp.Options{
		Base: api.base, Repeatable: func(*http.Request) bool { return true }, Call: []registry.CallOption{registry.WaitForCooldown()},
	})
	require.NoError(t, err)
	t.Cleanup(transport.CloseIdleConnections)
	return transport, servers
}

func TestTransport_SDKProgramsLoseNothingWhileTwoOfThreeUpstreamsFail(t *testing.T) {
	withoutEnvironment(t)
	for name, api := range apis {
		for when, well := range map[string]func(i int) int{
			"in turn":  func(i int) int { return i % 3 },
			"for good": func(int) int { return 2 },
		} {
			t.Run(name+" "+when, func(t *testing.T) {
				transport, servers := session(t, api)
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				for i := range 100 {
					for j, s := range servers {
						s.trouble.Store(int32(i + j))
					}
					servers[well(i)].trouble.Store(-1)
					question := fmt.Sprintf("question %d", i)
					answer, err := api.program(ctx, transport, question, []string{"plain", "stream", "tools"}[i/3%3])
					require.NoError(t, err, "question %d is lost", i)
					require.Equal(t, "answer to "+question, answer)
				}
				asked := int32(0)
				for _, s := range servers {
					require.Zero(t, s.retries.Load(), "the SDK has tried again by itself")
					require.NotZero(t, s.asked.Load())
					asked += s.asked.Load()
				}
				t.Logf("100 questions: %d requests to upstreams", asked)
				require.Greater(t, asked, int32(133), "upstreams were in trouble: the questions alone are 133 requests")
			})
		}
	}
}

func TestTransport_SDKsReturnTheirOwnErrorsForTheLastRefusal(t *testing.T) {
	withoutEnvironment(t)
	for name, api := range apis {
		t.Run(name, func(t *testing.T) {
			transport, servers := session(t, api)
			for _, s := range servers {
				s.trouble.Store(3)
			}
			_, err := api.program(t.Context(), transport, "question", "plain")
			var ofOpenAI *openai.Error
			var ofAnthropic *anthropic.Error
			switch name {
			case "openai-go":
				require.ErrorAs(t, err, &ofOpenAI)
				require.Equal(t, 529, ofOpenAI.StatusCode)
				require.NotContains(t, string(ofOpenAI.DumpRequest(true)), "key-a")
			default:
				require.ErrorAs(t, err, &ofAnthropic)
				require.Equal(t, 529, ofAnthropic.StatusCode)
			}
			for _, s := range servers {
				require.NotContains(t, err.Error(), s.key)
			}
		})
	}
}

func TestTransport_RetriesOfSDKsAreFound(t *testing.T) {
	withoutEnvironment(t)
	spy := &spyTB{TB: t}
	require.False(t, registrytest.AssertNoClientRetries(spy, func(ctx context.Context, client *http.Client) error {
		_, err := ofAnthropic(ctx, client.Transport, "question", "plain")
		return err
	}))
	require.NotEmpty(t, spy.lines)
	require.Contains(t, spy.lines[0], "switch its retries off")
	require.True(t, registrytest.AssertNoClientRetries(t, func(ctx context.Context, client *http.Client) error {
		off := anthropic.NewClient(anthropicoption.WithAPIKey(keyOfProgram), anthropicoption.WithHTTPClient(client), anthropicoption.WithMaxRetries(0))
		_, err := off.Messages.New(ctx, anthropic.MessageNewParams{Model: "model", MaxTokens: 100})
		return err
	}))
	require.True(t, registrytest.AssertNoClientRetries(t, func(ctx context.Context, client *http.Client) error {
		off := openai.NewClient(openaioption.WithAPIKey(keyOfProgram), openaioption.WithHTTPClient(client), openaioption.WithMaxRetries(0))
		_, err := off.Chat.Completions.New(ctx, openai.ChatCompletionNewParams{Model: "model"})
		return err
	}))
}

// spyTB keeps the errors of a check.
type spyTB struct {
	testing.TB

	lines []string
}

func (s *spyTB) Errorf(format string, args ...any) {
	s.lines = append(s.lines, fmt.Sprintf(format, args...))
}
