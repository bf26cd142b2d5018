package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/capreg/registry/verdict"
)

// outcomes returns the table of classes, one row each, with everything that follows from them.
func outcomes() (string, error) {
	var table strings.Builder
	table.WriteString("| class | same provider again? | next provider? | `OnceOnly` goes on? | breaker | cooldown | counted as |\n" +
		"| --- | --- | --- | --- | --- | --- | --- |\n")
	for _, class := range verdict.Classes() {
		rule := class.Rule()
		words := []string{
			wordOf(rule.RetryHere, retries), wordOf(rule.Next, nexts), yesOrNo(rule.OnceMovesOn), wordOf(rule.Blame, blames),
			cooldownOf(rule), wordOf(rule.Tally, tallies),
		}
		if slices.Contains(words, "") {
			return "", fmt.Errorf("class %q has a value without a word: %q", class, words)
		}
		fmt.Fprintf(&table, "| %s | %s |\n", class, strings.Join(words, " | "))
	}
	return table.String(), nil
}

// The words of the table; what is in brackets is explained below it.
//
//nolint:gochecknoglobals // immutable
var (
	retries = map[verdict.Retry]string{
		verdict.RetryNo: "no", verdict.RetryYes: "yes", verdict.RetryWhenWaiting: "when waiting (a)",
	}
	nexts = map[verdict.Next]string{
		verdict.NextNo: "no", verdict.NextYes: "yes", verdict.NextFree: "yes, at no cost",
		verdict.NextBeforeFirstItem: "before the first item", verdict.NextLargerWindow: "with a larger window (b)",
		verdict.NextWhenAllowed: "if the query allows it (c)", verdict.NextByOption: "by option (d)",
	}
	blames = map[verdict.Blame]string{
		verdict.BlameNeutral: "–", verdict.BlameSuccess: "success", verdict.BlameFailure: "failure",
		verdict.BlameWhenSlow: "success (e)", verdict.BlameWhenLong: "failure after its time (f)",
		verdict.BlameNotRecorded: "–", verdict.BlameWhenHanging: "failure after several (g)",
	}
	cooldowns = map[verdict.Cooldown]string{
		verdict.CooldownNone: "–", verdict.CooldownReset: "its growth ends", verdict.CooldownShort: "5 to 30 s",
		verdict.CooldownAsked: "as asked, else 2 s to 1 min", verdict.CooldownLong: "5 min to 1 h",
		verdict.CooldownModel: "1 to 10 min", verdict.CooldownThird: "5 min to 1 h at the third (h)",
	}
	scopes  = map[verdict.Scope]string{verdict.ScopeProvider: "provider", verdict.ScopeDomain: "domain"}
	tallies = map[verdict.Tally]string{
		verdict.TallyNone: "–", verdict.TallySuccess: "success", verdict.TallyFailure: "failure",
		verdict.TallyIgnored: "ignored", verdict.TallyLimited: "limited",
	}
)

// wordOf returns the word of a value; none for one that is not known here.
func wordOf[K comparable](value K, words map[K]string) string { return words[value] }

func yesOrNo(yes bool) string {
	if yes {
		return "yes"
	}
	return "no"
}

func cooldownOf(rule verdict.Rule) string {
	text := wordOf(rule.Cooldown, cooldowns)
	if text == "" || rule.Cooldown == verdict.CooldownNone || rule.Cooldown == verdict.CooldownReset {
		return text
	}
	return text + ", " + wordOf(rule.Scope, scopes)
}

// longestList is the number of statuses above which a class has the rest of a hundred.
const longestList = 20

// statuses returns the table of HTTP statuses by the class that the built-in classifier gives them.
func statuses() string {
	codes := make(map[verdict.Class][]string)
	for _, hundred := range []int{400, 500} {
		alike := make(map[verdict.Class][]string)
		for code := hundred; code < hundred+100; code++ {
			plain, delayed := verdict.OfHTTPStatus(code, 0).Class, verdict.OfHTTPStatus(code, time.Second).Class
			alike[plain] = append(alike[plain], strconv.Itoa(code))
			if delayed != plain {
				alike[delayed] = append(alike[delayed], fmt.Sprintf("%d with Retry-After", code))
			}
		}
		for class, list := range alike {
			if len(list) > longestList { // all that are not listed elsewhere
				list = []string{fmt.Sprintf("every other %dxx", hundred/100)}
			}
			codes[class] = append(codes[class], list...)
		}
	}
	var table strings.Builder
	table.WriteString("| HTTP status | class |\n| --- | --- |\n")
	for _, class := range verdict.Classes() {
		if len(codes[class]) > 0 {
			fmt.Fprintf(&table, "| %s | %s |\n", strings.Join(codes[class], ", "), class)
		}
	}
	return table.String()
}
