package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/hibiken/asynq"
)

// lineMax is the longest line that is read: asynq itself has no limit on a payload, tests do.
const lineMax = 64 << 20

// answer is what a request gets: a result, or the class of its error and the library's words.
type answer struct {
	OK     bool   `json:"ok"`
	Result any    `json:"result,omitempty"`
	Error  string `json:"error,omitempty"`
	Text   string `json:"text,omitempty"`
}

var errBadRequest = errors.New("bad request")

// errorClass names an error the way a caller of the library can tell it: by its sentinels.
func errorClass(err error) string {
	classes := []struct {
		sentinel error
		name     string
	}{
		{errBadRequest, "bad_request"},
		{asynq.ErrDuplicateTask, "duplicate"},
		{asynq.ErrTaskIDConflict, "id_conflict"},
		{asynq.ErrQueueNotFound, "queue_not_found"},
		{asynq.ErrQueueNotEmpty, "queue_not_empty"},
		{asynq.ErrTaskNotFound, "task_not_found"},
	}
	for _, class := range classes {
		if errors.Is(err, class.sentinel) {
			return class.name
		}
	}
	return "other"
}

func answerOf(result any, err error) answer {
	if err != nil {
		return answer{Error: errorClass(err), Text: err.Error()}
	}
	return answer{OK: true, Result: result}
}

// answerLines prints one answer per line that is not blank, in order.
func answerLines(from io.Reader, reply func(line []byte) (any, error)) error {
	refused := false
	err := eachLine(from, func(line []byte) {
		reply := answerOf(reply(line))
		refused = refused || !reply.OK
		printLine(reply)
	})
	if err == nil && refused {
		return errRefused
	}
	return err
}

func eachLine(from io.Reader, do func(line []byte)) error {
	lines := bufio.NewScanner(from)
	lines.Buffer(make([]byte, 64<<10), lineMax)
	for lines.Scan() {
		if len(bytes.TrimSpace(lines.Bytes())) > 0 {
			do(lines.Bytes())
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("could not read a line of standard input: %w", err)
	}
	return nil
}

// taskView is asynq.TaskInfo with the state in words.
type taskView struct {
	*asynq.TaskInfo
	State string
}

func viewTask(task *asynq.TaskInfo) taskView { return taskView{task, task.State.String()} }

func viewTasks(tasks []*asynq.TaskInfo) []taskView {
	views := make([]taskView, 0, len(tasks))
	for _, task := range tasks {
		views = append(views, viewTask(task))
	}
	return views
}

// endOfInput is closed when whoever started this program has gone away or closes its end.
func endOfInput() <-chan struct{} {
	ended := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(ended)
	}()
	return ended
}
