package federationtest

import "encoding/base64"

// key returns the key of a provider's record, as an announcer of another version may write it.
func key(node, incarnation, name string) string {
	return "entry." + node + "." + incarnation + "." + base64.RawURLEncoding.EncodeToString([]byte(greeters.Name())) + "." +
		base64.RawURLEncoding.EncodeToString([]byte(name))
}
