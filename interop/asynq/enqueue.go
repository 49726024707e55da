package main

import (
	"crypto/rand"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hibiken/asynq"
)

func enqueue(args []string) error {
	flags, at := newFlags("enqueue")
	load := load{}
	flags.IntVar(&load.count, "repeat", 0, "enqueue this many tasks alike instead of reading any")
	flags.IntVar(&load.callers, "concurrency", 1, "callers at once (with -repeat)")
	flags.IntVar(&load.payloadBytes, "payload-bytes", 64, "size of a payload (with -repeat)")
	flags.StringVar(&load.queue, "queue", "default", "queue of the tasks (with -repeat)")
	flags.StringVar(&load.kind, "type", "ok", "type of the tasks (with -repeat)")
	if err := parse(flags, at, args, 0); err != nil {
		return err
	}
	client := asynq.NewClient(at.asynq())
	defer client.Close()
	if load.count > 0 {
		seconds, err := load.run(client)
		if err != nil {
			return err
		}
		printLine(map[string]any{"count": load.count, "seconds": seconds})
		return nil
	}
	return answerLines(os.Stdin, func(line []byte) (any, error) { return enqueueLine(client, line) })
}

func enqueueLine(client *asynq.Client, line []byte) (any, error) {
	var request taskRequest
	if err := decodeStrictly(line, &request); err != nil {
		return nil, fmt.Errorf("%w: %v", errBadRequest, err)
	}
	task, err := request.task()
	if err != nil {
		return nil, fmt.Errorf("%w: %v", errBadRequest, err)
	}
	info, err := client.Enqueue(task, request.Options.list()...)
	if err != nil {
		return nil, err
	}
	return viewTask(info), nil
}

// load is many tasks alike, enqueued one a call by several callers, as a busy program does it.
type load struct {
	count, callers, payloadBytes int
	queue, kind                  string
}

// run returns how many seconds it took; the first error ends it.
func (l *load) run(client *asynq.Client) (float64, error) {
	if l.callers < 1 || l.payloadBytes < 0 {
		return 0, fmt.Errorf("%w: %d callers, %d bytes of payload", errUsage, l.callers, l.payloadBytes)
	}
	payload := make([]byte, l.payloadBytes)
	if _, err := rand.Read(payload); err != nil {
		return 0, err
	}
	var left atomic.Int64
	left.Store(int64(l.count))
	failures := make(chan error, l.callers)
	var callers sync.WaitGroup
	began := time.Now()
	for range l.callers {
		callers.Add(1)
		go func() {
			defer callers.Done()
			for left.Add(-1) >= 0 {
				if _, err := client.Enqueue(asynq.NewTask(l.kind, payload), asynq.Queue(l.queue)); err != nil {
					failures <- err
					left.Store(0)
					return
				}
			}
		}()
	}
	callers.Wait()
	seconds := time.Since(began).Seconds()
	select {
	case err := <-failures:
		return 0, fmt.Errorf("could not enqueue: %w", err)
	default:
		return seconds, nil
	}
}
