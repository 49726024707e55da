// What does the real robfig/cron answer? This program prints a table of cron specs and their
// ticks, which the Rust tests of outlast-core compare with their own answers.
//
//	go run . > ../../crates/outlast-core/tests/fixtures/cron_vectors.tsv
//	go run . -random 20000 -seed 7 > random.tsv
//
// Columns: spec (a JSON string), zone, time, result. The result is "error", or the next ticks in
// UTC. Three words stand for a tick: "never" for Go's zero time, "stuck" for one that is not later
// than the time asked about, "hang" for a search that was still running after a while. A panic
// counts as an error.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand"
	"os"
	"strings"
	"time"

	"github.com/robfig/cron/v3"
)

const patience = 5 * time.Second

const header = `# Cron specs and their ticks as the real github.com/robfig/cron/v3 v3.0.1 computes them.
# Do not edit. To regenerate, in interop/cron-vectors:
#   go run . > ../../crates/outlast-core/tests/fixtures/cron_vectors.tsv
# spec (JSON)	zone	time	error, or the next ticks (or never, stuck, hang: see main.go)
`

type question struct {
	spec, zone string
	from       time.Time
	ticks      int
}

func main() {
	random := flag.Int("random", 0, "print this many random questions instead of the fixed table")
	seed := flag.Int64("seed", 1, "seed of the random questions")
	flag.Parse()

	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	fmt.Fprint(out, header)
	questions := table()
	if *random > 0 {
		questions = randomQuestions(rand.New(rand.NewSource(*seed)), *random)
	}
	for _, q := range questions {
		spec, err := json.Marshal(q.spec)
		if err != nil {
			panic(err)
		}
		from := q.from.UTC().Format(time.RFC3339Nano)
		fmt.Fprintf(out, "%s\t%s\t%s\t%s\n", spec, q.zone, from, answerInTime(q))
	}
}

// answerInTime gives up on a search that does not end. Its goroutine is left to itself: nothing
// can stop it, and the program ends soon.
func answerInTime(q question) string {
	result := make(chan string, 1)
	go func() {
		defer func() {
			if recover() != nil {
				result <- "error"
			}
		}()
		result <- answer(q)
	}()
	select {
	case text := <-result:
		return text
	case <-time.After(patience):
		return "hang"
	}
}

func answer(q question) string {
	schedule, err := cron.ParseStandard(q.spec)
	if err != nil {
		return "error"
	}
	at := q.from.In(mustLoad(q.zone))
	var ticks []string
	for len(ticks) < q.ticks {
		next := schedule.Next(at)
		if next.IsZero() {
			ticks = append(ticks, "never")
			break
		}
		if !next.After(at) {
			ticks = append(ticks, "stuck")
			break
		}
		ticks = append(ticks, next.UTC().Format(time.RFC3339Nano))
		at = next
	}
	return strings.Join(ticks, ",")
}

func mustLoad(zone string) *time.Location {
	location, err := time.LoadLocation(zone)
	if err != nil {
		panic(err)
	}
	return location
}

func mustParse(text string) time.Time {
	at, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		panic(err)
	}
	return at
}
