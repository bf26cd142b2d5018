package action

import "errors"

// ErrUnauthenticated is the error of an authoriser that does not know the party: it is asked for credentials (status
// 401). Every other error of an authoriser is a refusal (403).
var ErrUnauthenticated = errors.New("credentials are missing or wrong")
