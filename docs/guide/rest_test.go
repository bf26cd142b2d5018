package guide_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/capreg/registry"
	"github.com/capreg/registry/verdict"
)

// Users is a service whose providers are clients of servers with the same data.
var Users = registry.NewService[*UsersAPI]("users")

// User is a resource of the API.
type User struct {
	ID   int    `json:"id"`
	Name string `json:"name"`
}

// UsersAPI is a client of one server.
type UsersAPI struct {
	URL    string
	Client *http.Client
}

// Get reads the whole answer, since ctx ends with the attempt.
func (a *UsersAPI) Get(ctx context.Context, id int) (u User, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("%s/users/%d", a.URL, id), nil)
	if err != nil {
		return u, err
	}
	response, err := a.Client.Do(request)
	if err != nil {
		return u, err
	}
	defer func() { _ = response.Body.Close() }()
	if err := verdict.FromResponse(response); err != nil {
		return u, err // its status, code and Retry-After say what it means
	}
	return u, json.NewDecoder(response.Body).Decode(&u)
}

// registerUsers registers the primary server and its mirror.
func registerUsers(ctx context.Context, reg *registry.Registry, primary, mirror *UsersAPI) error {
	var set registry.Update
	for group, api := range []*UsersAPI{primary, mirror} {
		Users.AddTo(&set, registry.Provider[*UsersAPI]{
			Name: api.URL, Endpoint: api.URL, Instance: api, Group: group,
			AttemptTimeout: 2 * time.Second,
			Limits:         registry.LimitPolicy{MaxConcurrent: 20, MaxQueue: 100},
		})
	}
	return reg.Update(ctx, &set)
}

// App is the program that asks for users.
type App struct {
	users *registry.Resolver[*UsersAPI] // made once, by Users.Bind(reg, registry.Query{})
}

// Find reads a user from whichever server can answer; false when there is no such user.
func (a App) Find(ctx context.Context, id int) (u User, found bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	u, err = registry.Call(ctx, a.users, func(ctx context.Context, api *UsersAPI) (User, error) {
		return api.Get(ctx, id)
	})
	if verdict.Of(err).Class == verdict.ClassResource {
		return User{}, false, nil // a 404 is an answer: no other server is asked, and none is blamed
	}
	return u, err == nil, err
}

func Example_rest() {
	ctx := context.Background()
	down := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusBadGateway)
	}))
	defer down.Close()
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/users/1" {
			http.NotFound(w, r)
			return
		}
		_ = json.NewEncoder(w).Encode(User{ID: 1, Name: "Ada"})
	}))
	defer up.Close()

	reg, err := registry.New(registry.Options{})
	if err != nil {
		panic(err)
	}
	defer func() { _ = reg.Close(ctx) }()
	if err := registerUsers(ctx, reg, &UsersAPI{down.URL, down.Client()}, &UsersAPI{up.URL, up.Client()}); err != nil {
		panic(err)
	}
	app := App{users: Users.Bind(reg, registry.Query{})}
	fmt.Println(app.Find(ctx, 1))
	fmt.Println(app.Find(ctx, 2))
	// Output:
	// {1 Ada} true <nil>
	// {0 } false <nil>
}
