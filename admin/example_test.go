package admin_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/capreg/registry"
	"github.com/capreg/registry/admin"
	"github.com/capreg/registry/admin/action"
)

// mount serves the control API beside what the program serves. The result ends it.
func mount(mux *http.ServeMux, reg *registry.Registry, tokens map[string]string) (end func(), err error) {
	handler, err := admin.New(reg, admin.Options{
		Authorize: admin.Tokens(tokens, func(actor string, a action.Action) error {
			if actor == "dashboard" && a.Verb != action.Read {
				return registry.ErrDenied
			}
			return nil
		}),
		Hosts: []string{"agent.internal"},
	})
	if err != nil {
		return nil, err
	}
	mux.Handle("/ops/", http.StripPrefix("/ops", handler))
	return handler.Close, nil
}

func Example() {
	ctx := context.Background()
	reg, err := registry.New(registry.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = reg.Close(ctx) }()
	for _, name := range []string{"primary", "backup"} {
		if _, err := chat.Register(ctx, reg, registry.Provider[call]{Name: name, Instance: func() error { return nil }}); err != nil {
			fmt.Println(err)
			return
		}
	}
	mux := http.NewServeMux()
	end, err := mount(mux, reg, map[string]string{"ops": "a-secret", "dashboard": "another"})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer end()
	server := httptest.NewServer(mux)
	defer server.Close()

	change := func(token string) {
		request, err := http.NewRequestWithContext(ctx, http.MethodPut, server.URL+"/ops/v1/runtime/services/backup/priority", strings.NewReader(`{"priority": "HIGH"}`))
		if err != nil {
			fmt.Println(err)
			return
		}
		request.Header.Set("Content-Type", "application/json")
		request.Header.Set("Authorization", "Bearer "+token)
		answer, err := http.DefaultTransport.RoundTrip(request)
		if err != nil {
			fmt.Println(err)
			return
		}
		text, err := io.ReadAll(answer.Body)
		if err == nil {
			err = answer.Body.Close()
		}
		fmt.Println(answer.StatusCode, strings.TrimSpace(string(text)), err)
	}
	change("another")
	change("a-secret")
	fmt.Println("picked:", chat.Bind(reg, registry.Query{}).Explain().Winner)
	// Output:
	// 403 {"type":"about:blank","title":"Forbidden","status":403,"detail":"this is not allowed to you"} <nil>
	// 200 {"service":"chat","provider_name":"backup","old_priority":"NORMAL","new_priority":"HIGH","old_priority_group":0,"new_priority_group":0,"old_strategy":"FALLBACK","new_strategy":"FALLBACK","message":"backup is now HIGH in group 0, FALLBACK (before: NORMAL in group 0, FALLBACK)"} <nil>
	// picked: backup
}
