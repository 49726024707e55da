package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/hibiken/asynq"
)

func work(args []string) error {
	flags, at := newFlags("work")
	config := asynq.Config{Queues: queues{"default": 1}, LogLevel: asynq.WarnLevel}
	untilEOF := flags.Bool("until-eof", false, "end also when standard input is closed")
	workFlags(flags, &config)
	if err := parse(flags, at, args, 0); err != nil {
		return err
	}
	config.ErrorHandler = asynq.ErrorHandlerFunc(reportFailure)
	config.IsFailure = func(err error) bool { return !errors.Is(err, errNotFailure) }

	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT, syscall.SIGTSTP)
	server := asynq.NewServer(at.asynq(), config)
	if err := server.Start(asynq.HandlerFunc(handle)); err != nil {
		return fmt.Errorf("could not start the server: %w", err)
	}
	printLine(newEvent("ready"))
	waitForEnd(stop, *untilEOF, server.Stop)
	server.Shutdown()
	printLine(newEvent("stopped"))
	return nil
}

func workFlags(flags *flag.FlagSet, config *asynq.Config) {
	flags.Func("queues", "queues and priorities: a=3,b=1", func(text string) (err error) {
		config.Queues, err = parseQueues(text)
		return err
	})
	flags.BoolVar(&config.StrictPriority, "strict", false, "strict priorities")
	flags.IntVar(&config.Concurrency, "concurrency", 0, "tasks at once; 0: the library's default")
	flags.DurationVar(&config.ShutdownTimeout, "shutdown-timeout", 0, "how long the end waits for handlers")
	flags.DurationVar(&config.TaskCheckInterval, "task-check-interval", 0, "pause when all queues are empty")
	flags.DurationVar(&config.DelayedTaskCheckInterval, "delay-check-interval", 0, "how often due tasks are forwarded")
	flags.DurationVar(&config.JanitorInterval, "janitor-interval", 0, "how often expired completed tasks are deleted")
	flags.DurationVar(&config.GroupGracePeriod, "group-grace", 0, "how long a group waits for another member; 1s at least")
	flags.DurationVar(&config.GroupMaxDelay, "group-max-delay", 0, "how long a group waits at most")
	flags.IntVar(&config.GroupMaxSize, "group-max-size", 0, "at how many members a group is taken")
	groupType := flags.String("group-type", "aggregated", "type of the task made of a group")
	flags.BoolFunc("group-aggregate", "join the payloads of a group's members into one task", func(text string) error {
		aggregates, err := strconv.ParseBool(text)
		if aggregates {
			config.GroupAggregator = joinPayloads(groupType)
		}
		return err
	})
	flags.Func("retry-delay", "a fixed delay before every retry", func(text string) error {
		delay, err := time.ParseDuration(text)
		config.RetryDelayFunc = func(int, error, *asynq.Task) time.Duration { return delay }
		return err
	})
	flags.Var(&config.LogLevel, "log-level", "debug, info, warn, error or fatal")
}

type queues = map[string]int

func parseQueues(text string) (queues, error) {
	parsed := queues{}
	for _, part := range strings.Split(text, ",") {
		// A queue's name may contain "=", so the last one counts.
		cut := strings.LastIndex(part, "=")
		if cut < 0 {
			parsed[part] = 1
			continue
		}
		priority, err := strconv.Atoi(part[cut+1:])
		if err != nil {
			return nil, fmt.Errorf("priority in %q: %w", part, err)
		}
		parsed[part[:cut]] = priority
	}
	return parsed, nil
}

// joinPayloads takes the type by reference: the flag may follow the one that asks for this.
func joinPayloads(kind *string) asynq.GroupAggregator {
	return asynq.GroupAggregatorFunc(func(group string, tasks []*asynq.Task) *asynq.Task {
		var payload []byte
		for _, task := range tasks {
			payload = append(payload, task.Payload()...)
		}
		note := newEvent("aggregated")
		note.Group, note.Members, note.Type, note.Payload = group, len(tasks), *kind, payload
		printLine(note)
		return asynq.NewTask(*kind, payload)
	})
}

// waitForEnd returns at TERM, INT or the end of input; TSTP makes the server stop fetching.
func waitForEnd(stop <-chan os.Signal, untilEOF bool, pause func()) {
	var ended <-chan struct{}
	if untilEOF {
		ended = endOfInput()
	}
	for {
		select {
		case got := <-stop:
			if got != syscall.SIGTSTP {
				return
			}
			pause()
			printLine(newEvent("quiet"))
		case <-ended:
			return
		}
	}
}

// event is one line about a task or the process. At is Unix milliseconds of this process's clock.
type event struct {
	Event    string            `json:"event"`
	At       int64             `json:"at"`
	ID       string            `json:"id,omitempty"`
	Queue    string            `json:"queue,omitempty"`
	Type     string            `json:"type,omitempty"`
	Payload  []byte            `json:"payload_base64,omitempty"`
	Retried  *int              `json:"retried,omitempty"`
	MaxRetry *int              `json:"max_retry,omitempty"`
	Deadline *int64            `json:"deadline,omitempty"`
	Headers  map[string]string `json:"headers,omitempty"`
	Group    string            `json:"group,omitempty"`
	Members  int               `json:"members,omitempty"`
	Error    *string           `json:"error,omitempty"`
}

func newEvent(name string) event { return event{Event: name, At: time.Now().UnixMilli()} }

func taskEvent(ctx context.Context, name string, task *asynq.Task) event {
	e := newEvent(name)
	e.ID, _ = asynq.GetTaskID(ctx)
	e.Queue, _ = asynq.GetQueueName(ctx)
	retried, _ := asynq.GetRetryCount(ctx)
	maxRetry, _ := asynq.GetMaxRetry(ctx)
	e.Retried, e.MaxRetry = &retried, &maxRetry
	if deadline, ok := ctx.Deadline(); ok {
		ms := deadline.UnixMilli()
		e.Deadline = &ms
	}
	e.Type, e.Payload, e.Headers = task.Type(), task.Payload(), task.Headers()
	return e
}

func (e event) with(err error) event {
	if err != nil {
		text := err.Error()
		e.Error = &text
	}
	return e
}

// handle prints "finished" for every run that it started: also for one that panics, and for one
// that the server has given up ("cancelled" comes first then).
func handle(ctx context.Context, task *asynq.Task) (err error) {
	printLine(taskEvent(ctx, "started", task))
	defer func() {
		if context.Cause(ctx) != nil {
			printLine(taskEvent(ctx, "cancelled", task).with(context.Cause(ctx)))
		}
		thrown := recover()
		if thrown != nil {
			printLine(taskEvent(ctx, "finished", task).with(fmt.Errorf("panic: %v", thrown)))
			panic(thrown)
		}
		printLine(taskEvent(ctx, "finished", task).with(err))
	}()
	return behave(ctx, task)
}

// reportFailure is the server's own view of a failure: its text is what the task's record gets,
// except after a lost lease, where nothing is written.
func reportFailure(ctx context.Context, task *asynq.Task, err error) {
	printLine(taskEvent(ctx, "failed", task).with(err))
}
