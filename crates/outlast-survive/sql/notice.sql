-- What other processes know of an outage: a row for each home that is down for a process, written again every few seconds.
-- One that is not is that of a process which is gone.
CREATE TABLE IF NOT EXISTS notice (
    process INTEGER NOT NULL,
    home    TEXT    NOT NULL,
    pid     INTEGER NOT NULL,
    since   INTEGER NOT NULL,
    kind    TEXT    NOT NULL,
    reason  TEXT    NOT NULL,
    produce TEXT    NOT NULL,
    consume TEXT    NOT NULL,
    seen_at INTEGER NOT NULL,
    PRIMARY KEY (process, home)
) STRICT, WITHOUT ROWID;
