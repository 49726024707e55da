-- How much is in quarantine, of each store: kept by triggers, so that no statement can forget it.
CREATE TABLE IF NOT EXISTS shelf (
    store INTEGER PRIMARY KEY,
    items INTEGER NOT NULL,
    bytes INTEGER NOT NULL
) STRICT;
INSERT INTO shelf
    SELECT stores.store, count(quarantine.id), coalesce(sum(length(quarantine.record)), 0)
    FROM (SELECT 0 AS store UNION ALL SELECT 1) AS stores LEFT JOIN quarantine USING (store)
    WHERE NOT EXISTS (SELECT 1 FROM shelf) GROUP BY stores.store;
CREATE TRIGGER IF NOT EXISTS quarantine_in AFTER INSERT ON quarantine BEGIN
    UPDATE shelf SET items = items + 1, bytes = bytes + length(NEW.record) WHERE store = NEW.store;
END;
CREATE TRIGGER IF NOT EXISTS quarantine_out AFTER DELETE ON quarantine BEGIN
    UPDATE shelf SET items = items - 1, bytes = bytes - length(OLD.record) WHERE store = OLD.store;
END;
