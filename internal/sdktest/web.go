package sdktest

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"

	"github.com/bwmarrin/discordgo"
	"github.com/google/go-github/v74/github"
	"github.com/slack-go/slack"

	"github.com/capreg/registry/verdict"
)

func webClients() []Client {
	discord := web{says: discordSays, ask: askDiscord, part: `{"id":"1","content":"te`}
	slacks := web{says: slackSays, ask: askSlack, part: `{"ok":true,"channel":"te`}
	slackClient := Client{Name: "slack", Module: "github.com/slack-go/slack", Retries: "off unless `OptionRetry` is given", try: slacks.try}
	discordClient := Client{Name: "discordgo", Module: "github.com/bwmarrin/discordgo", Retries: "`ShouldRetryOnRateLimit = false`, `MaxRestRetries = 0`", try: discord.try}
	return []Client{
		{Name: "net/http", Module: "net/http", Retries: "it has none; refusals by `verdict.FromResponse`", try: web{
			says: plainSays, ask: askPlain, part: `{"answer":"te`,
		}.try},
		{Name: "go-github", Module: "github.com/google/go-github/v74", Retries: "it has none", try: web{
			says: gitHubSays, ask: askGitHub, part: `{"id":1,"name":"te`,
		}.try},
		slackClient,
		through(slackClient, slacks),
		discordClient,
		through(discordClient, discord),
	}
}

// plainSays is a problem of RFC 9457.
func plainSays(fault Fault) (status int, body any, ok bool) {
	switch fault.Problem {
	case Plain, Large, Limit:
	case Drained, LimitDelay:
		if fault.Problem == LimitDelay {
			return 0, object{"title": "text of the server", "status": fault.Status, "retry_after": delay.Seconds()}, true
		}
	default:
		return 0, nil, false
	}
	return 0, object{"title": "text of the server", "status": fault.Status}, true
}

func gitHubSays(fault Fault) (status int, body any, ok bool) {
	switch fault.Problem {
	case Plain, Large, Limit, Drained:
		return 0, object{"message": "text of the server", "documentation_url": "https://docs.example.com/rest"}, true
	case Secondary:
		return 0, object{"message": "text of the server", "documentation_url": "https://docs.example.com/rest#secondary-rate-limits"}, true
	default:
		return 0, nil, false
	}
}

// slackSays is the shape of Slack's errors: most have status 200.
func slackSays(fault Fault) (status int, body any, ok bool) {
	code := ""
	switch fault.Problem {
	case Plain:
		code = map[string]string{
			"400": "invalid_arguments", "401": "not_authed", "403": "missing_scope", "404": "channel_not_found", "501": "unknown_method",
		}[fault.Name]
	case Large, Limit:
	case DeadKey:
		code = "token_revoked"
	case LimitDelay:
		code = "ratelimited"
	default:
		return 0, nil, false
	}
	if code == "" {
		return 0, object{"ok": false, "error": "fatal_error"}, true
	}
	return http.StatusOK, object{"ok": false, "error": code}, true
}

func discordSays(fault Fault) (status int, body any, ok bool) {
	switch fault.Problem {
	case Plain, Large:
		return 0, object{"code": 0, "message": "text of the server"}, true
	case Limit, LimitDelay:
		wait := 0.0
		if fault.Want.After > 0 {
			wait = fault.Want.After.Seconds()
		}
		return 0, object{"message": "text of the server", "retry_after": wait, "global": false}, true
	default:
		return 0, nil, false
	}
}

func askPlain(ctx context.Context, p place, _ bool) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url, strings.NewReader("{}"))
	if err != nil {
		return err
	}
	response, err := p.client.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if err := verdict.FromResponse(response); err != nil {
		return err
	}
	return json.NewDecoder(response.Body).Decode(&struct{}{})
}

func askGitHub(ctx context.Context, p place, _ bool) error {
	client := github.NewClient(p.client)
	base, err := url.Parse(p.url + "/")
	if err != nil {
		return err
	}
	client.BaseURL = base
	_, _, err = client.Repositories.Get(ctx, "owner", "name")
	return err
}

func askSlack(ctx context.Context, p place, _ bool) error {
	client := slack.New("token", slack.OptionAPIURL(p.url+"/"), slack.OptionHTTPClient(p.client))
	_, _, err := client.PostMessageContext(ctx, "channel", slack.MsgOptionText("text", false))
	return err
}

// toHost sends requests to one host whatever their URL, for a client whose URLs are constants.
type toHost struct {
	place string
	next  http.RoundTripper
}

func (t toHost) RoundTrip(r *http.Request) (*http.Response, error) {
	base, err := url.Parse(t.place)
	if err != nil {
		return nil, err
	}
	r = r.Clone(r.Context())
	r.URL.Scheme, r.URL.Host = base.Scheme, base.Host
	return t.next.RoundTrip(r)
}

func askDiscord(ctx context.Context, p place, _ bool) error {
	session, err := discordgo.New("Bot token")
	if err != nil {
		return err
	}
	p.client.Transport = toHost{p.url, p.client.Transport}
	session.Client, session.ShouldRetryOnRateLimit, session.MaxRestRetries = p.client, false, 0
	_, err = session.ChannelMessageSend("1", "text", discordgo.WithContext(ctx))
	return err
}
