-- Whose tasks the spool keeps: one row with the broker's name, or none in a file that was never opened for a broker.
CREATE TABLE IF NOT EXISTS owner (
    one    INTEGER PRIMARY KEY CHECK (one = 1),
    broker TEXT    NOT NULL
) STRICT;
