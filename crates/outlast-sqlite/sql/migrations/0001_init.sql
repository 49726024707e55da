-- Schema 1. A migration is never edited once it has been released: tests/fixtures/v1.db was made by
-- this one and must open for ever.
--
-- Times are milliseconds since the epoch, durations of options are whole seconds (as asynq stores
-- them). No triggers: they cost per row. Counts per queue and state live in `queue` and are kept by
-- the code in the transaction that moves the tasks.

-- What identifies this data: epoch (random, once), and the trace of the last write probe.
CREATE TABLE meta (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;

-- Numbers that are given out once: rid (tasks and sets), token (workers), command.
CREATE TABLE counter (
    name  TEXT PRIMARY KEY,
    value INT NOT NULL
) WITHOUT ROWID;
INSERT INTO counter VALUES ('rid', 0), ('token', 0), ('command', 0);

-- `listed` is 0 for a queue that was only asked for: its sessions need a number, nobody sees it.
-- `name` is NULL for a queue that was removed and whose rows are still being deleted.
-- Pending tasks are numbered: the next one at the back gets tail + 1, at the front head - 1, so that
-- their order is the order of arrival whatever the clocks of the clients say.
CREATE TABLE queue (
    qid          INTEGER PRIMARY KEY,
    name         TEXT UNIQUE,
    listed       INT NOT NULL DEFAULT 0,
    paused_since INT,
    head         INT NOT NULL DEFAULT 0,
    tail         INT NOT NULL DEFAULT 0,
    active       INT NOT NULL DEFAULT 0,
    pending      INT NOT NULL DEFAULT 0,
    aggregating  INT NOT NULL DEFAULT 0,
    scheduled    INT NOT NULL DEFAULT 0,
    retry        INT NOT NULL DEFAULT 0,
    archived     INT NOT NULL DEFAULT 0,
    completed    INT NOT NULL DEFAULT 0,
    processed    INT NOT NULL DEFAULT 0,
    failed       INT NOT NULL DEFAULT 0
);

-- state: 1 active, 2 pending, 3 aggregating, 4 scheduled, 5 retry, 6 archived, 7 completed.
-- score, by state: end of the lease, number in line, joined the group at, due, due, archived at,
-- expires at. `rid` is never used twice, so it also says which came first.
-- token: the holder of the lease; in retry and archived, who lost it (0: nobody), for adoption.
-- The payload comes last: what lies behind it would be read through it.
CREATE TABLE task (
    rid            INTEGER PRIMARY KEY,
    queue          INT NOT NULL,
    state          INT NOT NULL,
    score          INT NOT NULL,
    token          INT NOT NULL DEFAULT 0,
    id             TEXT NOT NULL,
    type           TEXT NOT NULL,
    max_retry      INT NOT NULL,
    retried        INT NOT NULL DEFAULT 0,
    losses         INT NOT NULL DEFAULT 0,
    timeout_s      INT,
    deadline       INT,
    retention_s    INT NOT NULL DEFAULT 0,
    enqueued_at    INT,
    pending_since  INT,
    started_at     INT,
    completed_at   INT,
    last_failed_at INT,
    set_id         INT,
    grp            TEXT,
    unique_key     TEXT,
    headers        TEXT,
    last_error     TEXT,
    result         BLOB,
    payload        BLOB NOT NULL
);
CREATE UNIQUE INDEX task_id ON task (queue, id);
-- Pending order, due times, leases, expiry and listings: one index for all.
CREATE INDEX task_state ON task (queue, state, score);
CREATE INDEX task_group ON task (queue, grp, score) WHERE state = 3 AND set_id IS NULL;
CREATE INDEX task_set ON task (set_id) WHERE set_id IS NOT NULL;

-- Groups with members. `waiting` are those in no set, `oldest` and `newest` when those joined.
CREATE TABLE grp (
    queue   INT NOT NULL,
    name    TEXT NOT NULL,
    waiting INT NOT NULL,
    in_set  INT NOT NULL DEFAULT 0,
    oldest  INT,
    newest  INT,
    PRIMARY KEY (queue, name)
) WITHOUT ROWID;
CREATE INDEX grp_size ON grp (queue, waiting);
CREATE INDEX grp_oldest ON grp (queue, oldest);
CREATE INDEX grp_newest ON grp (queue, newest);

-- Aggregation sets: members of a group under one lease. `id` is the lease's id.
CREATE TABLE aggregation (
    sid        INTEGER PRIMARY KEY,
    id         TEXT NOT NULL UNIQUE,
    queue      INT NOT NULL,
    grp        TEXT NOT NULL,
    token      INT NOT NULL,
    until      INT NOT NULL,
    started_at INT NOT NULL,
    members    INT NOT NULL
);
CREATE INDEX aggregation_until ON aggregation (queue, until);

-- Unique locks, owned by a task id, and keys that are accepted once.
CREATE TABLE unique_lock (
    queue   INT NOT NULL,
    key     TEXT NOT NULL,
    owner   TEXT NOT NULL,
    expires INT NOT NULL,
    PRIMARY KEY (queue, key)
) WITHOUT ROWID;
CREATE INDEX unique_lock_expires ON unique_lock (queue, expires);

CREATE TABLE once (
    queue   INT NOT NULL,
    key     TEXT NOT NULL,
    owner   TEXT NOT NULL,
    expires INT NOT NULL,
    PRIMARY KEY (queue, key)
) WITHOUT ROWID;
CREATE INDEX once_expires ON once (queue, expires);

-- The last batch of every lane of every session, and its answer (empty: plain success throughout).
-- `lost_after` is set if that batch reported a loss: a repeat reports it again.
CREATE TABLE session (
    rid     INTEGER PRIMARY KEY,
    queue   INT NOT NULL,
    id      BLOB NOT NULL,
    lane    INT NOT NULL,
    seq     INT NOT NULL,
    touched INT NOT NULL,
    lost_after INT,
    answer  BLOB NOT NULL,
    UNIQUE (queue, id, lane)
);

-- Runs that ended, per day in UTC (days since the epoch).
CREATE TABLE day (
    queue     INT NOT NULL,
    day       INT NOT NULL,
    processed INT NOT NULL,
    failed    INT NOT NULL,
    PRIMARY KEY (queue, day)
) WITHOUT ROWID;

-- Workers by name. `instance` names the lock file that its process holds while it lives; `dead` is
-- set once that lock was found free, and the row stays until the worker's leases are taken back.
CREATE TABLE worker (
    name     TEXT PRIMARY KEY,
    token    INT NOT NULL UNIQUE,
    instance TEXT,
    expires  INT NOT NULL,
    dead     INT NOT NULL DEFAULT 0,
    gone     INT NOT NULL DEFAULT 0,
    view     TEXT NOT NULL
) WITHOUT ROWID;

-- `delivered` is set by the beat that hands a command out: a waiter is woken for the others only.
CREATE TABLE command (
    number    INTEGER PRIMARY KEY,
    token     INT NOT NULL,
    expires   INT NOT NULL,
    delivered INT NOT NULL DEFAULT 0,
    body      TEXT NOT NULL
);
CREATE INDEX command_token ON command (token);

-- `view` is NULL for a schedule of which only a pause or a tick is known.
CREATE TABLE schedule (
    name         TEXT PRIMARY KEY,
    view         TEXT,
    expires      INT NOT NULL DEFAULT 0,
    paused_since INT,
    last_tick    INT
) WITHOUT ROWID;

CREATE TABLE tick (
    schedule    TEXT NOT NULL,
    tick        INT NOT NULL,
    task        TEXT,
    enqueued_at INT NOT NULL,
    PRIMARY KEY (schedule, tick)
) WITHOUT ROWID;
