package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/hibiken/asynq"
)

func bench(args []string) error {
	figures := map[string]func([]string) error{
		"enqueue": benchEnqueue, "drain": benchDrain, "pickup": benchPickup, "lateness": benchLateness,
	}
	if len(args) == 0 || figures[args[0]] == nil {
		return fmt.Errorf("%w: bench enqueue|drain|pickup|lateness", errUsage)
	}
	return figures[args[0]](args[1:])
}

func benchEnqueue(args []string) error {
	flags, at := newFlags("bench enqueue")
	load := load{kind: "bench"}
	flags.IntVar(&load.count, "n", 10_000, "tasks")
	flags.IntVar(&load.callers, "c", 1, "callers at once")
	flags.IntVar(&load.payloadBytes, "payload-bytes", 64, "size of a payload")
	flags.StringVar(&load.queue, "queue", "bench", "queue")
	if err := parse(flags, at, args, 0); err != nil {
		return err
	}
	client := asynq.NewClient(at.asynq())
	defer client.Close()
	// The connection and the queue's registration are not what is measured.
	if err := client.Ping(); err != nil {
		return err
	}
	seconds, err := load.run(client)
	if err != nil {
		return err
	}
	printLine(map[string]any{
		"bench": "enqueue", "tasks": load.count, "callers": load.callers, "payload_bytes": load.payloadBytes,
		"seconds": seconds, "per_second": float64(load.count) / seconds,
	})
	return nil
}

// drain is one measured run of a server over tasks that are all waiting when it starts.
type drain struct {
	load        load
	concurrency int
	fill        bool
	waiting     int
	active      int
	patience    time.Duration
}

func benchDrain(args []string) error {
	flags, at := newFlags("bench drain")
	d := drain{load: load{kind: "bench", callers: 16}}
	flags.IntVar(&d.load.count, "n", 10_000, "tasks")
	flags.IntVar(&d.concurrency, "c", 10, "concurrency of the server")
	flags.IntVar(&d.load.payloadBytes, "payload-bytes", 64, "size of a payload")
	flags.StringVar(&d.load.queue, "queue", "bench", "queue")
	flags.BoolVar(&d.fill, "fill", true, "enqueue the tasks first; with false they must be there")
	flags.IntVar(&d.waiting, "waiting", 0, "further tasks that wait behind them and are not to be run")
	flags.IntVar(&d.active, "active", 0, "further tasks that are active all the time")
	flags.DurationVar(&d.patience, "patience", 10*time.Minute, "when to give up")
	if err := parse(flags, at, args, 0); err != nil {
		return err
	}
	if d.fill {
		client := asynq.NewClient(at.asynq())
		_, err := d.load.run(client)
		client.Close()
		if err != nil {
			return err
		}
	}
	return d.run(at)
}

// run counts each task once by its number (or its id, where the payload has no room for one), however
// often it is executed, and stops the first clock when the last one has been handled, the second when
// Redis has no active task left. With others waiting behind them there is only the first.
func (d *drain) run(at *address) error {
	inspector := asynq.NewInspector(at.asynq())
	defer inspector.Close()
	before, err := inspector.GetQueueInfo(d.load.queue)
	if err != nil {
		return err
	}
	if before.Pending != d.load.count+d.waiting {
		return fmt.Errorf("queue %q has %d pending tasks, not %d", d.load.queue, before.Pending, d.load.count+d.waiting)
	}
	runs := counter{seen: make(map[string]struct{}, d.load.count), want: d.load.count, reached: make(chan struct{})}
	server := asynq.NewServer(at.asynq(), asynq.Config{
		Queues: map[string]int{d.load.queue: 1}, Concurrency: d.concurrency, LogLevel: asynq.WarnLevel,
	})
	patience := time.After(d.patience)
	began := time.Now()
	if err := server.Start(asynq.HandlerFunc(runs.count)); err != nil {
		return err
	}
	defer server.Shutdown()
	select {
	case <-runs.reached:
	case <-patience:
		return fmt.Errorf("after %s only %d of %d tasks had run", d.patience, runs.distinct(), d.load.count)
	}
	handled := time.Since(began)
	settled := handled
	if d.waiting == 0 {
		if err := d.awaitSettled(inspector, patience); err != nil {
			return err
		}
		settled = time.Since(began)
	}
	printLine(map[string]any{
		"bench": "drain", "tasks": d.load.count, "concurrency": d.concurrency, "payload_bytes": d.load.payloadBytes,
		"distinct": runs.distinct(), "executions": runs.executions(), "seconds": settled.Seconds(),
		"handled_seconds": handled.Seconds(), "per_second": float64(d.load.count) / settled.Seconds(),
	})
	return nil
}

func (d *drain) awaitSettled(inspector *asynq.Inspector, patience <-chan time.Time) error {
	for {
		info, err := inspector.GetQueueInfo(d.load.queue)
		if err != nil {
			return err
		}
		if info.Active == d.active && info.Pending == 0 {
			return nil
		}
		select {
		case <-patience:
			return fmt.Errorf("after %s %d tasks were still active", d.patience, info.Active)
		case <-time.After(time.Millisecond):
		}
	}
}

type counter struct {
	mutex   sync.Mutex
	seen    map[string]struct{}
	total   int
	want    int
	reached chan struct{}
}

func (c *counter) count(ctx context.Context, task *asynq.Task) error {
	id, _ := asynq.GetTaskID(ctx)
	if n, ok := taskNumber(task.Payload()); ok {
		id = strconv.FormatInt(n, 10)
	}
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.total++
	if _, again := c.seen[id]; !again {
		c.seen[id] = struct{}{}
		if len(c.seen) == c.want {
			close(c.reached)
		}
	}
	return nil
}

func (c *counter) distinct() int {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	return len(c.seen)
}

func (c *counter) executions() int {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	return c.total
}

// benchPickup measures from just before the enqueue to the start of the handler. Pauses between
// samples are random, so that they do not march in step with the server's own polling.
func benchPickup(args []string) error {
	flags, at := newFlags("bench pickup")
	samples := flags.Int("n", 100, "samples")
	pauseMax := flags.Duration("pause", 200*time.Millisecond, "longest pause between two samples")
	concurrency := flags.Int("c", 10, "concurrency of the server")
	queue := flags.String("queue", "bench", "queue")
	interval := flags.Duration("task-check-interval", 0, "the server's; 0: the library's default")
	if err := parse(flags, at, args, 0); err != nil {
		return err
	}
	if *samples < 1 || *pauseMax <= 0 {
		return fmt.Errorf("%w: %d samples, pause %s", errUsage, *samples, *pauseMax)
	}
	client := asynq.NewClient(at.asynq())
	defer client.Close()
	started := make(chan time.Time, 1)
	server := asynq.NewServer(at.asynq(), asynq.Config{
		Queues: map[string]int{*queue: 1}, Concurrency: *concurrency, LogLevel: asynq.WarnLevel, TaskCheckInterval: *interval,
	})
	err := server.Start(asynq.HandlerFunc(func(context.Context, *asynq.Task) error {
		started <- time.Now()
		return nil
	}))
	if err != nil {
		return err
	}
	defer server.Shutdown()
	waits := make([]time.Duration, 0, *samples)
	for range *samples {
		<-time.After(rand.N(*pauseMax))
		began := time.Now()
		if _, err := client.Enqueue(asynq.NewTask("bench", nil), asynq.Queue(*queue)); err != nil {
			return err
		}
		waits = append(waits, (<-started).Sub(began))
	}
	printWaits("pickup", waits)
	return nil
}

func printWaits(bench string, waits []time.Duration) {
	slices.Sort(waits)
	var sum time.Duration
	for _, wait := range waits {
		sum += wait
	}
	at := func(share float64) float64 { return ms(waits[int(share*float64(len(waits)-1)+0.5)]) }
	printLine(map[string]any{
		"bench": bench, "samples": len(waits), "seconds": sum.Seconds(),
		"p50_ms": at(0.5), "p99_ms": at(0.99), "max_ms": at(1), "mean_ms": ms(sum) / float64(len(waits)),
	})
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// benchLateness measures how long after its due time a task starts on an otherwise idle server. The due
// times are whole seconds, because asynq keeps no more of them.
func benchLateness(args []string) error {
	flags, at := newFlags("bench lateness")
	seconds := flags.Int("seconds", 10, "seconds with tasks that are due")
	each := flags.Int("each", 20, "tasks of each second")
	concurrency := flags.Int("c", 10, "concurrency of the server")
	queue := flags.String("queue", "bench", "queue")
	if err := parse(flags, at, args, 0); err != nil {
		return err
	}
	if *seconds < 1 || *each < 1 {
		return fmt.Errorf("%w: %d seconds of %d tasks", errUsage, *seconds, *each)
	}
	client := asynq.NewClient(at.asynq())
	defer client.Close()
	late := make(chan time.Duration, *seconds**each)
	server := asynq.NewServer(at.asynq(), asynq.Config{
		Queues: map[string]int{*queue: 1}, Concurrency: *concurrency, LogLevel: asynq.WarnLevel,
	})
	err := server.Start(asynq.HandlerFunc(func(_ context.Context, task *asynq.Task) error {
		due, err := strconv.ParseInt(string(task.Payload()), 10, 64)
		if err == nil {
			late <- time.Since(time.Unix(due, 0))
		}
		return err
	}))
	if err != nil {
		return err
	}
	defer server.Shutdown()
	first := time.Now().Unix() + 2
	for second := range *seconds {
		due := first + int64(second)
		for range *each {
			task := asynq.NewTask("bench", strconv.AppendInt(nil, due, 10))
			if _, err := client.Enqueue(task, asynq.Queue(*queue), asynq.ProcessAt(time.Unix(due, 0))); err != nil {
				return err
			}
		}
	}
	waits := make([]time.Duration, 0, cap(late))
	for range cap(late) {
		waits = append(waits, <-late)
	}
	printWaits("lateness", waits)
	return nil
}
