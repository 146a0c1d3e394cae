-- What tools keep and send: keys of buckets, deliveries, and what could not be delivered.
--
-- Times are milliseconds since the Unix epoch. The content of a delivery is dropped when it is delivered or discarded; the row
-- stays, and says that it was.

CREATE TABLE keys (
    tenant     TEXT    NOT NULL,
    bucket     TEXT    NOT NULL,
    key        TEXT    NOT NULL,
    value      BLOB    NOT NULL,
    changed_ms INTEGER NOT NULL,
    PRIMARY KEY (tenant, bucket, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE outbox (
    seq        INTEGER PRIMARY KEY,
    id         BLOB    NOT NULL UNIQUE,
    tenant     TEXT    NOT NULL,
    kind       TEXT    NOT NULL,
    channel    TEXT    NOT NULL,
    call       BLOB,
    receivers  TEXT    NOT NULL,
    subject    TEXT    NOT NULL,
    media_type TEXT    NOT NULL,
    body       BLOB,
    state      TEXT    NOT NULL,
    attempts   INTEGER NOT NULL,
    next_ms    INTEGER NOT NULL,
    note       TEXT,
    made_ms    INTEGER NOT NULL,
    changed_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX outbox_due ON outbox (channel, tenant, next_ms, seq) WHERE state = 'queued';
CREATE INDEX outbox_next ON outbox (next_ms) WHERE state = 'queued';
CREATE INDEX outbox_sending ON outbox (seq) WHERE state = 'sending';

-- Everything that could not be delivered later, of any kind; `item` is the id of the thing in the table of its kind.
CREATE TABLE dead_letters (
    seq         INTEGER PRIMARY KEY,
    kind        TEXT    NOT NULL,
    item        BLOB    NOT NULL,
    tenant      TEXT    NOT NULL,
    channel     TEXT    NOT NULL,
    reason      TEXT    NOT NULL,
    attempts    INTEGER NOT NULL,
    died_ms     INTEGER NOT NULL,
    state       TEXT    NOT NULL,
    resolved_by TEXT,
    resolved_ms INTEGER
) STRICT;
CREATE UNIQUE INDEX dead_letters_resting ON dead_letters (item) WHERE state = 'resting';
CREATE INDEX dead_letters_of_tenant ON dead_letters (tenant, seq);
