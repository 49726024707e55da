-- Schema 2: tasks on their way to another broker (docs/adr/0015-moving-between-brokers.md).

-- What the wire format of another broker has of a task beyond what this version knows.
ALTER TABLE task ADD COLUMN unknown BLOB;

-- The session of a queue's moves, its latest batch (`seq`) and the last one before it that was stored (`previous`). `taken_at` is NULL unless that batch is on its way.
-- `counts` are the counters that are in it, as JSON.
CREATE TABLE move (
    queue    INTEGER PRIMARY KEY,
    target   TEXT NOT NULL,
    session  BLOB NOT NULL,
    seq      INT NOT NULL,
    previous INT NOT NULL,
    taken_at INT,
    counts   TEXT
);

-- Tasks on their way, in order. Their rows stay where they are, so that the ids stay taken, but in state 8, which
-- is no state: no verb and no question finds them. `state` is the one they come back to if they are refused; their
-- score is still the one of that state.
CREATE TABLE outgoing (
    queue INT NOT NULL,
    nth   INT NOT NULL,
    rid   INT NOT NULL,
    state INT NOT NULL,
    PRIMARY KEY (queue, nth)
) WITHOUT ROWID;
