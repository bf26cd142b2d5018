// Package tool does what a language model cannot: read a page, calculate.
//
// It shows providers of one service that differ in what they can do: a request names
// the capability it needs, and tools without it are no candidates.
package tool

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/capreg/registry/verdict"
)

// Tool turns an input into a result, both text. Implementations are safe for
// concurrent use.
type Tool interface {
	Use(ctx context.Context, input string) (string, error)
}

// ErrNoFigures is the answer of the analyst to a text without figures. No other tool
// would find any, so the call ends with it, and it is no failure of the analyst.
var ErrNoFigures = verdict.Permanent(errors.New("tool: the text has no figures"))

// Analyst is a Tool that describes the figures of a text.
type Analyst struct{}

var figure = regexp.MustCompile(`-?\d+(\.\d+)?`)

// Use returns the number, the mean, the median and the standard deviation of the figures.
func (Analyst) Use(_ context.Context, input string) (string, error) {
	var all []float64
	sum := 0.0
	for _, text := range figure.FindAllString(input, -1) {
		value, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return "", verdict.Permanent(err)
		}
		all = append(all, value)
		sum += value
	}
	if len(all) == 0 {
		return "", ErrNoFigures
	}
	slices.Sort(all)
	mean, squares := sum/float64(len(all)), 0.0
	for _, value := range all {
		squares += (value - mean) * (value - mean)
	}
	median := (all[(len(all)-1)/2] + all[len(all)/2]) / 2
	return fmt.Sprintf("%d figures, mean %.4g, median %.4g, deviation %.4g",
		len(all), mean, median, math.Sqrt(squares/float64(len(all)))), nil
}

// Scraper is a Tool that reads the text of a page.
type Scraper struct {
	client *http.Client
}

// NewScraper returns a Scraper with connections of its own.
func NewScraper() *Scraper {
	return &Scraper{&http.Client{Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, IdleConnTimeout: 30 * time.Second}}}
}

const largestPage = 1 << 20 // bytes

var markup = regexp.MustCompile(`<[^>]*>`)

// Use returns the text of the page at the URL. An error has the class of the answer's status.
func (s *Scraper) Use(ctx context.Context, input string) (text string, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, input, http.NoBody)
	if err != nil {
		return "", verdict.Permanent(err)
	}
	response, err := s.client.Do(request)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, response.Body.Close()) }()
	if err := verdict.FromResponse(response); err != nil {
		return "", err
	}
	page, err := io.ReadAll(io.LimitReader(response.Body, largestPage))
	return strings.Join(strings.Fields(markup.ReplaceAllString(string(page), " ")), " "), err
}

// Close closes the idle connections.
func (s *Scraper) Close() error {
	s.client.CloseIdleConnections()
	return nil
}
