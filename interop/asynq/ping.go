package main

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

// ping is the yardstick beside every figure: how fast this machine, this server and the client
// library under asynq exchange the smallest command.
func ping(args []string) error {
	flags, at := newFlags("ping")
	duration := flags.Duration("t", 2*time.Second, "how long each count of connections is measured")
	if err := parse(flags, at, args, 0); err != nil {
		return err
	}
	for _, connections := range []int{1, 16} {
		at.pool = connections
		raw := at.raw()
		pings, seconds, err := pingFor(raw, connections, *duration)
		raw.Close()
		if err != nil {
			return fmt.Errorf("could not ping: %w", err)
		}
		printLine(map[string]any{
			"bench": "ping", "connections": connections, "pings": pings, "seconds": seconds,
			"per_second": float64(pings) / seconds,
		})
	}
	return nil
}

// pingFor gives every caller a connection of its own.
func pingFor(raw *redis.Client, connections int, duration time.Duration) (int64, float64, error) {
	var pings atomic.Int64
	var callers sync.WaitGroup
	failures := make(chan error, connections)
	began := time.Now()
	for range connections {
		callers.Add(1)
		go func() {
			defer callers.Done()
			own := raw.Conn()
			defer own.Close()
			for time.Since(began) < duration {
				if err := own.Ping(context.Background()).Err(); err != nil {
					failures <- err
					return
				}
				pings.Add(1)
			}
		}()
	}
	callers.Wait()
	seconds := time.Since(began).Seconds()
	select {
	case err := <-failures:
		return 0, 0, err
	default:
		return pings.Load(), seconds, nil
	}
}
