package main

import (
	"bytes"
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
	manager := flags.Duration("manager", 0, "a PeriodicTaskManager that reads the entries again so often, instead of a scheduler (needs -entries)")
	untilEOF := flags.Bool("until-eof", false, "end also when standard input is closed (needs -entries)")
	if err := parse(flags, at, args, 0); err != nil {
		return err
	}
	if (*untilEOF || *manager > 0) && *file == "" {
		return fmt.Errorf("%w: -until-eof and -manager need -entries", errUsage)
	}
	zone, err := time.LoadLocation(*location)
	if err != nil {
		return fmt.Errorf("%w: %v", errUsage, err)
	}
	options.Location = zone
	options.PostEnqueueFunc = reportEnqueue

	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	periodic, err := newPeriodic(at.asynq(), &options, *file, *manager)
	if err != nil {
		return err
	}
	if err := periodic.Start(); err != nil {
		return fmt.Errorf("could not start the scheduler: %w", err)
	}
	printLine(newEvent("ready"))
	waitForEnd(stop, *untilEOF, nil)
	periodic.Shutdown()
	printLine(newEvent("stopped"))
	return nil
}

// periodic is what both kinds of schedulers can do.
type periodic interface {
	Start() error
	Shutdown()
}

func newPeriodic(at asynq.RedisConnOpt, options *asynq.SchedulerOpts, file string, every time.Duration) (periodic, error) {
	if every > 0 {
		return asynq.NewPeriodicTaskManager(asynq.PeriodicTaskManagerOpts{
			RedisConnOpt:               at,
			SchedulerOpts:              options,
			PeriodicTaskConfigProvider: entriesFile(file),
			SyncInterval:               every,
		})
	}
	scheduler := asynq.NewScheduler(at, options)
	return scheduler, registerAll(scheduler, file)
}

// entriesFile is asked for the entries again and again: a test changes it meanwhile.
type entriesFile string

func (file entriesFile) GetConfigs() ([]*asynq.PeriodicTaskConfig, error) {
	text, err := os.ReadFile(string(file))
	if err != nil {
		return nil, err
	}
	var configs []*asynq.PeriodicTaskConfig
	for _, line := range bytes.Split(bytes.TrimSpace(text), []byte("\n")) {
		var request entryRequest
		if err := decodeStrictly(line, &request); err != nil {
			return nil, fmt.Errorf("%w: %v", errBadRequest, err)
		}
		task, err := request.task()
		if err != nil {
			return nil, err
		}
		configs = append(configs, &asynq.PeriodicTaskConfig{Cronspec: request.Spec, Task: task, Opts: request.Options.list()})
	}
	return configs, nil
}

func (request *entryRequest) task() (*asynq.Task, error) {
	payload, err := decodePayload(request.Payload, request.PayloadBase64)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", errBadRequest, err)
	}
	return asynq.NewTaskWithHeaders(request.Type, payload, request.Options.Headers, request.TaskOptions.list()...), nil
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
	task, err := request.task()
	if err != nil {
		return "", err
	}
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
