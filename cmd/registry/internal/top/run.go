package top

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	tea "charm.land/bubbletea/v2"
)

// again is the pause before events are followed again.
const again = time.Second

// Run shows the program on the terminal of in and out until q is pressed or ctx ends, and leaves the terminal as it was. It
// starts goroutines that end before it returns, but for requests that are in progress, which end with their context.
func Run(ctx context.Context, program Program, address string, in io.Reader, out io.Writer) error {
	inner, cancel := context.WithCancel(ctx)
	p := tea.NewProgram(New(inner, program, address, time.Now()), tea.WithContext(ctx), tea.WithInput(in), tea.WithOutput(out))
	var following sync.WaitGroup
	following.Go(func() { follow(inner, program, p.Send) })
	_, err := p.Run()
	cancel()
	following.Wait()
	if ctx.Err() != nil && errors.Is(err, tea.ErrProgramKilled) {
		return nil // the end that was asked for
	}
	return err
}

// follow tells of events until ctx ends, and connects again where it has to.
func follow(ctx context.Context, program Program, send func(tea.Msg)) {
	for ctx.Err() == nil {
		_ = program.Follow(ctx, func() { send(FollowMsg{On: true}) }, func() { send(ChangedMsg{}) }) // polling shows what is wrong
		send(FollowMsg{On: false})
		select {
		case <-ctx.Done():
		case <-time.After(again):
		}
	}
}
