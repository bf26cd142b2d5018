package admin

import (
	"crypto/sha256"
	"crypto/subtle"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/capreg/registry/admin/action"
)

// Tokens returns an authoriser for [Options.Authorize] that knows each actor by a token, and allows those that may says:
// nil allows every action to all of them. A token comes as a bearer token or as the password of basic authentication,
// which browsers ask for, with any user name. An empty token matches nothing.
//
// All tokens are compared in constant time, so that the time of an answer tells nothing of them.
func Tokens(tokenOf map[string]string, may func(actor string, a action.Action) error) func(*http.Request, action.Action) (string, error) {
	type known struct {
		actor string
		sum   [sha256.Size]byte
	}
	var all []known
	for _, actor := range slices.Sorted(maps.Keys(tokenOf)) {
		if tokenOf[actor] != "" {
			all = append(all, known{actor, sha256.Sum256([]byte(tokenOf[actor]))})
		}
	}
	return func(r *http.Request, a action.Action) (string, error) {
		sum := sha256.Sum256([]byte(tokenIn(r)))
		actor, found := "", 0
		for _, k := range all {
			if same := subtle.ConstantTimeCompare(sum[:], k.sum[:]); same == 1 {
				actor, found = k.actor, 1
			}
		}
		if found == 0 {
			return "", action.ErrUnauthenticated
		}
		if may != nil {
			return actor, may(actor, a)
		}
		return actor, nil
	}
}

// tokenIn returns the token of a request; empty: it has none.
func tokenIn(r *http.Request) string {
	if _, password, ok := r.BasicAuth(); ok {
		return password
	}
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(token)
}
