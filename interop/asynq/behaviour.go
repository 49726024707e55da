package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/hibiken/asynq"
)

// A task says what its handler shall do, as VERB or VERB:ARGUMENT. A payload that is a JSON object
// with the text "do" decides; otherwise the task's type does. Any other type is "ok".
func behaviourOf(task *asynq.Task) string {
	var asked struct {
		Do string `json:"do"`
	}
	if json.Unmarshal(task.Payload(), &asked) == nil && asked.Do != "" {
		return asked.Do
	}
	return task.Type()
}

// errNotFailure is an error that the server's IsFailure denies: the retry is not counted.
var errNotFailure = errors.New("not a failure")

func behave(ctx context.Context, task *asynq.Task) error {
	verb, argument, _ := strings.Cut(behaviourOf(task), ":")
	switch verb {
	case "fail":
		return errors.New(orElse(argument, "failed as asked"))
	case "not_failure":
		return fmt.Errorf("%s: %w", orElse(argument, "as asked"), errNotFailure)
	case "skip_retry":
		return fmt.Errorf("%s: %w", orElse(argument, "as asked"), asynq.SkipRetry)
	case "revoke":
		return fmt.Errorf("%s: %w", orElse(argument, "as asked"), asynq.RevokeTask)
	case "panic":
		panic(orElse(argument, "panicked as asked"))
	case "flaky":
		return failUntil(ctx, argument)
	case "sleep":
		return sleepFor(ctx, argument)
	case "hang":
		<-ctx.Done()
		return ctx.Err()
	case "write_result":
		_, err := task.ResultWriter().Write([]byte(argument))
		return err
	case "echo":
		_, err := task.ResultWriter().Write(task.Payload())
		return err
	}
	return nil
}

func failUntil(ctx context.Context, argument string) error {
	failures, err := strconv.Atoi(argument)
	if err != nil {
		return fmt.Errorf("flaky:%s is not a number of failures: %w", argument, asynq.SkipRetry)
	}
	if retried, _ := asynq.GetRetryCount(ctx); retried < failures {
		return fmt.Errorf("failure %d of %d", retried+1, failures)
	}
	return nil
}

func sleepFor(ctx context.Context, argument string) error {
	ms, err := strconv.Atoi(argument)
	if err != nil {
		return fmt.Errorf("sleep:%s is not a number of milliseconds: %w", argument, asynq.SkipRetry)
	}
	select {
	case <-time.After(time.Duration(ms) * time.Millisecond):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func orElse(text, other string) string {
	if text == "" {
		return other
	}
	return text
}
