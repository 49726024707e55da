-- The spool: what could not be delivered yet, on this machine's disk, for all its processes.
--
-- item        one task of the outbox (store 0) or one settlement of the journal (store 1), in the order of
--             its queue. `batch` is set once it has been numbered; a batch is sent again exactly as it is.
-- batch       the stamp under which its items were sent, or may have been.
-- quarantine  what will never be delivered, with the reason, for people to look at; the newest of each store.
-- meter       items and bytes of each line; the line '' is the sum over the queues of a store. Kept by
--             triggers, so that no statement can forget it.
CREATE TABLE batch (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    store      INTEGER NOT NULL,
    queue      TEXT    NOT NULL,
    session    BLOB    NOT NULL,
    lane       INTEGER NOT NULL,
    seq        INTEGER NOT NULL,
    stamped_at INTEGER NOT NULL
) STRICT;

CREATE TABLE item (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    store      INTEGER NOT NULL,
    queue      TEXT    NOT NULL,
    name       TEXT    NOT NULL,
    durability INTEGER NOT NULL,
    stored_at  INTEGER NOT NULL,
    batch      INTEGER REFERENCES batch (id),
    alone      INTEGER NOT NULL DEFAULT 0,
    record     BLOB    NOT NULL
) STRICT;
CREATE INDEX item_line ON item (store, queue, id);
CREATE INDEX item_batch ON item (batch) WHERE batch IS NOT NULL;

CREATE TABLE quarantine (
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
    store     INTEGER NOT NULL,
    queue     TEXT    NOT NULL,
    name      TEXT    NOT NULL,
    durability INTEGER NOT NULL,
    stored_at INTEGER NOT NULL,
    put_at    INTEGER NOT NULL,
    why       TEXT    NOT NULL,
    record    BLOB    NOT NULL
) STRICT;

CREATE INDEX quarantine_store ON quarantine (store, id);

CREATE TABLE meter (
    store INTEGER NOT NULL,
    queue TEXT    NOT NULL,
    items INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    PRIMARY KEY (store, queue)
) STRICT, WITHOUT ROWID;
INSERT INTO meter VALUES (0, '', 0, 0), (1, '', 0, 0);

CREATE TRIGGER item_in AFTER INSERT ON item BEGIN
    INSERT INTO meter VALUES (NEW.store, NEW.queue, 1, length(NEW.record))
        ON CONFLICT DO UPDATE SET items = items + 1, bytes = bytes + excluded.bytes;
    UPDATE meter SET items = items + 1, bytes = bytes + length(NEW.record)
        WHERE store = NEW.store AND queue = '';
END;
CREATE TRIGGER item_out AFTER DELETE ON item BEGIN
    UPDATE meter SET items = items - 1, bytes = bytes - length(OLD.record)
        WHERE store = OLD.store AND queue IN (OLD.queue, '');
    DELETE FROM meter WHERE store = OLD.store AND queue = OLD.queue AND items = 0 AND queue <> '';
END;
