// The real asynq, driven by the tests of the Redis broker: this program enqueues, works, inspects
// and schedules with the Go library, and speaks JSON lines, so that a test can put Go on one side
// of a queue and Outlast on the other. README.md in the folder above has the JSON shapes.
//
//	outlast-interop COMMAND -redis HOST:PORT [-db N] [flags]
//
// Standard output carries JSON lines only; the library's log goes to standard error. Exit codes:
// 0 all went well, 1 could not go on, 2 wrong usage, 3 went through but a request was refused.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
)

type command struct {
	name, does string
	run        func(args []string) error
}

func commands() []command {
	return []command{
		{"enqueue", "tasks from standard input, or many alike with -repeat", enqueue},
		{"work", "a server whose handler does what each task asks for", work},
		{"inspect", "requests from the arguments, or from standard input", inspect},
		{"schedule", "a scheduler for the entries on standard input", schedule},
		{"golden", "records as client, server and scheduler leave them in Redis", golden},
		{"bench", "enqueue, drain, pickup or lateness: figures to compare with", bench},
		{"ping", "how fast the server answers PING", ping},
	}
}

var (
	errUsage   = errors.New("wrong usage")
	errRefused = errors.New("a request was refused")
)

func main() {
	os.Exit(exitCode(dispatch(os.Args[1:])))
}

func dispatch(args []string) error {
	if len(args) > 0 {
		for _, c := range commands() {
			if c.name == args[0] {
				return c.run(args[1:])
			}
		}
	}
	fmt.Fprintln(os.Stderr, "usage: outlast-interop COMMAND -redis HOST:PORT [-db N] [flags]")
	for _, c := range commands() {
		fmt.Fprintf(os.Stderr, "  %-9s %s\n", c.name, c.does)
	}
	return errUsage
}

func exitCode(err error) int {
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return 0
	case errors.Is(err, errRefused):
		return 3
	}
	fmt.Fprintln(os.Stderr, "outlast-interop:", err)
	if errors.Is(err, errUsage) {
		return 2
	}
	return 1
}

// address is where Redis listens. There is no default: a test that forgets to name its own server
// must not meet someone else's.
type address struct {
	redis string
	db    int
	pool  int
	user  string
}

// passwordEnv names the password: one on the command line would be there for all to read.
const passwordEnv = "OUTLAST_INTEROP_PASSWORD"

func newFlags(name string) (*flag.FlagSet, *address) {
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	at := &address{}
	flags.StringVar(&at.redis, "redis", "", "host:port of the server (required)")
	flags.IntVar(&at.db, "db", 0, "number of the database")
	flags.StringVar(&at.user, "user", "", "name to log in with; the password is in "+passwordEnv)
	flags.IntVar(&at.pool, "pool", 0, "most connections of a client; 0: as the library likes")
	return flags, at
}

// parse reads the flags and wants no more than extraMax further arguments.
func parse(flags *flag.FlagSet, at *address, args []string, extraMax int) error {
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return err
		}
		return fmt.Errorf("%w: %v", errUsage, err)
	}
	if at.redis == "" {
		return fmt.Errorf("%w: %s needs -redis host:port", errUsage, flags.Name())
	}
	if flags.NArg() > extraMax {
		return fmt.Errorf("%w: unexpected argument %q", errUsage, flags.Arg(extraMax))
	}
	return nil
}

func (a *address) asynq() asynq.RedisClientOpt {
	return asynq.RedisClientOpt{
		Addr: a.redis, DB: a.db, PoolSize: a.pool, Username: a.user, Password: os.Getenv(passwordEnv),
	}
}

func (a *address) raw() *redis.Client {
	return redis.NewClient(&redis.Options{
		Addr: a.redis, DB: a.db, PoolSize: a.pool, Username: a.user, Password: os.Getenv(passwordEnv),
	})
}

// Many goroutines print; a line is written at once and whole, so that a killed process leaves no
// half of one.
var printing sync.Mutex

func printLine(value any) {
	line, err := encode(value)
	if err != nil {
		line = fmt.Appendf(nil, "{\"event\":\"unprintable\",\"text\":%q}\n", err.Error())
	}
	printing.Lock()
	defer printing.Unlock()
	if _, err := os.Stdout.Write(line); err != nil {
		os.Exit(1) // nobody is listening any more
	}
}

func encode(value any) ([]byte, error) {
	var line bytes.Buffer
	encoder := json.NewEncoder(&line)
	encoder.SetEscapeHTML(false)
	err := encoder.Encode(value)
	return line.Bytes(), err
}

// decodeStrictly refuses fields it does not know: a misspelt option must not pass for a default.
func decodeStrictly(line []byte, into any) error {
	decoder := json.NewDecoder(bytes.NewReader(line))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(into); err != nil {
		return err
	}
	if _, err := decoder.Token(); err != io.EOF {
		return errors.New("more than one JSON value on the line")
	}
	return nil
}
