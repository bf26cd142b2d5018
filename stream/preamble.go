package stream

import (
	"bytes"
	"encoding/json"
	"slices"
)

// saysNothing reports whether an event is one that servers of language models send before the answer: a ping, the role,
// the start of a message, a piece of text of no length. It is the default for streams of events.
func saysNothing(e Event) bool {
	if len(e.Data) == 0 || e.Name == "ping" {
		return true
	}
	var said struct {
		Type    string          `json:"type"`
		Error   json.RawMessage `json:"error"`
		Usage   json.RawMessage `json:"usage"`
		Choices *[]choice       `json:"choices"`
		Block   struct {
			Type string `json:"type"`
			Text string `json:"text"`
		} `json:"content_block"`
	}
	if json.Unmarshal(e.Data, &said) != nil || holds(said.Error) {
		return false
	}
	switch said.Type {
	case "ping", "message_start", "response.created", "response.queued", "response.in_progress":
		return true
	case "content_block_start":
		return said.Block.Text == "" && (said.Block.Type == "text" || said.Block.Type == "thinking")
	}
	if said.Choices == nil || holds(said.Usage) {
		return false
	}
	return !slices.ContainsFunc(*said.Choices, choice.says)
}

// chunkSaysNothing is saysNothing of bytes: whether they are whole events that say nothing, or comments.
func chunkSaysNothing(c chunk) bool {
	text := bytes.TrimPrefix(c.data, []byte("\ufeff"))
	if c.last || !slices.ContainsFunc([]string{":", "data:", "event:", "id:", "retry:"}, func(field string) bool {
		return bytes.HasPrefix(text, []byte(field))
	}) || !bytes.ContainsAny(text[len(text)-1:], "\r\n") {
		return false
	}
	for event, err := range SSE(bytes.NewReader(text)) {
		if err != nil || event.Partial || !saysNothing(event) {
			return false
		}
	}
	return true
}

// choice is a piece of one answer, in the API of OpenAI.
type choice map[string]json.RawMessage

// says reports whether the piece holds more than the role.
func (c choice) says() bool {
	for field, value := range c {
		switch field {
		case "index", "logprobs", "content_filter_results":
		case "delta":
			if deltaSays(value) {
				return true
			}
		default:
			if holds(value) {
				return true
			}
		}
	}
	return false
}

// deltaSays is says of what the piece adds to the answer.
func deltaSays(value json.RawMessage) bool {
	var delta map[string]json.RawMessage
	if json.Unmarshal(value, &delta) != nil {
		return true
	}
	for field, part := range delta {
		if field != "role" && holds(part) {
			return true
		}
	}
	return false
}

// holds reports whether a field is there and not empty.
func holds(value json.RawMessage) bool {
	return !slices.Contains([]string{"", "null", `""`, "[]", "{}"}, string(value))
}
