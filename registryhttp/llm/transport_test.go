package llm_test

import (
	"context"
	"io"
	"math"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/registryhttp"
	"github.com/capreg/registry/registryhttp/llm"
	"github.com/capreg/registry/stream"
	"github.com/capreg/registry/verdict"
)

// Variants: line ends, comments, no end mark, what follows the end, errors and silence behind it, several choices, other dialects.
func TestTransport_CompleteStreamIsASuccess(t *testing.T) {
	t.Parallel()
	const (
		created   = "event: response.created\ndata: {\"type\":\"response.created\",\"response\":{\"id\":\"r1\",\"error\":null}}\n\n"
		delta     = "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"delta\":\"hi\"}\n\n"
		completed = "event: response.completed\ndata: {\"type\":\"response.completed\",\"response\":{\"id\":\"r1\",\"error\":null}}\n\n"
		started   = "event: message_start\ndata: {\"type\":\"message_start\"}\n\n"
		stopped   = "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"
		text      = "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"delta\":{\"text\":\"hi\"}}\n\n"
	)
	good := token + finishing + marked
	for sent, want := range map[string]string{
		good:                                     good,
		role + good:                              role + good,
		strings.ReplaceAll(good, "\n", "\r\n"):   good,
		": ping\n\n" + good:                      good,
		strings.TrimSpace(good):                  good,
		token + finishing:                        good,
		token + finishing + "!":                  good,
		token + finishing + "~":                  good,
		token + finishing + "data: nonsense\n\n": good,
		token + marked:                           token + marked,
		token + finishing + usage + marked:       token + finishing + usage + marked,
		good + usage:                             token + finishing + usage + marked,
		good + marked + "!":                      good,
		created + delta + completed:              created + delta + completed,
		created + delta + completed + "!":        created + delta + completed,
		started + text + stopped:                 started + text + stopped,
		started + text + stopped + "~":           started + text + stopped,
		"data: {\"type\":\"image\"}\n\n":         "data: {\"type\":\"image\"}\n\n",
		"data: {\"choices\":[{\"delta\":{\"content\":\"\\\"error\\\"\"}}]}\n\n" + finishing: "data: {\"choices\":[{\"delta\":{\"content\":\"\\\"error\\\"\"}}]}\n\n" + finishing + marked,
	} {
		for _, hold := range []bool{false, true} {
			bubble(t, func(t *testing.T) {
				got, err := ask(t, llm.Transport{Whole: hold, StallTimeout: time.Minute}, says(200, events, sent), "/chat/completions", streamed)
				require.NoError(t, err, sent)
				require.Equal(t, want, got, sent)
			})
		}
	}
}

// Variants: every form of an error, an end mark without an answer, an end without one, cuts; each before the first token and behind it.
func TestTransport_FailedStreamIsAnError(t *testing.T) {
	t.Parallel()
	for sent, class := range map[string]verdict.Class{
		"data: {\"object\":\"error\",\"message\":\"EngineDeadError\",\"code\":500}\n\n" + marked:              verdict.ClassServerError,
		"data: {\"error\":{\"message\":\"slow\",\"code\":\"rate_limit_exceeded\",\"type\":\"requests\"}}\n\n": verdict.ClassRateLimited,
		"data: {\"error\":{\"message\":\"dead\",\"code\":\"invalid_api_key\"}}\n\n":                           verdict.ClassFatal,
		"data: {\"error\":\"no\"}\n\n":                                                                                          verdict.ClassUnknown,
		"event: error\ndata: {\"message\":\"boom\",\"code\":529}\n\n" + marked:                                                  verdict.ClassOverloaded,
		"event: error\ndata: boom\n\n" + marked:                                                                                 verdict.ClassUnknown,
		"event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\"}}\n\n":                                verdict.ClassOverloaded,
		"event: response.failed\ndata: {\"type\":\"response.failed\",\"response\":{\"error\":{\"code\":\"server_error\"}}}\n\n": verdict.ClassServerError,
		"data: nonsense\n\n": verdict.ClassMalformed,
		"data: [1]\n\n":      verdict.ClassMalformed,
		"data: {\"choi":      verdict.ClassTransport,
		"":                   verdict.ClassMalformed,
		"!":                  verdict.ClassTransport,
	} {
		for _, before := range []string{"", role, token} {
			bubble(t, func(t *testing.T) {
				got, err := ask(t, llm.Transport{}, says(200, events, before+sent), "/chat/completions", streamed)
				require.Error(t, err, before+sent)
				require.Equal(t, class, verdict.Of(err).Class, "%s: %v", before+sent, err)
				require.NotContains(t, got, "[DONE]")
				if before != token {
					require.Empty(t, got, "it could still be replaced")
				}
			})
		}
	}
	_, err := ask(t, llm.Transport{}, says(200, events, role+marked), "/chat/completions", streamed)
	require.Equal(t, verdict.ClassMalformed, verdict.Of(err).Class)
}

// Each of several choices has an end of its own.
func TestTransport_StreamOfSeveralChoicesEndsWithTheLast(t *testing.T) {
	t.Parallel()
	const body = `{"model":"m","stream":true,"n":2}`
	bubble(t, func(t *testing.T) {
		got, err := ask(t, llm.Transport{}, says(200, events, token+finishing+"||"+token+finishing), "/chat/completions", body)
		require.NoError(t, err)
		require.Equal(t, token+finishing+token+finishing+marked, got)
	})
	for _, asks := range []string{`"n":2,"prompt":["a","b"]`, `"prompt":["a","b"],"n":2`, `"prompt":["a","b"],"n":9223372036854775807`, `"n":4.0`, `"n":"4"`} {
		bubble(t, func(t *testing.T) { // as many as only the server knows
			text := finishing + finishing + "||" + finishing + "||" + finishing + marked
			got, err := ask(t, llm.Transport{}, says(200, events, text), "/completions", `{"model":"m","stream":true,`+asks+`}`)
			require.NoError(t, err)
			require.Equal(t, strings.ReplaceAll(text, "|", ""), got, asks)
		})
	}
	for ends, complete := range map[string]bool{
		finishing: false,
		`data: {"choices":[{"finish_reason":"stop"},{"index":1,"finish_reason" : "length"}]}` + "\n\n":           true,
		`data: {"choices":[null,{"a":[{"finish_reason":"x"}],"finish_reason":"stop"}, 7]}` + "\n\n":              false,
		`data: {"choices":[{"finish_reason":"stop"},{"finish_reason":null},{"finish_reason":"" }]}` + "\n\n":     false,
		`data: {"choices":[{"finish_reason":7},{"finish_reason":{}},{"finish_reason":"stop"}]}` + "\n\n":         false,
		`data: {"choices":[{"delta":{"content":"\"finish_reason\":\"stop\""},"finish_reason":"stop"}]}` + "\n\n": false,
		`data: {"choices":[],"finish_reason":"stop","x":[{"finish_reason":"a"},{"finish_reason":"b"}]}` + "\n\n": false,
		`data: {"choices":[{"finish_reason":"stop","b":"]}"},{"finish_reason":"stop"}],"c":{"d":[]}}` + "\n\n":   true,
		`data: {"choices":{"finish_reason":"stop"}}` + "\n\n" + `data: {"choices":"\"finish_reason\""}` + "\n\n": false,
	} {
		_, err := ask(t, llm.Transport{}, says(200, events, token+ends), "/chat/completions", body)
		if complete {
			require.NoError(t, err, ends)
		} else {
			require.ErrorIs(t, err, stream.ErrTruncated, ends)
		}
	}
}

// Variants: texts that look like something else, and events that differ from the one before in more than the text.
func TestTransport_PiecesThatDifferInTheirTextAlonePassAndOthersAreRead(t *testing.T) {
	t.Parallel()
	piece := func(text string) string {
		return `data: {"id":"c","error":null,"choices":[{"index":0,"delta":{"content":"` + text + `"},"finish_reason":null}],"usage":null}` + "\n\n"
	}
	var good strings.Builder
	for _, text := range []string{
		"a", "", "b", " ", `\n`, `\"`, `\\`, `\u00e9`, "\u00e9", "error", "usage", "choices", "finish_reason", `\"error`, `\"usage\":{`, `\"finish_reason\":\"stop\"`, strings.Repeat("x", 3000), "c",
		`"},"finish_reason":null}],"choices":[{"delta":{"content":"`, "d",
	} {
		good.WriteString(piece(text))
	}
	good.WriteString(strings.Replace(piece("e"), `"c"`, `"d"`, 1) + strings.Replace(piece("f"), "0", "1", 1) + piece("g"))
	all := good.String()
	transport := llm.Transport{}
	got, err := ask(t, transport, says(200, events, all+finishing), "/chat/completions", streamed)
	require.NoError(t, err)
	require.Equal(t, all+finishing+marked, got)
	for wrong, class := range map[string]verdict.Class{
		piece("\t"):                   verdict.ClassMalformed,
		piece(`\`):                    verdict.ClassMalformed,
		piece(`\q`):                   verdict.ClassMalformed,
		piece(`"`):                    verdict.ClassMalformed,
		piece("x")[:90]:               verdict.ClassTransport,
		"data: " + piece("x")[90:]:    verdict.ClassMalformed,
		"event: error\n" + piece("x"): verdict.ClassUnknown,
		strings.Replace(piece("x"), `"error":null`, `"error":{"code":503}`, 1): verdict.ClassServerError,
	} {
		got, err := ask(t, transport, says(200, events, all+wrong), "/chat/completions", streamed)
		require.Equal(t, class, verdict.Of(err).Class, "%s: %v", wrong, err)
		require.Len(t, got, len(all), wrong)
	}
	got, err = ask(t, transport, says(200, events, all+strings.Replace(piece("x"), "null}", `"stop"}`, 1)+"~"), "/chat/completions", streamed)
	require.NoError(t, err)
	require.True(t, strings.HasSuffix(got, marked))
}

// Variants: what is a token at once, and what only looks so.
func TestTransport_WaitsForTheFirstToken(t *testing.T) {
	t.Parallel()
	for sent, begun := range map[string]bool{
		token: true,
		`data: {"choices":[{"delta":{"content":""}}]}` + "\n\n":                                false,
		`data: {"choices":[{"delta": {"content" : "a"}}]}` + "\n\n":                            true,
		`data: {"choices":[{"delta":{"role":"assistant","content":"a"}}]}` + "\n\n":            true,
		"event: ping\n" + `data: {"choices":[{"delta":{"content":"a"}}]}` + "\n\n":             false,
		`data: {"choices":[{"logprobs":{"delta":{}},"delta":{"role":"delta"}}]}` + "\n\n":      false,
		`data: {"choices":[{"delta":{"role":"\"delta\":{\"content\":\"a\""}}]}` + "\n\n":       false,
		`data: {"choices":[{"index":0,"delta":{"content":"\"","role":"assistant"}}]}` + "\n\n": true,
	} {
		_, err := ask(t, llm.Transport{}, says(200, events, sent+"!"), "/chat/completions", streamed)
		got, _ := ask(t, llm.Transport{}, says(200, events, sent+"!"), "/chat/completions", streamed)
		require.Error(t, err, sent)
		require.Equal(t, begun, got != "", sent)
	}
}

func TestTransport_PlainAnswerIsOneOrAnError(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		path, kind, text string
		class            verdict.Class
	}{
		{"/chat/completions", plainJSON, whole, verdict.ClassSuccess},
		{"/chat/completions", "", whole, verdict.ClassSuccess},
		{"/completions", plainJSON, whole, verdict.ClassSuccess},
		{"/embeddings", plainJSON, `{"data":[{"embedding":[1]}]}`, verdict.ClassSuccess},
		{"/responses", plainJSON, `{"id":"r","error":null}`, verdict.ClassSuccess},
		{"/chat/completions", plainJSON, `{"choices":[]}`, verdict.ClassMalformed},
		{"/chat/completions", plainJSON, `{"choices":[null]}`, verdict.ClassMalformed},
		{"/chat/completions", plainJSON, `{}`, verdict.ClassMalformed},
		{"/chat/completions", plainJSON, `null`, verdict.ClassMalformed},
		{"/chat/completions", "text/html", "<html>", verdict.ClassMalformed},
		{"/chat/completions", events, token + marked, verdict.ClassMalformed},
		{"/chat/completions", plainJSON, whole[:20] + "!", verdict.ClassTransport},
		{"/chat/completions", plainJSON, `{"error":{"code":"rate_limit_exceeded"}}`, verdict.ClassRateLimited},
		{"/chat/completions", plainJSON, `{"object":"error","code":503}`, verdict.ClassServerError},
		{"/chat/completions", plainJSON, `{"type":"error","code":503}`, verdict.ClassServerError},
		{"/chat/completions", plainJSON, `{"choices":[{}],"response":{"error":{"code":"server_error"}}}`, verdict.ClassServerError},
		{"/chat/completions", plainJSON, `{"choices":[{"text":"error"}],"error":null,"type":"error_free"}`, verdict.ClassSuccess},
		{"/embeddings", plainJSON, `{"data":[]}`, verdict.ClassMalformed},
		{"/responses", plainJSON, `{"status":"failed","error":{"code":"server_error"}}`, verdict.ClassServerError},
	} {
		got, err := ask(t, llm.Transport{}, says(200, c.kind, c.text), c.path, plain)
		require.Equal(t, c.class, verdict.Of(err).Class, "%s %s: %v", c.path, c.text, err)
		if err == nil {
			require.Equal(t, c.text, got)
		}
	}
	_, err := ask(t, llm.Transport{}, says(200, plainJSON, whole), "/chat/completions", streamed)
	require.Equal(t, verdict.ClassMalformed, verdict.Of(err).Class, "a stream was asked for")
	for _, status := range []int{101, 201, 204, 302, 304} {
		_, err = ask(t, llm.Transport{}, says(status, "", ""), "/chat/completions", plain)
		require.Equal(t, verdict.ClassMalformed, verdict.Of(err).Class, status)
	}
}

func TestTransport_OtherAnswersPassAsTheyAre(t *testing.T) {
	t.Parallel()
	response, err := send(t, &llm.Transport{Base: says(429, plainJSON, `{"error":{}}`)}, "/chat/completions", plain)
	require.NoError(t, err)
	text, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	require.JSONEq(t, `{"error":{}}`, string(text))
	got, err := ask(t, llm.Transport{}, says(200, "audio/mpeg", "\x00\x01"), "/audio/speech", plain)
	require.NoError(t, err)
	require.Equal(t, "\x00\x01", got)
}

// Variants: comments, roles, silence; before the first token, between two, of a plain answer.
func TestTransport_LimitsTheTimeInWhichTheServerIsWaitedFor(t *testing.T) {
	t.Parallel()
	limits := llm.Transport{FirstTimeout: 3 * time.Second, StallTimeout: 2 * time.Second, AnswerTimeout: 5 * time.Second}
	alive := strings.Repeat("|: ping\n\n|"+role, 20)
	for _, c := range []struct {
		text, body string
		after      time.Duration
		cause      error
	}{
		{"~", streamed, 3 * time.Second, registryhttp.ErrFirstByte},
		{alive, streamed, 3 * time.Second, registryhttp.ErrFirstByte},
		{"||" + token + "~", streamed, 4 * time.Second, registryhttp.ErrStalled},
		{token + strings.Repeat("|: ping\n\n", 20), streamed, 2 * time.Second, registryhttp.ErrStalled},
		{"~", plain, 5 * time.Second, registryhttp.ErrFirstByte},
		{"||{|" + "~", plain, 5 * time.Second, registryhttp.ErrFirstByte},
		{"||" + token + "|" + token + "|" + token + "|" + finishing, streamed, 5 * time.Second, nil},
	} {
		bubble(t, func(t *testing.T) {
			kind := plainJSON
			if c.body == streamed {
				kind = events
			}
			begun := time.Now()
			_, err := ask(t, limits, says(200, kind, c.text), "/chat/completions", c.body)
			require.Equal(t, c.after, time.Since(begun), c.text)
			if c.cause == nil {
				require.NoError(t, err)
				return
			}
			require.ErrorIs(t, err, c.cause)
			require.Equal(t, verdict.ClassStalled, verdict.Of(err).Class)
		})
	}
}

func TestTransport_AnswerEndsWithItsLastBytes(t *testing.T) {
	t.Parallel()
	for body, server := range map[string]roundTrip{plain: says(200, plainJSON, whole), streamed: says(200, events, token+finishing+marked)} {
		response, err := send(t, &llm.Transport{Whole: true, Base: server}, "/chat/completions", body)
		require.NoError(t, err)
		buffer := make([]byte, 4096)
		n, err := response.Body.Read(buffer)
		require.Equal(t, io.EOF, err, "%s", buffer[:n])
		n, err = response.Body.Read(buffer)
		require.Zero(t, n)
		require.Equal(t, io.EOF, err)
		require.NoError(t, response.Body.Close())
	}
}

func TestWithRequest_IsTakenForTheBody(t *testing.T) {
	t.Parallel()
	asked, err := llm.ParseRequest([]byte(streamed))
	require.NoError(t, err)
	transport := llm.Transport{Name: "a", Base: says(200, events, token+finishing+marked)}
	request, err := http.NewRequestWithContext(llm.WithRequest(t.Context(), asked), http.MethodPost, "http://api/v1/chat/completions", reader(plain))
	require.NoError(t, err)
	response, err := transport.RoundTrip(request)
	require.NoError(t, err, "a stream for a plain request would be none")
	require.NoError(t, response.Body.Close())

	// Below a proxy it replaces the request of that, and the report goes on.
	replaces := roundTrip(func(r *http.Request) (*http.Response, error) {
		return transport.RoundTrip(r.WithContext(llm.WithRequest(r.Context(), asked)))
	})
	_, report := proxied(t, llm.Proxy{}, llm.Way{Transport: replaces}, reader(plain))
	require.NoError(t, report.Err)
	require.Equal(t, 1, report.Attempts)
	require.Equal(t, "a", report.Name)
}

func TestTransport_LimitsAPlainAnswerWithinAnAttempt(t *testing.T) {
	t.Parallel()
	for _, slow := range []string{"~", "||{|" + "~"} {
		bubble(t, func(t *testing.T) {
			begun := time.Now()
			limits := llm.Transport{AnswerTimeout: 5 * time.Second}
			response, err := send(t, over(t, limits, says(200, plainJSON, slow), says(200, plainJSON, whole)), "/v1/chat/completions", plain)
			require.NoError(t, err)
			text, err := io.ReadAll(response.Body)
			require.NoError(t, err)
			require.NoError(t, response.Body.Close())
			require.JSONEq(t, whole, string(text))
			require.Equal(t, 5*time.Second, time.Since(begun))

			_, err = send(t, over(t, limits, says(200, plainJSON, slow)), "/v1/chat/completions", plain) //nolint:bodyclose // there is none
			require.ErrorIs(t, err, registryhttp.ErrFirstByte)
			require.Equal(t, verdict.ClassStalled, verdict.Of(err).Class)
		})
	}
}

// The time of an upload is not the server's, also where the model has another name there.
func TestTransport_LimitsAPlainAnswerBehindItsLongUpload(t *testing.T) {
	t.Parallel()
	uploads := roundTrip(func(r *http.Request) (*http.Response, error) {
		var piece [256 << 10]byte
		for {
			select {
			case <-r.Context().Done():
				return nil, context.Cause(r.Context())
			case <-time.After(time.Second):
			}
			if _, err := io.ReadFull(r.Body, piece[:]); err != nil {
				return says(200, plainJSON, whole)(r)
			}
		}
	})
	for _, models := range []map[string]string{nil, {"m": "big"}} {
		bubble(t, func(t *testing.T) {
			to := over(t, llm.Transport{AnswerTimeout: 3 * time.Second, Models: models}, uploads)
			response, err := send(t, to, "/v1/chat/completions", `{"model":"m","user":"`+strings.Repeat("x", 2<<20)+`"}`)
			require.NoError(t, err)
			require.NoError(t, response.Body.Close())
		})
	}
}

// Its limit ends what it waits for, and leaves the attempt to the transport that has asked it.
func TestTransport_LimitsItsOwnAnswerAloneWhereAnotherIsAskedInTheSameAttempt(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		first := &llm.Transport{AnswerTimeout: 3 * time.Second, Base: says(200, plainJSON, "~")}
		second := &llm.Transport{AnswerTimeout: time.Minute, Base: says(200, plainJSON, "||||"+whole)}
		response, err := send(t, over(t, llm.Transport{}, func(r *http.Request) (*http.Response, error) {
			_, err := first.RoundTrip(r)
			require.ErrorIs(t, err, registryhttp.ErrFirstByte)
			again := r.Clone(r.Context())
			again.Body, err = r.GetBody()
			require.NoError(t, err)
			return second.RoundTrip(again)
		}), "/v1/chat/completions", plain)
		require.NoError(t, err)
		require.NoError(t, response.Body.Close())
	})
}

func TestTransport_LongestTimeIsNoLimit(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		to := over(t, llm.Transport{AnswerTimeout: math.MaxInt64}, says(200, plainJSON, "~"))
		time.Sleep(time.Second) // the clock does not begin at zero
		w, report := proxied(t, llm.Proxy{}, llm.Way{Transport: to, Timeout: time.Minute}, reader(plain))
		require.Equal(t, http.StatusGatewayTimeout, w.Code)
		require.Equal(t, time.Minute, report.Duration)
	})
}

// A server hangs up on a reader that leaves its answer unread; that says nothing about the server.
func TestTransport_CutOfASlowReaderBlamesNoServer(t *testing.T) {
	t.Parallel()
	for _, pause := range []time.Duration{0, time.Minute} {
		bubble(t, func(t *testing.T) {
			response, err := send(t, &llm.Transport{StallTimeout: 10 * time.Second, Base: says(200, events, token+"!")}, "/chat/completions", streamed)
			require.NoError(t, err)
			buffer := make([]byte, 1024)
			_, err = response.Body.Read(buffer)
			require.NoError(t, err)
			time.Sleep(pause)
			_, err = response.Body.Read(buffer)
			require.Error(t, err)
			require.Equal(t, pause > 0, verdict.Of(err).Class == verdict.ClassIgnored, err)
			require.NoError(t, response.Body.Close())
		})
	}
}

// Variants: before the first piece of the answer is read, and between two bits of it; an answer that is complete, and one that is cut.
func TestTransport_TimeInWhichNothingIsReadIsNotTheServers(t *testing.T) {
	t.Parallel()
	for _, bits := range []int64{0, 1} {
		for end, class := range map[string]verdict.Class{finishing: verdict.ClassSuccess, "!": verdict.ClassIgnored} {
			bubble(t, func(t *testing.T) {
				limits := llm.Transport{FirstTimeout: time.Second, StallTimeout: time.Second, Base: says(200, events, token+end)}
				response, err := send(t, &limits, "/chat/completions", streamed)
				require.NoError(t, err)
				_, err = io.CopyN(io.Discard, response.Body, bits)
				require.NoError(t, err)
				time.Sleep(time.Minute)
				_, err = io.ReadAll(response.Body)
				require.Equal(t, class, verdict.Of(err).Class, err)
				require.NoError(t, response.Body.Close())
			})
		}
	}
}

// Some servers send comments while they work.
func TestTransport_EventIsNotHeldBackForWhatFollowsAComment(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		transport := llm.Transport{Base: says(200, events, token+"|"+token+": working\n\n|"+finishing)}
		response, err := send(t, &transport, "/chat/completions", streamed)
		require.NoError(t, err)
		buffer, begun := make([]byte, 4096), time.Now()
		for i, want := range []string{token, token, finishing} {
			n, err := response.Body.Read(buffer)
			require.NoError(t, err)
			require.Equal(t, want, string(buffer[:n]))
			require.Equal(t, time.Duration(i)*time.Second, time.Since(begun))
		}
		require.NoError(t, response.Body.Close())
	})
}

func TestTransport_AnotherProviderAnswersForAFailedStream(t *testing.T) {
	t.Parallel()
	good := says(200, events, token+finishing+marked)
	for text, holds := range map[string]bool{role + "!": false, marked: false, role + "data: {\"error\":\"x\"}\n\n": false, token + "!": true, token + token: true} {
		for _, hold := range []bool{false, true} {
			response, err := send(t, over(t, llm.Transport{Whole: hold}, says(200, events, text), good), "/chat/completions", streamed)
			require.NoError(t, err)
			all, err := io.ReadAll(response.Body)
			require.NoError(t, response.Body.Close())
			if holds && !hold {
				require.Error(t, err, "it had begun")
				continue
			}
			require.NoError(t, err)
			require.Equal(t, token+finishing+marked, string(all), text)
		}
	}
}

// Nothing but the name changes: numbers, unknown fields, white space and the order are those of the client.
func TestTransport_SendsTheNameThatTheServerKnows(t *testing.T) {
	t.Parallel()
	var sent string
	server := roundTrip(func(r *http.Request) (*http.Response, error) {
		body, err := io.ReadAll(r.Body)
		require.NoError(t, err)
		require.Equal(t, int64(len(body)), r.ContentLength)
		again, err := r.GetBody()
		require.NoError(t, err)
		copied, err := io.ReadAll(again)
		require.NoError(t, err)
		require.Equal(t, body, copied)
		sent = string(body)
		return says(200, plainJSON, whole)(r)
	})
	for body, want := range map[string]string{
		`{"n":12345678901234567890, "model" : "m" ,"x":{"model":"m"},"y":["\"model\":"]}`: `{"n":12345678901234567890, "model" : "big \"one\"" ,"x":{"model":"m"},"y":["\"model\":"]}`,
		`{"mod\u0065l":"m","a":"}"}`: `{"mod\u0065l":"big \"one\"","a":"}"}`,
		`{"model":"other"}`:          `{"model":"other"}`,
		`{"model":7}`:                `{"model":7}`,
	} {
		_, err := ask(t, llm.Transport{Models: map[string]string{"m": `big "one"`}}, server, "/chat/completions", body)
		require.NoError(t, err)
		require.Equal(t, want, sent)
	}
}

func TestTransport_LongAnswersAreNoMistake(t *testing.T) {
	t.Parallel()
	long := strings.Repeat(token, 100_000) + finishing + marked
	for _, hold := range []bool{false, true} {
		transport := &llm.Transport{Whole: hold, Base: says(200, events, long)}
		response, err := send(t, transport, "/chat/completions", streamed)
		require.NoError(t, err)
		got, err := io.ReadAll(response.Body)
		require.NoError(t, err)
		require.NoError(t, response.Body.Close())
		require.Len(t, got, len(long))
	}
}

// A server that ends its connection with the answer lets it be used again only when the answer was read to that end.
func TestTransport_ReadsToTheEndOfTheConnection(t *testing.T) {
	t.Parallel()
	body := &slow{ctx: t.Context(), rest: token + marked}
	base := roundTrip(func(r *http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {events}}, Body: io.NopCloser(body), ContentLength: -1}, nil
	})
	got, err := ask(t, llm.Transport{}, base, "/chat/completions", streamed)
	require.NoError(t, err)
	require.Equal(t, token+marked, got)
	n, err := body.Read(make([]byte, 1))
	require.Zero(t, n)
	require.ErrorIs(t, err, io.EOF)
}
