package registryprom

import (
	"encoding"
	"slices"

	dto "github.com/prometheus/client_model/go"

	"github.com/capreg/registry/event"
	"github.com/capreg/registry/health"
	"github.com/capreg/registry/reason"
	"github.com/capreg/registry/startup"
	"github.com/capreg/registry/status"
	"github.com/capreg/registry/verdict"
)

// words are the values of a label whose list is closed. They come from the vocabulary of the registry: what is added
// there is shown here.
type words struct {
	texts []string // sorted
	pairs []*dto.LabelPair
	at    map[string]int
}

// The closed lists.
//
//nolint:gochecknoglobals // immutable
var (
	kinds      = wordsOf("kind", texts(event.Kinds()))
	whys       = wordsOf("reason", texts(reason.Whys()))
	codes      = wordsOf("reason", texts(reason.Codes()))
	breakers   = wordsOf("state", names[status.BreakerState]())
	healths    = wordsOf("state", names[health.State]())
	components = wordsOf("state", names[startup.State]())
	results    = wordsOf("result", []string{"hit", "miss"})
	errorTypes = wordsOf("error_type", classes())
)

// healthsFrom0 has the places of the states that each provider has from the beginning; the others are rare.
//
//nolint:gochecknoglobals // immutable
var healthsFrom0 = []int{healths.at[health.Healthy.String()], healths.at[health.Degraded.String()], healths.at[health.Unhealthy.String()]}

func wordsOf(label string, all []string) words {
	slices.Sort(all)
	w := words{texts: all, at: make(map[string]int, len(all))}
	for i := range all {
		w.at[all[i]] = i
		w.pairs = append(w.pairs, &dto.LabelPair{Name: &label, Value: &all[i]})
	}
	return w
}

// texts returns words as texts.
func texts[T ~string](of []T) []string {
	all := make([]string, len(of))
	for i, one := range of {
		all[i] = string(one)
	}
	return all
}

// names returns the names of all values of an enumeration, which has a name for no other value.
func names[T interface {
	~uint8
	encoding.TextMarshaler
}]() (all []string) {
	for value := T(0); ; value++ {
		name, err := value.MarshalText()
		if err != nil {
			return all
		}
		all = append(all, string(name))
	}
}

func classes() (all []string) {
	for _, class := range verdict.Classes() {
		all = append(all, errorType(class))
	}
	return all
}

// errorType returns the label of a class: none for an answer, as is the custom.
func errorType(class verdict.Class) string {
	if class == verdict.ClassSuccess {
		return ""
	}
	return class.String()
}
