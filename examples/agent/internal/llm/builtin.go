package llm

import (
	"context"
	"iter"
	"strings"
)

// LastResort is a ChatModel that always answers.
type LastResort struct{}

// Chat returns a text that asks the user to wait.
func (LastResort) Chat(context.Context, string) (Reply, error) {
	return Reply{Text: "All models are busy; I noted your question.", Model: "built-in"}, nil
}

// Stream streams the same text.
func (l LastResort) Stream(ctx context.Context, prompt string) (iter.Seq2[Piece, error], error) {
	reply, err := l.Chat(ctx, prompt)
	return whole(reply, err), nil
}

// Condenser is a ChatModel that makes a text short: it keeps the first words.
type Condenser struct {
	// Words is the number of words that stay.
	Words int
}

// Chat returns the first words of the prompt.
func (c Condenser) Chat(_ context.Context, prompt string) (Reply, error) {
	words := strings.Fields(prompt)
	if len(words) > c.Words {
		words = append(words[:c.Words], "…")
	}
	return Reply{Text: strings.Join(words, " "), Model: "built-in"}, nil
}

// Stream streams the same text.
func (c Condenser) Stream(ctx context.Context, prompt string) (iter.Seq2[Piece, error], error) {
	reply, err := c.Chat(ctx, prompt)
	return whole(reply, err), nil
}

// whole is a stream of one piece.
func whole(reply Reply, err error) iter.Seq2[Piece, error] {
	return func(yield func(Piece, error) bool) { yield(Piece{Text: reply.Text, Last: true}, err) }
}
