package main

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/hibiken/asynq"
)

// taskRequest is a task as a test writes it down. A payload is text or base64; without either it
// is absent, which the unique key tells from an empty one.
type taskRequest struct {
	Type          string         `json:"type"`
	Payload       *string        `json:"payload"`
	PayloadBase64 *string        `json:"payload_base64"`
	Options       optionsRequest `json:"options"`
}

type optionsRequest struct {
	MaxRetry  *int              `json:"max_retry"`
	Queue     *string           `json:"queue"`
	Timeout   *duration         `json:"timeout"`
	Deadline  *moment           `json:"deadline"`
	Unique    *duration         `json:"unique"`
	ProcessAt *moment           `json:"process_at"`
	ProcessIn *duration         `json:"process_in"`
	TaskID    *string           `json:"task_id"`
	Retention *duration         `json:"retention"`
	Group     *string           `json:"group"`
	Headers   map[string]string `json:"headers"`
}

func (r *taskRequest) task() (*asynq.Task, error) {
	payload, err := decodePayload(r.Payload, r.PayloadBase64)
	if err != nil {
		return nil, err
	}
	// Two constructors on purpose: a task without headers takes the path that most users take.
	if r.Options.Headers == nil {
		return asynq.NewTask(r.Type, payload), nil
	}
	return asynq.NewTaskWithHeaders(r.Type, payload, r.Options.Headers), nil
}

func decodePayload(text, encoded *string) ([]byte, error) {
	switch {
	case text != nil && encoded != nil:
		return nil, errors.New("both payload and payload_base64 are given")
	case text != nil:
		return []byte(*text), nil
	case encoded != nil:
		payload, err := base64.StdEncoding.DecodeString(*encoded)
		if err != nil {
			return nil, fmt.Errorf("payload_base64: %w", err)
		}
		return payload, nil
	}
	return nil, nil
}

func (o *optionsRequest) list() []asynq.Option {
	var list []asynq.Option
	if o.MaxRetry != nil {
		list = append(list, asynq.MaxRetry(*o.MaxRetry))
	}
	if o.Queue != nil {
		list = append(list, asynq.Queue(*o.Queue))
	}
	if o.Timeout != nil {
		list = append(list, asynq.Timeout(time.Duration(*o.Timeout)))
	}
	if o.Deadline != nil {
		list = append(list, asynq.Deadline(time.Time(*o.Deadline)))
	}
	if o.Unique != nil {
		list = append(list, asynq.Unique(time.Duration(*o.Unique)))
	}
	if o.ProcessAt != nil {
		list = append(list, asynq.ProcessAt(time.Time(*o.ProcessAt)))
	}
	if o.ProcessIn != nil {
		list = append(list, asynq.ProcessIn(time.Duration(*o.ProcessIn)))
	}
	if o.TaskID != nil {
		list = append(list, asynq.TaskID(*o.TaskID))
	}
	if o.Retention != nil {
		list = append(list, asynq.Retention(time.Duration(*o.Retention)))
	}
	if o.Group != nil {
		list = append(list, asynq.Group(*o.Group))
	}
	return list
}

// duration is Go's text ("1h30m", "500ms").
type duration time.Duration

func (d *duration) UnmarshalJSON(raw []byte) error {
	var text string
	if err := json.Unmarshal(raw, &text); err != nil {
		return fmt.Errorf("a duration is text such as \"1m30s\", not %s", raw)
	}
	parsed, err := time.ParseDuration(text)
	*d = duration(parsed)
	return err
}

// moment is RFC 3339 text, or a whole number of Unix seconds.
type moment time.Time

func (m *moment) UnmarshalJSON(raw []byte) error {
	if seconds, err := strconv.ParseInt(string(raw), 10, 64); err == nil {
		*m = moment(time.Unix(seconds, 0))
		return nil
	}
	var text string
	if err := json.Unmarshal(raw, &text); err != nil {
		return fmt.Errorf("a time is RFC 3339 text or Unix seconds, not %s", raw)
	}
	parsed, err := time.Parse(time.RFC3339Nano, text)
	*m = moment(parsed)
	return err
}
