package contest

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/capreg/registry"
)

const (
	flapAmong  = 10_000
	flapEach   = time.Millisecond // one goes down and one comes back: 1,000 in each second
	flapStride = 10               // so 1,000 different ones, among them the one that is picked
	flapDown   = 500              // turns of others before one comes back
	flapBatch  = 16               // look-ups of a sample: with fewer it would be the clock's
	flapTurn   = 600              // as many turns of others, so that there are flaps in one
)

var errFlapping = errors.New("flapping")

// Flapping returns the 99th percentile of the nanoseconds of a Get, the median of
// rounds: while 1,000 of 10,000 providers go down and come back within each
// second, and while none does.
func Flapping(ctx context.Context, s Settings) (stormy, calm float64, err error) {
	reg, err := Setting{Providers: flapAmong}.Populate()
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, reg.Close(context.Background())) }()
	f := &flapper{}
	for i := 0; i < flapAmong; i += flapStride {
		registration, _ := reg.Provider(service.Name(), strconv.Itoa(i))
		f.providers = append(f.providers, registration)
	}
	get := Getting(Bind(reg))
	var storms, calms []float64
	for range s.Rounds {
		if ctx.Err() != nil {
			return 0, 0, context.Cause(ctx)
		}
		calms = append(calms, tail(get, s.Turn*flapTurn))
		stop, stopped := make(chan struct{}), make(chan error, 1)
		go func() { stopped <- f.run(stop) }()
		storms = append(storms, tail(get, s.Turn*flapTurn))
		close(stop)
		if err := <-stopped; err != nil {
			return 0, 0, err
		}
	}
	return Quantile(storms, 0.5), Quantile(calms, 0.5), nil
}

// tail returns the 99th percentile of an operation's nanoseconds.
func tail(loop Loop, within time.Duration) float64 {
	loop(flapBatch)
	samples := make([]float64, 0, within/(100*time.Nanosecond)+1)
	for began := time.Now(); time.Since(began) < within; {
		before := time.Now()
		loop(flapBatch)
		samples = append(samples, float64(time.Since(before))/flapBatch)
	}
	return Quantile(samples, 0.99)
}

// flapper lets providers go down and come back, one after another.
type flapper struct {
	providers []*registry.Registration
	turn      int
}

func (f *flapper) run(stop <-chan struct{}) error {
	ticker := time.NewTicker(flapEach)
	defer ticker.Stop()
	began, done := time.Now(), 0
	for {
		select {
		case <-stop:
			return nil
		case <-ticker.C:
		}
		for ; done < int(time.Since(began)/flapEach); done++ { // ticks may be late
			n := len(f.providers)
			if err := errors.Join(f.providers[f.turn%n].MarkUnhealthy(errFlapping),
				f.providers[(f.turn+n-flapDown)%n].MarkHealthy()); err != nil {
				return err
			}
			f.turn++
		}
	}
}
