// The real asynqmon for one Redis, on loopback: tests ask its HTTP API about queues that Outlast
// has filled. It is built with the release of asynq that it was made for, which is older than the
// one beside it (../asynq), as it is in the field.
//
//	outlast-asynqmon -redis HOST:PORT [-db N] [-port N] [-read-only]
//
// Prints one JSON line, {"event":"ready","url":"http://127.0.0.1:PORT"}, once it listens, and ends
// at TERM or INT. Exit codes: 0 ended as asked, 1 could not go on, 2 wrong usage.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/hibiken/asynq"
	"github.com/hibiken/asynqmon"
)

func main() {
	redis := flag.String("redis", "", "host:port of the server (required)")
	db := flag.Int("db", 0, "number of the database")
	port := flag.Int("port", 0, "port on 127.0.0.1; 0: a free one")
	readOnly := flag.Bool("read-only", false, "refuse what changes anything")
	flag.Parse()
	if *redis == "" || flag.NArg() > 0 {
		fmt.Fprintln(os.Stderr, "usage: outlast-asynqmon -redis HOST:PORT [-db N] [-port N] [-read-only]")
		os.Exit(2)
	}
	handler := asynqmon.New(asynqmon.Options{
		RedisConnOpt: asynq.RedisClientOpt{Addr: *redis, DB: *db},
		ReadOnly:     *readOnly,
	})
	defer handler.Close()
	if err := serve(handler, *port); err != nil {
		fmt.Fprintln(os.Stderr, "outlast-asynqmon:", err)
		os.Exit(1)
	}
}

func serve(handler http.Handler, port int) error {
	stop, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer cancel()
	listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return err
	}
	ready := map[string]string{"event": "ready", "url": "http://" + listener.Addr().String()}
	if err := json.NewEncoder(os.Stdout).Encode(ready); err != nil {
		return err
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	select {
	case err := <-ended:
		return err
	case <-stop.Done():
		return server.Close()
	}
}
