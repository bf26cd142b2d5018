package main

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/openai/openai-go/v3/packages/param"
	"github.com/openai/openai-go/v3/responses"
	"github.com/openai/openai-go/v3/shared"
	"github.com/stretchr/testify/require"
)

// api is a server with the API of OpenAI that answers by what it is asked: "echo: " and the text, a call of a tool where there are
// tools, an object where a schema is given. The model decides on faults.
type api struct {
	t    *testing.T
	left chan struct{} // one for each endless stream whose client has left
}

func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var asked struct {
		Model          string `json:"model"`
		Stream         bool   `json:"stream"`
		Messages       []struct{ Content json.RawMessage }
		Input          json.RawMessage `json:"input"`
		Prompt         string          `json:"prompt"`
		Tools          []any           `json:"tools"`
		ResponseFormat map[string]any  `json:"response_format"`
		EncodingFormat string          `json:"encoding_format"`
		StreamOptions  struct {
			IncludeUsage bool `json:"include_usage"`
		} `json:"stream_options"`
	}
	body, err := io.ReadAll(r.Body)
	if err != nil || json.Unmarshal(body, &asked) != nil {
		return // the client has left
	}
	refuse := map[string]int{"bad": 400, "limited": 429, "limited-stream": 429, "unknown": 404, "dead": 500}[asked.Model]
	if refuse != 0 {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(refuse)
		_, _ = fmt.Fprintf(w, `{"error":{"message":"as asked","type":"invalid_request_error","param":"temperature","code":%q}}`, "as_asked")
		return
	}
	switch {
	case strings.HasSuffix(r.URL.Path, "/embeddings"):
		a.embeddings(w, asked.Input, asked.EncodingFormat)
		return
	case strings.HasSuffix(r.URL.Path, "/responses"):
		a.response(w, asked.Stream)
		return
	case strings.HasSuffix(r.URL.Path, "/chat/completions"):
	default:
		a.send(w, map[string]any{"object": "text_completion", "choices": []any{map[string]any{"index": 0, "text": "echo: " + asked.Prompt, "finish_reason": "stop"}}})
		return
	}
	var text string
	last := asked.Messages[len(asked.Messages)-1].Content
	if json.Unmarshal(last, &text) != nil {
		var parts []struct {
			ImageURL struct {
				URL string `json:"url"`
			} `json:"image_url"`
		}
		if json.Unmarshal(last, &parts) != nil || len(parts) < 2 {
			a.t.Errorf("no parts: %.100s", last)
			return
		}
		text = fmt.Sprintf("image of %d", len(parts[1].ImageURL.URL))
	} else {
		text = "echo: " + text
	}
	message := map[string]any{"role": "assistant", "content": text}
	const arguments = `{"city":"Rome"}`
	if asked.ResponseFormat != nil {
		message["content"] = arguments
	}
	if asked.Tools != nil {
		message = map[string]any{"role": "assistant", "content": nil, "tool_calls": []any{map[string]any{
			"index": 0, "id": "call_1", "type": "function", "function": map[string]any{"name": "weather", "arguments": arguments},
		}}}
	}
	usage := map[string]any{"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
	if !asked.Stream {
		a.send(w, map[string]any{"id": "c", "object": "chat.completion", "model": asked.Model, "usage": usage, "choices": []any{map[string]any{
			"index": 0, "message": message, "finish_reason": "stop",
		}}})
		return
	}
	chunk := func(delta map[string]any, finish any) {
		a.event(w, "", map[string]any{"id": "c", "object": "chat.completion.chunk", "model": asked.Model, "choices": []any{map[string]any{
			"index": 0, "delta": delta, "finish_reason": finish,
		}}})
	}
	chunk(map[string]any{"role": "assistant", "content": ""}, nil)
	if asked.Tools != nil {
		chunk(map[string]any{"tool_calls": message["tool_calls"]}, nil)
	}
	for _, word := range strings.SplitAfter(text, " ") {
		if asked.Tools == nil {
			chunk(map[string]any{"content": word}, nil)
		}
	}
	for asked.Model == "endless" {
		chunk(map[string]any{"content": "more "}, nil)
		select {
		case <-r.Context().Done():
			a.left <- struct{}{}
			return
		case <-time.After(time.Millisecond):
		}
	}
	if asked.Model == "cut" {
		panic(http.ErrAbortHandler)
	}
	chunk(map[string]any{}, "stop")
	if asked.StreamOptions.IncludeUsage {
		a.event(w, "", map[string]any{"choices": []any{}, "usage": usage})
	}
	_, _ = io.WriteString(w, "data: [DONE]\n\n")
}

func (a *api) send(w http.ResponseWriter, answer any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(answer)
}

func (a *api) event(w http.ResponseWriter, name string, data any) {
	w.Header().Set("Content-Type", "text/event-stream")
	text, _ := json.Marshal(data)
	if name != "" {
		_, _ = fmt.Fprintf(w, "event: %s\n", name)
	}
	_, _ = fmt.Fprintf(w, "data: %s\n\n", text)
	_ = http.NewResponseController(w).Flush()
}

func (a *api) embeddings(w http.ResponseWriter, input json.RawMessage, format string) {
	vector := []float32{0.5, -1}
	var form any = vector
	if format == "base64" {
		var raw []byte
		for _, number := range vector {
			raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(number))
		}
		form = base64.StdEncoding.EncodeToString(raw)
	}
	var texts []string
	_ = json.Unmarshal(input, &texts)
	var data []any
	for i := range texts {
		data = append(data, map[string]any{"object": "embedding", "index": i, "embedding": form})
	}
	a.send(w, map[string]any{"object": "list", "model": "demo", "data": data, "usage": map[string]any{"prompt_tokens": 2, "total_tokens": 2}})
}

func (a *api) response(w http.ResponseWriter, streamed bool) {
	full := map[string]any{
		"id": "resp_1", "object": "response", "status": "completed", "error": nil, "model": "demo",
		"output": []any{map[string]any{"type": "message", "id": "m", "role": "assistant", "status": "completed", "content": []any{
			map[string]any{"type": "output_text", "text": "echo: hi", "annotations": []any{}},
		}}},
	}
	if !streamed {
		a.send(w, full)
		return
	}
	a.event(w, "response.created", map[string]any{"type": "response.created", "sequence_number": 0, "response": map[string]any{"id": "resp_1", "status": "in_progress", "error": nil, "output": []any{}}})
	for i, word := range []string{"echo: ", "hi"} {
		a.event(w, "response.output_text.delta", map[string]any{"type": "response.output_text.delta", "sequence_number": i + 1, "item_id": "m", "output_index": 0, "content_index": 0, "delta": word})
	}
	a.event(w, "response.completed", map[string]any{"type": "response.completed", "sequence_number": 3, "response": full})
}

// inFront returns the URL of a gateway in front of an upstream that is down and one that answers.
func inFront(t *testing.T) (url string, answering *api) {
	t.Helper()
	down := httptest.NewServer(http.NotFoundHandler())
	down.Close()
	answering = &api{t: t, left: make(chan struct{}, 10)}
	server := httptest.NewServer(answering)
	t.Cleanup(server.Close)
	groups := []Group{{Upstreams: []string{"down"}}, {Upstreams: []string{"up"}}}
	settings := Config{Upstreams: map[string]Upstream{"down": {URL: down.URL + "/v1"}, "up": {URL: server.URL + "/v1"}}}
	for _, model := range []string{"demo", "bad", "limited", "limited-stream", "unknown", "dead", "cut", "endless"} {
		settings.Routes = append(settings.Routes, Route{Model: model, Groups: groups})
	}
	return start(t, settings), answering
}

func TestSDK_NodeClientIsServed(t *testing.T) {
	t.Parallel()
	node, err := exec.LookPath("node")
	if _, missing := os.Stat("testdata/node/node_modules/openai"); err != nil || missing != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("node, or the package openai of npm, is not installed, and CI is true")
		}
		t.Skip("node, or the package openai of npm, is not installed: npm ci --prefix examples/gateway/testdata/node")
	}
	url, answering := inFront(t)
	out, err := exec.CommandContext(t.Context(), node, "testdata/node/client.mjs", url+"/v1").CombinedOutput()
	require.NoError(t, err, string(out))
	require.Contains(t, string(out), "all good")
	<-answering.left
}

func TestSDK_GoClientIsServed(t *testing.T) {
	t.Parallel()
	url, answering := inFront(t)
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	client := openai.NewClient(option.WithBaseURL(url+"/v1/"), option.WithAPIKey("any"), option.WithMaxRetries(0),
		option.WithHTTPClient(&http.Client{Transport: transport}))
	ctx := t.Context()
	ask := func(model, text string) openai.ChatCompletionNewParams {
		return openai.ChatCompletionNewParams{Model: model, Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage(text)}}
	}
	read := func(p openai.ChatCompletionNewParams) (_ string, usage int64, err error) {
		var text strings.Builder
		stream := client.Chat.Completions.NewStreaming(ctx, p)
		defer func() { _ = stream.Close() }()
		for stream.Next() {
			chunk := stream.Current()
			for _, choice := range chunk.Choices {
				text.WriteString(choice.Delta.Content)
			}
			usage = max(usage, chunk.Usage.TotalTokens)
		}
		return text.String(), usage, stream.Err()
	}

	plain, err := client.Chat.Completions.New(ctx, ask("demo", "hello there"))
	require.NoError(t, err)
	require.Equal(t, "echo: hello there", plain.Choices[0].Message.Content)
	require.EqualValues(t, 7, plain.Usage.TotalTokens)

	p := ask("demo", "one two three")
	p.StreamOptions.IncludeUsage = param.NewOpt(true)
	text, usage, err := read(p)
	require.NoError(t, err)
	require.Equal(t, "echo: one two three", text)
	require.EqualValues(t, 7, usage)

	p = ask("demo", "weather?")
	p.Tools = []openai.ChatCompletionToolUnionParam{openai.ChatCompletionFunctionTool(shared.FunctionDefinitionParam{Name: "weather"})}
	called, err := client.Chat.Completions.New(ctx, p)
	require.NoError(t, err)
	require.JSONEq(t, `{"city":"Rome"}`, called.Choices[0].Message.ToolCalls[0].Function.Arguments)

	p = ask("demo", "where?")
	p.ResponseFormat = openai.ChatCompletionNewParamsResponseFormatUnion{OfJSONSchema: &shared.ResponseFormatJSONSchemaParam{
		JSONSchema: shared.ResponseFormatJSONSchemaJSONSchemaParam{Name: "place", Schema: map[string]any{"type": "object"}},
	}}
	structured, err := client.Chat.Completions.New(ctx, p)
	require.NoError(t, err)
	require.JSONEq(t, `{"city":"Rome"}`, structured.Choices[0].Message.Content)

	p = ask("demo", "")
	p.Messages[0] = openai.UserMessage([]openai.ChatCompletionContentPartUnionParam{
		openai.TextContentPart("what?"),
		openai.ImageContentPart(openai.ChatCompletionContentPartImageImageURLParam{URL: "data:image/png;base64," + strings.Repeat("A", 2_000_000)}),
	})
	image, err := client.Chat.Completions.New(ctx, p)
	require.NoError(t, err)
	require.Equal(t, "image of 2000022", image.Choices[0].Message.Content)

	vectors, err := client.Embeddings.New(ctx, openai.EmbeddingNewParams{Model: "demo", Input: openai.EmbeddingNewParamsInputUnion{OfArrayOfStrings: []string{"a", "b"}}})
	require.NoError(t, err)
	require.Equal(t, []float64{0.5, -1}, vectors.Data[1].Embedding)

	response, err := client.Responses.New(ctx, responses.ResponseNewParams{Model: "demo", Input: responses.ResponseNewParamsInputUnion{OfString: param.NewOpt("hi")}})
	require.NoError(t, err)
	require.Equal(t, "echo: hi", response.OutputText())
	events := client.Responses.NewStreaming(ctx, responses.ResponseNewParams{Model: "demo", Input: responses.ResponseNewParamsInputUnion{OfString: param.NewOpt("hi")}})
	var said strings.Builder
	for events.Next() {
		said.WriteString(events.Current().AsResponseOutputTextDelta().Delta)
	}
	require.NoError(t, events.Err())
	require.Equal(t, "echo: hi", said.String())

	for model, status := range map[string]int{"bad": 400, "limited": 429, "unknown": 404, "dead": 500} {
		_, err := client.Chat.Completions.New(ctx, ask(model, "x"))
		var refused *openai.Error
		require.ErrorAs(t, err, &refused)
		require.Equal(t, status, refused.StatusCode)
		require.Equal(t, "as_asked", refused.Code)
		require.Equal(t, "temperature", refused.Param)
		if model == "limited" {
			model = "limited-stream" // for the other one the server is left alone now
		}
		_, _, err = read(ask(model, "x"))
		require.ErrorAs(t, err, &refused)
		require.Equal(t, status, refused.StatusCode)
	}
	_, _, err = read(ask("cut", "x"))
	require.ErrorContains(t, err, "interrupted")

	endless := client.Chat.Completions.NewStreaming(ctx, ask("endless", "x"))
	for range 3 {
		require.True(t, endless.Next())
	}
	require.NoError(t, endless.Close())
	<-answering.left

	var many sync.WaitGroup
	for i := range 200 {
		many.Go(func() {
			text, _, err := read(ask("demo", fmt.Sprint("stream ", i)))
			if err != nil || text != fmt.Sprint("echo: stream ", i) {
				t.Errorf("%q %v", text, err)
			}
		})
	}
	many.Wait()
}
