package main

import (
	"time"

	"github.com/hibiken/asynq"
)

// Queues of the golden records. Nobody works on the first, so its tasks stay as the client left
// them; a server runs the second; a scheduler fills the third; the fourth is paused.
const (
	clientQueue = "default"
	workerQueue = "golden-work"
	cronQueue   = "golden-cron"
	pausedQueue = "golden-paused"
)

// goldenTask is a task and the state in which its record is taken. Its id is its name, except
// where the library shall make one up.
type goldenTask struct {
	name, kind string
	payload    []byte
	headers    map[string]string
	options    []asynq.Option
	ownID      bool
	state      asynq.TaskState
}

func (t *goldenTask) enqueue(client *asynq.Client, queue string) (*asynq.TaskInfo, error) {
	task := asynq.NewTask(t.kind, t.payload)
	if t.headers != nil {
		task = asynq.NewTaskWithHeaders(t.kind, t.payload, t.headers)
	}
	options := append([]asynq.Option{asynq.Queue(queue)}, t.options...)
	if !t.ownID {
		options = append(options, asynq.TaskID("golden-"+t.name))
	}
	return client.Enqueue(task, options...)
}

// clientTasks has every option at least once, alone and together.
func clientTasks() []goldenTask {
	const pending, scheduled, grouped = asynq.TaskStatePending, asynq.TaskStateScheduled, asynq.TaskStateAggregating
	faraway := time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)
	options := func(list ...asynq.Option) []asynq.Option { return list }
	email := []byte(`{"id":7}`)
	return []goldenTask{
		{name: "plain", kind: "email:send", payload: email, ownID: true, state: pending},
		{name: "no-payload", kind: "email:send", state: pending},
		{name: "empty-payload", kind: "email:send", payload: []byte{}, state: pending},
		{name: "binary-payload", kind: "email:send", payload: []byte{0, 0xff, 0xfe, '\n', 0x80}, state: pending},
		{name: "unicode", kind: "grüße:☃", payload: []byte("naïve ☃"), state: pending},
		{name: "max-retry", kind: "email:send", payload: email, options: options(asynq.MaxRetry(3)), state: pending},
		{name: "max-retry-zero", kind: "email:send", payload: email, options: options(asynq.MaxRetry(0)), state: pending},
		{name: "max-retry-negative", kind: "email:send", payload: email, options: options(asynq.MaxRetry(-3)), state: pending},
		{name: "timeout", kind: "email:send", payload: email, options: options(asynq.Timeout(90 * time.Second)), state: pending},
		{name: "timeout-below-a-second", kind: "email:send", payload: email, options: options(asynq.Timeout(500 * time.Millisecond)), state: pending},
		{name: "deadline", kind: "email:send", payload: email, options: options(asynq.Deadline(faraway)), state: pending},
		{name: "timeout-and-deadline", kind: "email:send", payload: email, options: options(asynq.Timeout(time.Minute), asynq.Deadline(faraway)), state: pending},
		{name: "retention", kind: "email:send", payload: email, options: options(asynq.Retention(24 * time.Hour)), state: pending},
		{name: "headers", kind: "email:send", payload: email, headers: map[string]string{"trace": "a1", "empty": ""}, state: pending},
		{name: "unique", kind: "unique:a", payload: email, options: options(asynq.Unique(time.Hour)), state: pending},
		{name: "unique-no-payload", kind: "unique:b", options: options(asynq.Unique(time.Hour)), state: pending},
		{name: "unique-empty-payload", kind: "unique:b", payload: []byte{}, options: options(asynq.Unique(time.Hour)), state: pending},
		{name: "scheduled", kind: "email:send", payload: email, options: options(asynq.ProcessAt(faraway)), state: scheduled},
		{name: "scheduled-with-fraction", kind: "email:send", payload: email, options: options(asynq.ProcessAt(faraway.Add(900 * time.Millisecond))), state: scheduled},
		{name: "scheduled-in", kind: "email:send", payload: email, options: options(asynq.ProcessIn(time.Hour)), state: scheduled},
		{name: "scheduled-unique", kind: "unique:c", payload: email, options: options(asynq.ProcessIn(time.Hour), asynq.Unique(time.Hour)), state: scheduled},
		{name: "scheduled-with-group", kind: "email:send", payload: email, options: options(asynq.ProcessIn(time.Hour), asynq.Group("g:1")), state: scheduled},
		{name: "grouped", kind: "email:send", payload: email, options: options(asynq.Group("g:1")), state: grouped},
		{name: "grouped-unique", kind: "unique:d", payload: email, options: options(asynq.Group("g:1"), asynq.Unique(time.Hour)), state: grouped},
		{
			name: "everything", kind: "email:send", payload: email, headers: map[string]string{"k": "v"},
			options: options(asynq.MaxRetry(7), asynq.Timeout(time.Minute), asynq.Deadline(faraway), asynq.Unique(2*time.Hour),
				asynq.Retention(time.Hour), asynq.ProcessAt(faraway), asynq.Group("g:1")),
			state: scheduled,
		},
	}
}

// workerTasks end in every state that a server brings about, and stay there.
func workerTasks() []goldenTask {
	hour := asynq.Retention(time.Hour)
	options := func(list ...asynq.Option) []asynq.Option { return list }
	headers := map[string]string{"k": "v"}
	const retry, archived, completed = asynq.TaskStateRetry, asynq.TaskStateArchived, asynq.TaskStateCompleted
	return []goldenTask{
		{name: "retry", kind: "fail:no such host", headers: headers, state: retry},
		{name: "retry-unique", kind: "fail:no such host", payload: []byte("u"), options: options(asynq.Unique(time.Hour)), state: retry},
		{name: "retry-after-panic", kind: "panic:out of range", state: retry},
		{name: "retry-after-timeout", kind: "hang", options: options(asynq.Timeout(time.Second)), state: retry},
		{name: "retry-not-counted", kind: "not_failure:rate limited", state: retry},
		{name: "archived-at-max-retry", kind: "fail:gone", options: options(asynq.MaxRetry(0)), state: archived},
		{name: "archived-skip-retry", kind: "skip_retry:bad input", headers: headers, state: archived},
		{name: "archived-unique", kind: "skip_retry", payload: []byte("u"), options: options(asynq.Unique(time.Hour)), state: archived},
		{name: "completed", kind: "ok", payload: []byte("p"), headers: headers, options: options(hour), state: completed},
		{name: "completed-with-result", kind: "write_result:42 rows", options: options(hour), state: completed},
		{name: "completed-unique", kind: "ok:unique", payload: []byte("u"), options: options(hour, asynq.Unique(time.Hour)), state: completed},
		{name: "active", kind: "hang", payload: []byte("p"), headers: headers, state: asynq.TaskStateActive},
		{name: "active-unique", kind: "hang", payload: []byte("u"), options: options(asynq.Unique(time.Hour)), state: asynq.TaskStateActive},
		{name: "in-aggregation-set-1", kind: "member", payload: []byte("1"), options: options(asynq.Group("held")), state: asynq.TaskStateAggregating},
		{name: "in-aggregation-set-2", kind: "member", payload: []byte("2"), options: options(asynq.Group("held")), state: asynq.TaskStateAggregating},
	}
}
