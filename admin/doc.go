// Package admin serves a control API for a registry: what an operator reads and does while a program runs.
//
//	handler, err := admin.New(reg, admin.Options{Authorize: admin.Tokens(map[string]string{"ops": token}, nil)})
//	...
//	defer handler.Close()
//	mux.Handle("/admin/", http.StripPrefix("/admin", handler))
//
// Without an authoriser everything can be read and nothing be changed.
package admin
