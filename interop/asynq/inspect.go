package main

import (
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/hibiken/asynq"
)

// inspectRequest is one question or action. Which fields count depends on Op; see calls().
type inspectRequest struct {
	Op            string  `json:"op"`
	Queue         string  `json:"queue"`
	ID            string  `json:"id"`
	State         string  `json:"state"`
	Group         string  `json:"group"`
	Entry         string  `json:"entry"`
	Page          *int    `json:"page"`
	Size          *int    `json:"size"`
	Days          int     `json:"days"`
	Force         bool    `json:"force"`
	Payload       *string `json:"payload"`
	PayloadBase64 *string `json:"payload_base64"`
}

func inspect(args []string) error {
	flags, at := newFlags("inspect")
	if err := parse(flags, at, args, len(args)); err != nil {
		return err
	}
	inspector := asynq.NewInspector(at.asynq())
	defer inspector.Close()
	reply := func(line []byte) (any, error) { return inspectLine(inspector, line) }
	if flags.NArg() > 0 {
		return answerLines(strings.NewReader(strings.Join(flags.Args(), "\n")), reply)
	}
	return answerLines(os.Stdin, reply)
}

func inspectLine(inspector *asynq.Inspector, line []byte) (any, error) {
	var request inspectRequest
	if err := decodeStrictly(line, &request); err != nil {
		return nil, fmt.Errorf("%w: %v", errBadRequest, err)
	}
	call, known := calls()[request.Op]
	if !known {
		return nil, fmt.Errorf("%w: unknown op %q", errBadRequest, request.Op)
	}
	return call(inspector, &request)
}

type call = func(*asynq.Inspector, *inspectRequest) (any, error)

func calls() map[string]call {
	return map[string]call{
		"queues": func(i *asynq.Inspector, r *inspectRequest) (any, error) { return listed(i.Queues()) },
		"queue":  func(i *asynq.Inspector, r *inspectRequest) (any, error) { return i.GetQueueInfo(r.Queue) },
		"memory_usage": func(i *asynq.Inspector, r *inspectRequest) (any, error) {
			info, err := i.GetQueueInfo(r.Queue)
			if err != nil {
				return nil, err
			}
			return info.MemoryUsage, nil
		},
		"history": func(i *asynq.Inspector, r *inspectRequest) (any, error) { return listed(i.History(r.Queue, r.Days)) },
		"groups":  func(i *asynq.Inspector, r *inspectRequest) (any, error) { return listed(i.Groups(r.Queue)) },
		"pause":   func(i *asynq.Inspector, r *inspectRequest) (any, error) { return nil, i.PauseQueue(r.Queue) },
		"unpause": func(i *asynq.Inspector, r *inspectRequest) (any, error) { return nil, i.UnpauseQueue(r.Queue) },
		"delete_queue": func(i *asynq.Inspector, r *inspectRequest) (any, error) {
			return nil, i.DeleteQueue(r.Queue, r.Force)
		},
		"tasks": listTasks,
		"task": func(i *asynq.Inspector, r *inspectRequest) (any, error) {
			info, err := i.GetTaskInfo(r.Queue, r.ID)
			if err != nil {
				return nil, err
			}
			return viewTask(info), nil
		},
		"run":            func(i *asynq.Inspector, r *inspectRequest) (any, error) { return nil, i.RunTask(r.Queue, r.ID) },
		"archive":        func(i *asynq.Inspector, r *inspectRequest) (any, error) { return nil, i.ArchiveTask(r.Queue, r.ID) },
		"delete":         func(i *asynq.Inspector, r *inspectRequest) (any, error) { return nil, i.DeleteTask(r.Queue, r.ID) },
		"cancel":         func(i *asynq.Inspector, r *inspectRequest) (any, error) { return nil, i.CancelProcessing(r.ID) },
		"update_payload": updatePayload,
		"run_all":        ofState(runAll),
		"archive_all":    ofState(archiveAll),
		"delete_all":     ofState(deleteAll),
		"servers":        func(i *asynq.Inspector, r *inspectRequest) (any, error) { return listed(i.Servers()) },
		"scheduler_entries": func(i *asynq.Inspector, r *inspectRequest) (any, error) {
			return viewEntries(i.SchedulerEntries())
		},
		"enqueue_events": func(i *asynq.Inspector, r *inspectRequest) (any, error) {
			return listed(i.ListSchedulerEnqueueEvents(r.Entry, r.paging()...))
		},
	}
}

// listed makes an empty list of a nil one, so that a reader meets [] and never null.
func listed[T any](list []T, err error) (any, error) {
	if list == nil {
		list = []T{}
	}
	return list, err
}

func (r *inspectRequest) paging() []asynq.ListOption {
	var options []asynq.ListOption
	if r.Page != nil {
		options = append(options, asynq.Page(*r.Page))
	}
	if r.Size != nil {
		options = append(options, asynq.PageSize(*r.Size))
	}
	return options
}

func listTasks(i *asynq.Inspector, r *inspectRequest) (any, error) {
	if r.State == "aggregating" {
		tasks, err := i.ListAggregatingTasks(r.Queue, r.Group, r.paging()...)
		return viewTasks(tasks), err
	}
	lists := map[string]func(string, ...asynq.ListOption) ([]*asynq.TaskInfo, error){
		"active":    i.ListActiveTasks,
		"pending":   i.ListPendingTasks,
		"scheduled": i.ListScheduledTasks,
		"retry":     i.ListRetryTasks,
		"archived":  i.ListArchivedTasks,
		"completed": i.ListCompletedTasks,
	}
	list, known := lists[r.State]
	if !known {
		return nil, fmt.Errorf("%w: no list of state %q", errBadRequest, r.State)
	}
	tasks, err := list(r.Queue, r.paging()...)
	return viewTasks(tasks), err
}

func updatePayload(i *asynq.Inspector, r *inspectRequest) (any, error) {
	payload, err := decodePayload(r.Payload, r.PayloadBase64)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", errBadRequest, err)
	}
	return nil, i.UpdateTaskPayload(r.Queue, r.ID, payload)
}

// bulk is what can be done to all tasks of a state; grouped is the same for one group.
type bulk struct {
	ofState map[string]func(queue string) (int, error)
	grouped func(queue, group string) (int, error)
}

func ofState(of func(*asynq.Inspector) bulk) call {
	return func(i *asynq.Inspector, r *inspectRequest) (any, error) {
		bulk := of(i)
		if r.State == "aggregating" {
			return bulk.grouped(r.Queue, r.Group)
		}
		do, known := bulk.ofState[r.State]
		if !known {
			return nil, fmt.Errorf("%w: %s knows no state %q", errBadRequest, r.Op, r.State)
		}
		return do(r.Queue)
	}
}

func runAll(i *asynq.Inspector) bulk {
	return bulk{map[string]func(string) (int, error){
		"scheduled": i.RunAllScheduledTasks,
		"retry":     i.RunAllRetryTasks,
		"archived":  i.RunAllArchivedTasks,
	}, i.RunAllAggregatingTasks}
}

func archiveAll(i *asynq.Inspector) bulk {
	return bulk{map[string]func(string) (int, error){
		"pending":   i.ArchiveAllPendingTasks,
		"scheduled": i.ArchiveAllScheduledTasks,
		"retry":     i.ArchiveAllRetryTasks,
	}, i.ArchiveAllAggregatingTasks}
}

func deleteAll(i *asynq.Inspector) bulk {
	return bulk{map[string]func(string) (int, error){
		"pending":   i.DeleteAllPendingTasks,
		"scheduled": i.DeleteAllScheduledTasks,
		"retry":     i.DeleteAllRetryTasks,
		"archived":  i.DeleteAllArchivedTasks,
		"completed": i.DeleteAllCompletedTasks,
	}, i.DeleteAllAggregatingTasks}
}

// entryView is asynq.SchedulerEntry with its task and options spelt out.
type entryView struct {
	ID      string
	Spec    string
	Type    string
	Payload []byte
	Opts    []string
	Next    time.Time
	Prev    time.Time
}

func viewEntries(entries []*asynq.SchedulerEntry, err error) (any, error) {
	views := make([]entryView, 0, len(entries))
	for _, entry := range entries {
		options := []string{}
		for _, option := range entry.Opts {
			options = append(options, option.String())
		}
		views = append(views, entryView{
			entry.ID, entry.Spec, entry.Task.Type(), entry.Task.Payload(), options, entry.Next, entry.Prev,
		})
	}
	return views, err
}
