// This file shows a stream that is printed as it arrives. Until its first piece the next
// provider replaces one that fails; from then on a cut is told as one.

package main

import (
	"bufio"
	"context"
	"io"
	"strings"

	"github.com/capreg/registry"
	"github.com/capreg/registry/examples/agent/internal/llm"
	"github.com/capreg/registry/stream"
)

// chat answers lines from a person.
func (a *agent) chat(ctx context.Context, in io.Reader) error {
	if err := a.speak.show(ctx, "Ask me something; an empty line, or the end of input, ends the chat."); err != nil {
		return err
	}
	lines := bufio.NewScanner(in)
	for lines.Scan() && strings.TrimSpace(lines.Text()) != "" && ctx.Err() == nil {
		if err := a.reply(ctx, lines.Text()); err != nil {
			return err
		}
	}
	return lines.Err()
}

// reply prints the answer as it arrives. Printed text cannot be taken back, so a
// message follows a stream that is cut.
func (a *agent) reply(ctx context.Context, question string) error {
	var report registry.CallReport
	options := a.streaming(false)
	options.Call = []registry.CallOption{registry.ReportTo(&report)}
	s, err := a.speak.open(ctx, question, options)
	if err != nil {
		_, audited := a.speak.record(ctx, "chat", report, err)
		if audited != nil {
			return audited
		}
		return a.speak.show(ctx, "no backend can answer: "+err.Error())
	}
	a.screen.part("[" + s.Provider() + "] ")
	var text strings.Builder
	for piece, failure := range s.All() {
		if err = failure; err != nil {
			a.screen.part(" … (cut: " + err.Error() + ")")
			break
		}
		a.screen.part(piece.Text)
		text.WriteString(piece.Text)
	}
	a.screen.part("\n")
	if _, audited := a.speak.record(ctx, "chat", report, err); audited != nil || err != nil {
		return audited
	}
	return a.memorize.keep(ctx, question, text.String())
}

// streaming configures the time limits and the end mark of a stream. Pieces
// without text keep a connection alive and no more.
func (a *agent) streaming(whole bool) stream.Options[llm.Piece] {
	options := stream.Options[llm.Piece]{
		Last:      func(p llm.Piece) bool { return p.Last },
		KeepAlive: func(p llm.Piece) bool { return p.Text == "" && !p.Last },
		Whole:     whole,
	}
	if !a.backends.real {
		options.FirstTimeout, options.StallTimeout = attemptTimeout, attemptTimeout
	}
	return options
}
