-- What answers have told of losses, for the other processes: a batch may be delivered by another process than the one that had been
-- acknowledged what is lost. The newest only.
CREATE TABLE IF NOT EXISTS loss (
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
    process   INTEGER NOT NULL,
    queue     TEXT    NOT NULL,
    session   BLOB    NOT NULL,
    lane      INTEGER NOT NULL,
    seq       INTEGER NOT NULL,
    after_seq INTEGER NOT NULL,
    told_at   INTEGER NOT NULL
) STRICT;
