// Package llm teaches a [registryhttp.Transport] the HTTP APIs of language models: those of OpenAI (chat completions,
// responses, completions, embeddings), of the many servers that speak them, and Anthropic's.
//
// To HTTP an answer has begun with its first byte, and status 200 is success. These APIs send the status long before
// the answer, errors inside it, and streams that end too soon as if they were complete. A [Transport] sees that, so that
// fail-over does too. It is put below an upstream:
//
//	upstream, err := registryhttp.NewUpstream("https://api.openai.com/v1", registryhttp.UpstreamOptions{
//		Header:    http.Header{"Authorization": {"Bearer " + key}},
//		Transport: &llm.Transport{FirstTimeout: 10 * time.Second, StallTimeout: 20 * time.Second},
//	})
//
// # What it promises
//
//   - A stream is returned with its first token: a role, a ping or a comment is none. What fails before goes to the next
//     provider.
//   - An error within status 200 is an error, in any of the forms that servers have for it, with its verdict.
//   - A stream that is cut, stalls or ends without its end mark is never a success: its reader gets an error. With
//     [Transport.Whole] another provider answers instead.
//   - A stream that is complete stays a success, whatever follows: a missing end mark is added, and an error or a silence
//     behind the end is dropped.
//   - A plain answer is returned when it is there as a whole, and is the JSON of an answer.
//   - What is read into memory is bounded, for each answer and with a [Memory] for all together. With [Tokens] so is what is
//     used in a minute.
//
// For servers, such as a proxy, [ParseRequest] reads what decides about the way of a request, and [ParseError] the words
// of a refusal.
package llm
