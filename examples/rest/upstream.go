package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
)

// api is three upstreams over one set of orders.
type api struct {
	servers []*httptest.Server

	// mu guards orders; no request holds it while it hangs.
	mu     sync.Mutex
	orders map[int]int // how often each was placed
}

// fault answers request n of its server instead of the API, or afterwards.
type fault func(w http.ResponseWriter, r *http.Request, n int, serve func()) (done bool)

// outage fails for a while.
func outage(w http.ResponseWriter, _ *http.Request, n int, _ func()) bool {
	if n < 9 || n > 13 {
		return false
	}
	http.Error(w, "the database is away", http.StatusInternalServerError)
	return true
}

// limit refuses every third request, for a second.
func limit(w http.ResponseWriter, _ *http.Request, n int, _ func()) bool {
	if n%3 != 0 {
		return false
	}
	w.Header().Set("Retry-After", "1")
	w.WriteHeader(http.StatusTooManyRequests)
	return true
}

// hang does every fourth request, and then says nothing.
func hang(_ http.ResponseWriter, r *http.Request, n int, serve func()) bool {
	if n%4 != 0 {
		return false
	}
	serve()
	<-r.Context().Done()
	return true
}

func startAPI() *api {
	a := &api{orders: make(map[int]int)}
	for _, fails := range []fault{outage, limit, hang} {
		var mu sync.Mutex
		n := 0
		a.servers = append(a.servers, httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			n++
			nth := n
			mu.Unlock()
			if !fails(w, r, nth, func() { a.serve(httptest.NewRecorder(), r) }) {
				a.serve(w, r)
			}
		})))
	}
	return a
}

func (a *api) serve(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	o := Order{Item: "tea"}
	if r.Method == http.MethodPost {
		if err := json.NewDecoder(r.Body).Decode(&o); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		a.orders[o.ID]++
	} else if id, err := strconv.Atoi(r.URL.Path[len("/orders/"):]); err != nil || a.orders[id] == 0 {
		http.Error(w, "no such order", http.StatusNotFound)
		return
	} else {
		o.ID = id
	}
	_ = json.NewEncoder(w).Encode(o) // the client may be gone
}

func (a *api) urls() (urls []string) {
	for _, server := range a.servers {
		urls = append(urls, server.URL)
	}
	return urls
}

// String says what was placed.
func (a *api) String() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	twice := 0
	for _, times := range a.orders {
		if times > 1 {
			twice++
		}
	}
	return fmt.Sprintf("%d orders were placed, %d of them twice", len(a.orders), twice)
}

func (a *api) close() {
	for _, server := range a.servers {
		server.CloseClientConnections() // those that hang
		server.Close()
	}
}
