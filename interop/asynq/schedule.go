package main

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/hibiken/asynq"
)

// entryRequest is a schedule's entry: Options are given at registration, as most programs do it,
// and TaskOptions lie inside the task, where the entry's record does not show them.
type entryRequest struct {
	Spec        string         `json:"spec"`
	TaskOptions optionsRequest `json:"task_options"`
	taskRequest
}

func schedule(args []string) error {
	flags, at := newFlags("schedule")
	options := asynq.SchedulerOpts{LogLevel: asynq.WarnLevel}
	flags.DurationVar(&options.HeartbeatInterval, "heartbeat", 0, "how often the entries are written; 0: the library's default")
	location := flags.String("location", "UTC", "time zone of the specs")
	file := flags.String("entries", "", "read the entries from this file; standard input then ends the program with -until-eof")
	untilEOF := flags.Bool("until-eof", false, "end also when standard input is closed (needs -entries)")
	if err := parse(flags, at, args, 0); err != nil {
		return err
	}
	if *untilEOF && *file == "" {
		return fmt.Errorf("%w: -until-eof needs -entries", errUsage)
	}
	zone, err := time.LoadLocation(*location)
	if err != nil {
		return fmt.Errorf("%w: %v", errUsage, err)
	}
	options.Location = zone
	options.PostEnqueueFunc = reportEnqueue

	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	scheduler := asynq.NewScheduler(at.asynq(), &options)
	if err := registerAll(scheduler, *file); err != nil {
		return err
	}
	if err := scheduler.Start(); err != nil {
		return fmt.Errorf("could not start the scheduler: %w", err)
	}
	printLine(newEvent("ready"))
	waitForEnd(stop, *untilEOF, nil)
	scheduler.Shutdown()
	printLine(newEvent("stopped"))
	return nil
}

func registerAll(scheduler *asynq.Scheduler, file string) error {
	from := os.Stdin
	if file != "" {
		opened, err := os.Open(file)
		if err != nil {
			return err
		}
		defer opened.Close()
		from = opened
	}
	return answerLines(from, func(line []byte) (any, error) {
		var request entryRequest
		if err := decodeStrictly(line, &request); err != nil {
			return nil, fmt.Errorf("%w: %v", errBadRequest, err)
		}
		id, err := register(scheduler, &request)
		return map[string]string{"entry_id": id, "spec": request.Spec}, err
	})
}

// register turns a panic of the cron library, which some specs cause, into an error.
func register(scheduler *asynq.Scheduler, request *entryRequest) (id string, err error) {
	defer func() {
		if thrown := recover(); thrown != nil {
			err = fmt.Errorf("panic: %v", thrown)
		}
	}()
	payload, err := decodePayload(request.Payload, request.PayloadBase64)
	if err != nil {
		return "", fmt.Errorf("%w: %v", errBadRequest, err)
	}
	task := asynq.NewTaskWithHeaders(request.Type, payload, request.Options.Headers, request.TaskOptions.list()...)
	return scheduler.Register(request.Spec, task, request.Options.list()...)
}

type enqueueEvent struct {
	event
	Task  *taskView `json:"task,omitempty"`
	Class string    `json:"class,omitempty"`
}

func reportEnqueue(info *asynq.TaskInfo, err error) {
	if err != nil {
		printLine(enqueueEvent{event: newEvent("enqueue_failed").with(err), Class: errorClass(err)})
		return
	}
	view := viewTask(info)
	printLine(enqueueEvent{event: newEvent("enqueued"), Task: &view})
}
