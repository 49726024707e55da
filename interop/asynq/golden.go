package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
)

// goldenPatience bounds the wait for the slowest part: a server writes what it is working on at
// its second beat, five seconds after its start.
const goldenPatience = 30 * time.Second

func golden(args []string) error {
	flags, at := newFlags("golden")
	if err := parse(flags, at, args, 0); err != nil {
		return err
	}
	raw := at.raw()
	defer raw.Close()
	ctx := context.Background()
	size, err := raw.DBSize(ctx).Result()
	if err != nil {
		return err
	}
	if size > 0 {
		return fmt.Errorf("database %d holds %d keys: golden records need an empty one of their own", at.db, size)
	}
	stage := stage{at: at, raw: raw, inspector: asynq.NewInspector(at.asynq()), ids: map[string]*asynq.TaskInfo{}}
	defer stage.inspector.Close()
	document, err := stage.play(ctx)
	if err != nil {
		return err
	}
	encoder := json.NewEncoder(os.Stdout)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", " ")
	return encoder.Encode(document)
}

// stage is where client, server and scheduler leave their records, to be read raw.
type stage struct {
	at        *address
	raw       *redis.Client
	inspector *asynq.Inspector
	ids       map[string]*asynq.TaskInfo
}

func (s *stage) play(ctx context.Context) (*goldenDocument, error) {
	client := asynq.NewClient(s.at.asynq())
	defer client.Close()
	if err := s.enqueueAll(client, clientQueue, clientTasks()); err != nil {
		return nil, err
	}
	if err := s.enqueueAll(client, workerQueue, workerTasks()); err != nil {
		return nil, err
	}
	paused := []goldenTask{{name: "in-paused-queue", kind: "email:send", state: asynq.TaskStatePending}}
	if err := s.enqueueAll(client, pausedQueue, paused); err != nil {
		return nil, err
	}
	if err := s.inspector.PauseQueue(pausedQueue); err != nil {
		return nil, err
	}
	endWork, err := s.startWork()
	if err != nil {
		return nil, err
	}
	defer endWork()
	endCron, err := s.startCron()
	if err != nil {
		return nil, err
	}
	defer endCron()
	if err := s.settled(ctx); err != nil {
		return nil, err
	}
	return s.record(ctx)
}

func (s *stage) enqueueAll(client *asynq.Client, queue string, tasks []goldenTask) error {
	for _, task := range tasks {
		info, err := task.enqueue(client, queue)
		if err != nil {
			return fmt.Errorf("could not enqueue %s: %w", task.name, err)
		}
		s.ids[task.name] = info
	}
	return nil
}

// startWork runs a server whose aggregator holds its set until the end.
func (s *stage) startWork() (end func(), err error) {
	release := make(chan struct{})
	server := asynq.NewServer(s.at.asynq(), asynq.Config{
		Queues:           map[string]int{workerQueue: 3, "golden-idle": 1},
		Concurrency:      20,
		RetryDelayFunc:   func(int, error, *asynq.Task) time.Duration { return time.Hour },
		IsFailure:        func(err error) bool { return !errors.Is(err, errNotFailure) },
		ShutdownTimeout:  100 * time.Millisecond,
		LogLevel:         asynq.FatalLevel,
		GroupGracePeriod: time.Second,
		GroupAggregator: asynq.GroupAggregatorFunc(func(string, []*asynq.Task) *asynq.Task {
			<-release
			return asynq.NewTask("aggregated", nil)
		}),
	})
	if err := server.Start(asynq.HandlerFunc(behave)); err != nil {
		return nil, err
	}
	return func() {
		close(release)
		server.Shutdown()
	}, nil
}

func (s *stage) startCron() (end func(), err error) {
	scheduler := asynq.NewScheduler(s.at.asynq(), &asynq.SchedulerOpts{
		HeartbeatInterval: time.Second,
		LogLevel:          asynq.FatalLevel,
	})
	// Unique: the entry fires once and is refused from then on.
	often := asynq.NewTask("cron:often", []byte("p"))
	if _, err := scheduler.Register("@every 1s", often, asynq.Queue(cronQueue), asynq.Unique(time.Hour)); err != nil {
		return nil, err
	}
	seldom := asynq.NewTask("cron:seldom", nil, asynq.Queue("inside-the-task"))
	_, err = scheduler.Register("CRON_TZ=Europe/Berlin 0 0 29 2 *", seldom,
		asynq.Queue("a \"b\"é"), asynq.MaxRetry(3), asynq.Timeout(90*time.Minute), asynq.Unique(1500*time.Millisecond),
		asynq.Deadline(time.Unix(1700000000, 0).UTC()), asynq.ProcessAt(time.Unix(1699000000, 0).UTC()),
		asynq.ProcessIn(-5*time.Second), asynq.Retention(24*time.Hour), asynq.TaskID("id1"), asynq.Group("g"))
	if err != nil {
		return nil, err
	}
	if err := scheduler.Start(); err != nil {
		return nil, err
	}
	return scheduler.Shutdown, nil
}

// settled waits until every record is in the state that it is taken in.
func (s *stage) settled(ctx context.Context) error {
	patience, cancel := context.WithTimeout(ctx, goldenPatience)
	defer cancel()
	for {
		missing := s.missing(ctx)
		if missing == "" {
			return nil
		}
		select {
		case <-patience.Done():
			return fmt.Errorf("not there after %s: %s", goldenPatience, missing)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// missing names the first thing that is not there yet.
func (s *stage) missing(ctx context.Context) string {
	for _, task := range workerTasks() {
		info, err := s.inspector.GetTaskInfo(workerQueue, s.ids[task.name].ID)
		if err != nil || info.State != task.state {
			return fmt.Sprintf("%s in state %s", task.name, task.state)
		}
	}
	if s.raw.Exists(ctx, "asynq:{"+workerQueue+"}:aggregation_sets").Val() == 0 {
		return "an aggregation set"
	}
	servers, err := s.inspector.Servers()
	if err != nil || len(servers) != 1 || len(servers[0].ActiveWorkers) != 2 {
		return "a server with two active workers"
	}
	entries, err := s.inspector.SchedulerEntries()
	if err != nil || len(entries) != 2 || entries[0].Prev.IsZero() == entries[1].Prev.IsZero() {
		return "two scheduler entries, one of which has fired"
	}
	return ""
}

// goldenDocument has each task with all places that name it, the records of processes beside what
// Go reads from them, and every key once more as it lies in Redis.
type goldenDocument struct {
	MadeWith   map[string]string `json:"made_with"`
	UnixMs     int64             `json:"unix_ms"`
	Tasks      []taskRecord      `json:"tasks"`
	Servers    any               `json:"servers"`
	Entries    any               `json:"scheduler_entries"`
	Events     map[string]any    `json:"enqueue_events"`
	Keys       []rawKey          `json:"keys"`
	QueueInfos []any             `json:"queues"`
}

type taskRecord struct {
	Name   string            `json:"name"`
	Key    string            `json:"key"`
	Fields map[string]string `json:"fields_hex"`
	Places []place           `json:"places"`
	Info   taskView          `json:"info"`
}

// place is a list, set or sorted set that has the task's id among its members.
type place struct {
	Key   string   `json:"key"`
	Kind  string   `json:"kind"`
	Score *float64 `json:"score,omitempty"`
	Index *int     `json:"index,omitempty"`
}

func (s *stage) record(ctx context.Context) (*goldenDocument, error) {
	keys, err := readAll(ctx, s.raw)
	if err != nil {
		return nil, err
	}
	document := &goldenDocument{
		MadeWith: madeWith(ctx, s.raw), UnixMs: time.Now().UnixMilli(), Events: map[string]any{}, Keys: keys,
	}
	if document.Tasks, err = s.taskRecords(keys); err != nil {
		return nil, err
	}
	if document.Servers, err = s.inspector.Servers(); err != nil {
		return nil, err
	}
	entries, err := s.inspector.SchedulerEntries()
	if document.Entries, err = viewEntries(entries, err); err != nil {
		return nil, err
	}
	for _, entry := range entries {
		if document.Events[entry.ID], err = listed(s.inspector.ListSchedulerEnqueueEvents(entry.ID)); err != nil {
			return nil, err
		}
	}
	for _, queue := range []string{clientQueue, workerQueue, cronQueue, pausedQueue} {
		info, err := s.inspector.GetQueueInfo(queue)
		if err != nil {
			return nil, err
		}
		document.QueueInfos = append(document.QueueInfos, info)
	}
	return document, nil
}

func (s *stage) taskRecords(keys []rawKey) ([]taskRecord, error) {
	byKey := map[string]rawKey{}
	for _, key := range keys {
		byKey[key.Key] = key
	}
	var records []taskRecord
	for _, task := range append(clientTasks(), workerTasks()...) {
		id, queue := s.ids[task.name].ID, s.ids[task.name].Queue
		info, err := s.inspector.GetTaskInfo(queue, id)
		if err != nil {
			return nil, fmt.Errorf("could not read %s: %w", task.name, err)
		}
		key := "asynq:{" + queue + "}:t:" + id
		records = append(records, taskRecord{
			Name: task.name, Key: key, Fields: byKey[key].Fields, Places: placesOf(id, queue, keys), Info: viewTask(info),
		})
	}
	return records, nil
}

func placesOf(id, queue string, keys []rawKey) []place {
	places := []place{}
	for _, key := range keys {
		if !strings.HasPrefix(key.Key, "asynq:{"+queue+"}:") {
			continue
		}
		for index, member := range key.Members {
			if member.Hex != hexOf(id) {
				continue
			}
			found := place{Key: key.Key, Kind: key.Kind, Score: member.Score}
			if key.Kind == "list" {
				found.Index = &index
			}
			places = append(places, found)
		}
		if key.Kind == "string" && key.Value == hexOf(id) {
			places = append(places, place{Key: key.Key, Kind: key.Kind})
		}
	}
	return places
}

func madeWith(ctx context.Context, raw *redis.Client) map[string]string {
	versions := map[string]string{}
	for _, line := range strings.Split(raw.Info(ctx, "server").Val(), "\r\n") {
		if version, found := strings.CutPrefix(line, "redis_version:"); found {
			versions["redis-server"] = version
		}
	}
	if build, ok := debug.ReadBuildInfo(); ok {
		for _, module := range build.Deps {
			if strings.HasSuffix(module.Path, "/asynq") || strings.Contains(module.Path, "/go-redis/") {
				versions[module.Path] = module.Version
			}
		}
	}
	return versions
}
