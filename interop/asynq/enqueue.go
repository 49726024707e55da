package main

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
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

// numberedBytesMin is the size from which on a payload has room for the task's number.
const numberedBytesMin = 26

// payload is that of task number n: JSON with its number, or bytes of no meaning where that has no room.
func (l *load) payload(n int64) []byte {
	if l.payloadBytes < numberedBytesMin {
		return bytes.Repeat([]byte{'x'}, l.payloadBytes)
	}
	return fmt.Appendf(nil, `{"n":%010d,"fill":"%s"}`, n, strings.Repeat("x", l.payloadBytes-numberedBytesMin))
}

// taskNumber reads it back.
func taskNumber(payload []byte) (int64, bool) {
	if len(payload) < numberedBytesMin || !bytes.HasPrefix(payload, []byte(`{"n":`)) {
		return 0, false
	}
	n, err := strconv.ParseInt(string(payload[5:15]), 10, 64)
	return n, err == nil
}

// run returns how many seconds it took; the first error ends it.
func (l *load) run(client *asynq.Client) (float64, error) {
	if l.callers < 1 || l.payloadBytes < 0 {
		return 0, fmt.Errorf("%w: %d callers, %d bytes of payload", errUsage, l.callers, l.payloadBytes)
	}
	var next atomic.Int64
	failures := make(chan error, l.callers)
	var callers sync.WaitGroup
	began := time.Now()
	for range l.callers {
		callers.Add(1)
		go func() {
			defer callers.Done()
			for n := next.Add(1) - 1; n < int64(l.count); n = next.Add(1) - 1 {
				if _, err := client.Enqueue(asynq.NewTask(l.kind, l.payload(n)), asynq.Queue(l.queue)); err != nil {
					failures <- err
					next.Store(int64(l.count))
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
