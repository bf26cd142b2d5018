package llm_test

import (
	"io"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/capreg/registry/registryhttp/llm"
	"github.com/capreg/registry/verdict"
)

// tokens returns what a client or a server may use in a minute.
func tokens(perMinute int) *llm.Tokens { return new(llm.TokenLimits).Of("name", perMinute) }

// left returns the headers that tell of a limit.
func left(header http.Header) []string {
	return []string{header.Get("X-Ratelimit-Limit-Tokens"), header.Get("X-Ratelimit-Remaining-Tokens"), header.Get("X-Ratelimit-Reset-Tokens")}
}

func TestTokens_ComeBackEvenly(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		own := tokens(60)
		_, ok := own.Take(90)
		require.True(t, ok, "there are some left, and more may be used than that")
		after, ok := own.Take(1)
		require.False(t, ok)
		require.Equal(t, 31*time.Second, after)
		header := make(http.Header)
		own.Head(header)
		require.Equal(t, []string{"60", "0", "1m30s"}, left(header))
		time.Sleep(after)
		_, ok = own.Take(1)
		require.True(t, ok)
		own.Spend(-100)
		own.Head(header)
		require.Equal(t, []string{"60", "60", "0s"}, left(header), "never more than those of a minute")
	})
}

func TestTokens_WithoutABoundAreNil(t *testing.T) {
	t.Parallel()
	for _, perMinute := range []int{0, -1} {
		none := tokens(perMinute)
		require.Nil(t, none)
		_, ok := none.Take(1 << 30)
		require.True(t, ok)
		none.Spend(1)
		header := make(http.Header)
		none.Head(header)
		require.Empty(t, header)
	}
}

func TestTokenLimits_KeepWhatWasUsedThroughNewSettings(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		var limits llm.TokenLimits
		limits.Of("a", 100).Spend(90)
		header := make(http.Header)
		limits.Of("a", 200).Head(header)
		require.Equal(t, []string{"200", "110", "27s"}, left(header))
		limits.Of("a", 50).Head(header)
		require.Equal(t, []string{"50", "0", "1m48s"}, left(header))
		limits.Of("b", 50).Head(header)
		require.Equal(t, []string{"50", "50", "0s"}, left(header), "another one has its own")
	})
}

func TestTokens_MayBeUsedByManyAtOnce(t *testing.T) {
	t.Parallel()
	var limits llm.TokenLimits
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 100 {
				own := limits.Of("a", 1_000_000)
				_, ok := own.Take(3)
				if ok {
					own.Spend(2)
				}
			}
		})
	}
	all.Wait()
	header := make(http.Header)
	limits.Of("a", 1_000_000).Head(header)
	require.NotEqual(t, "1000000", header.Get("X-Ratelimit-Remaining-Tokens"))
}

func TestProxy_BoundsTheTokensOfAClient(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		body string
		to   roundTrip
		want string // that are left of 60
	}{
		"plain":                 {plain, says(200, plainJSON, whole), "55"},
		"stream":                {streamed, says(200, events, role+token+finishing+usage+marked), "55"},
		"plain, without usage":  {plain, says(200, plainJSON, `{"choices":[{"message":{}}]}`), "49"},
		"stream, without usage": {streamed, says(200, events, role+token+token+finishing+marked), "49"},
		"stream that is cut":    {streamed, says(200, events, role+token+"!"), "51"},
		"stream that is Anthropic's": {streamed, says(200, events, `data: {"type":"message_start","message":{"usage":{"input_tokens":9,"output_tokens":1}}}`+"\n\n"+
			`data: {"type":"content_block_delta","delta":{"text":"hi"}}`+"\n\n"+`data: {"type":"message_delta","usage":{"output_tokens":4}}`+"\n\n"+
			`data: {"type":"message_stop"}`+"\n\n"), "47"},
		"refusal": {plain, says(400, plainJSON, `{"error":{"message":"no"}}`), "60"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) {
				own := tokens(60)
				w, _ := proxied(t, llm.Proxy{}, llm.Way{Transport: &llm.Transport{Base: test.to}, Tokens: own}, reader(test.body))
				require.Equal(t, "60", w.Header().Get("X-Ratelimit-Limit-Tokens"))
				header := make(http.Header)
				own.Head(header)
				require.Equal(t, test.want, header.Get("X-Ratelimit-Remaining-Tokens"))
			})
		})
	}
}

func TestProxy_RefusesAClientWithoutTokensUntilThereAreSome(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		own := tokens(60)
		own.Spend(64)
		asked := 0
		way := llm.Way{Tokens: own, Transport: &llm.Transport{Base: roundTrip(func(r *http.Request) (*http.Response, error) {
			asked++
			return says(200, plainJSON, whole)(r)
		})}}
		w, report := proxied(t, llm.Proxy{}, way, reader(plain))
		require.Equal(t, http.StatusTooManyRequests, w.Code)
		require.Equal(t, "5", w.Header().Get("Retry-After"))
		require.Equal(t, []string{"60", "0", "1m4s"}, left(w.Header()))
		e := failure(t, w.Body.String())
		require.Equal(t, "tokens", e.Type)
		require.Equal(t, "rate_limit_exceeded", e.Code)
		require.Zero(t, asked)
		require.Zero(t, report.Attempts)
		time.Sleep(5 * time.Second)
		w, _ = proxied(t, llm.Proxy{}, way, reader(plain))
		require.Equal(t, http.StatusOK, w.Code)
		require.Equal(t, 1, asked)
	})
}

func TestProxy_TellsTheLimitOfTheClientAndNotThatOfTheServer(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		server := roundTrip(func(r *http.Request) (*http.Response, error) {
			response, err := says(200, plainJSON, whole)(r)
			response.Header.Set("X-Ratelimit-Remaining-Tokens", "1000000")
			response.Header.Set("X-Ratelimit-Remaining-Requests", "7")
			return response, err
		})
		w, _ := proxied(t, llm.Proxy{}, llm.Way{Transport: &llm.Transport{Base: server}, Tokens: tokens(60)}, reader(plain))
		require.Equal(t, []string{"60", "56", "4s"}, left(w.Header()), "as far as it is known by then")
		require.Equal(t, "7", w.Header().Get("X-Ratelimit-Remaining-Requests"))
	})
}

func TestTransport_WithoutTokensLeavesTheRequestToAnotherProvider(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		own := tokens(60)
		first := &llm.Transport{Tokens: own, Base: says(200, plainJSON, whole)}
		for i, want := range []string{"55", "50"} {
			response, err := send(t, first, "/chat/completions", plain)
			require.NoError(t, err, i)
			_, err = io.ReadAll(response.Body)
			require.NoError(t, err)
			require.NoError(t, response.Body.Close())
			header := make(http.Header)
			own.Head(header)
			require.Equal(t, want, header.Get("X-Ratelimit-Remaining-Tokens"))
		}
		own.Spend(60)
		_, err := send(t, first, "/chat/completions", plain) //nolint:bodyclose // there is none
		require.ErrorIs(t, err, llm.ErrTokens)
		require.Equal(t, verdict.ClassRateLimited, verdict.Of(err).Class)
		require.Equal(t, 11*time.Second, verdict.Of(err).After)
		list, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://api/v1/models", http.NoBody)
		require.NoError(t, err)
		response, err := first.RoundTrip(list)
		require.NoError(t, err, "that asks no model")
		require.NoError(t, response.Body.Close())
	})
}

func TestTransport_GivesBackTheTokensOfWhatWasNoAnswer(t *testing.T) {
	t.Parallel()
	for name, server := range map[string]roundTrip{
		"error":     func(*http.Request) (*http.Response, error) { return nil, io.ErrUnexpectedEOF },
		"refusal":   says(500, plainJSON, "{}"),
		"no answer": says(200, plainJSON, "{}"),
	} {
		bubble(t, func(t *testing.T) {
			own := tokens(60)
			response, err := send(t, &llm.Transport{Tokens: own, Base: server}, "/chat/completions", plain)
			if err == nil {
				require.NoError(t, response.Body.Close())
			}
			header := make(http.Header)
			own.Head(header)
			require.Equal(t, "60", header.Get("X-Ratelimit-Remaining-Tokens"), name)
		})
	}
}

func TestProxy_SaysARateLimitWhereNoServerHasTokens(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		own := tokens(60)
		way := llm.Way{Transport: over(t, llm.Transport{Tokens: own}, says(200, plainJSON, whole), says(200, plainJSON, whole))}
		own.Spend(90)
		for range 2 { // the first asks, the second finds that they cool down
			w, _ := proxied(t, llm.Proxy{}, way, reader(plain))
			require.Equal(t, http.StatusTooManyRequests, w.Code, w.Body)
			after, err := strconv.Atoi(w.Header().Get("Retry-After"))
			require.NoError(t, err)
			require.InDelta(t, 34, after, 4, "clients do not all come back at once")
			require.Equal(t, "rate_limit_exceeded", failure(t, w.Body.String()).Code)
		}
		time.Sleep(40 * time.Second)
		w, _ := proxied(t, llm.Proxy{}, way, reader(plain))
		require.Equal(t, http.StatusOK, w.Code, w.Body)
	})
}

func TestTransport_ClosesTheBodyOfARequestThatIsNotSent(t *testing.T) {
	t.Parallel()
	spent := tokens(1)
	_, _ = spent.Take(100)
	for name, c := range map[string]struct {
		transport llm.Transport
		copied    error
	}{
		"no tokens":      {llm.Transport{Tokens: spent}, nil},
		"renamed":        {llm.Transport{Tokens: spent, Models: map[string]string{"m": "other"}}, nil},
		"cannot be read": {llm.Transport{}, io.ErrNoProgress},
	} {
		body := &closing{Reader: reader(plain)}
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://api/v1/chat/completions", body)
		require.NoError(t, err)
		request.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(reader(plain)), c.copied }
		_, err = c.transport.RoundTrip(request) //nolint:bodyclose // there is none
		require.Error(t, err, name)
		require.True(t, body.closed.Load(), name)
	}
}
