// This file shows the faults of the session, and what an operator does about one of them.

package main

import (
	"errors"
	"net/http"
	"time"

	"github.com/capreg/registry/examples/internal/loopback"
)

// act is a fault before a question, at a share of the session.
type act struct {
	at   float64
	what string
	do   func(a *agent) error
}

// script is the session's bad day.
func script() []act {
	behave := func(name string, behaviour loopback.Behaviour) func(*agent) error {
		return func(a *agent) error {
			a.backends.server(name).Behave(behaviour)
			return a.backends.server(name).Listen()
		}
	}
	refuse := func(name string) func(*agent) error {
		return func(a *agent) error {
			a.backends.server(name).Refuse()
			return nil
		}
	}
	// The operator has fixed the key and resets the provider, which cannot notice by itself.
	mended := func(name string) func(*agent) error {
		return func(a *agent) error {
			provider, _ := a.registry.Provider(LLM.Name(), name)
			return errors.Join(behave(name, loopback.Behaviour{})(a), provider.Reset())
		}
	}
	return []act{
		{0.10, "openai answers 500 from now on", behave("openai", loopback.Behaviour{Status: http.StatusInternalServerError})},
		{0.25, "anthropic is rate limited: 429, Retry-After 3 s", behave("anthropic",
			loopback.Behaviour{Status: http.StatusTooManyRequests, RetryAfter: 3 * time.Second})},
		{0.35, "local-b dies", refuse("local-b")},
		{0.40, "openai hangs now: it takes questions and says nothing", behave("openai", loopback.Behaviour{Hang: true})},
		{0.45, "local-a is overloaded: 503, Retry-After 1 s", behave("local-a",
			loopback.Behaviour{Status: http.StatusServiceUnavailable, RetryAfter: time.Second})},
		{0.50, "local-a has recovered", behave("local-a", loopback.Behaviour{})},
		{0.55, "anthropic has recovered", behave("anthropic", loopback.Behaviour{})},
		{0.60, "openai refuses connections now", refuse("openai")},
		{0.62, "anthropic cuts its streams halfway", behave("anthropic", loopback.Behaviour{CutStreams: true})},
		{0.68, "anthropic refuses the key: 401", behave("anthropic", loopback.Behaviour{Status: http.StatusUnauthorized})},
		{0.72, "the key of anthropic was mended", mended("anthropic")},
		{0.74, "the disk of the journal is away", func(a *agent) error { return a.backends.unmount() }},
		{0.78, "the disk of the journal is back", func(a *agent) error { return a.backends.mount() }},
		{0.80, "openai and local-b have recovered", func(a *agent) error {
			return errors.Join(behave("openai", loopback.Behaviour{})(a), behave("local-b", loopback.Behaviour{})(a))
		}},
	}
}
