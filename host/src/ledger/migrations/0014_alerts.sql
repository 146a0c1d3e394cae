-- Alerts: one row for each fact that operators have to know, however often it happened.

-- State: 'counting' (fewer times than its rule wants), 'open', 'acked'. `detail` is that of the last time.
CREATE TABLE alerts (
    seq       INTEGER PRIMARY KEY,
    id        BLOB    NOT NULL UNIQUE,
    tenant    TEXT    NOT NULL,
    event     TEXT    NOT NULL,
    subject   TEXT    NOT NULL,
    severity  TEXT    NOT NULL,
    state     TEXT    NOT NULL,
    count     INTEGER NOT NULL,
    detail    TEXT    NOT NULL,
    first_ms  INTEGER NOT NULL,
    last_ms   INTEGER NOT NULL,
    acked_by  TEXT,
    acked_ms  INTEGER,
    note      TEXT
) STRICT;
CREATE INDEX alerts_of_tenant ON alerts (tenant, seq);
CREATE INDEX alerts_of_subject ON alerts (tenant, event, subject, last_ms) WHERE state <> 'acked';
CREATE INDEX alerts_open ON alerts (tenant, severity) WHERE state = 'open';
CREATE INDEX alerts_over ON alerts (last_ms);
