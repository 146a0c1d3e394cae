-- Requests of plans, and calls that wait for one.

-- One row for each `http.request` of an intent; what is needed to send it stands in `dispatch`.
CREATE TABLE sends (
    plan        BLOB    NOT NULL REFERENCES plans (id),
    ordinal     INTEGER NOT NULL,
    dispatch    TEXT    NOT NULL,
    state       TEXT    NOT NULL,
    attempts    INTEGER NOT NULL,
    status      INTEGER,
    headers     TEXT,
    body        BLOB,
    problem     TEXT,
    took_ns     INTEGER NOT NULL,
    moved_ms    INTEGER NOT NULL,
    resolved_by TEXT,
    reason      TEXT,
    PRIMARY KEY (plan, ordinal)
) STRICT, WITHOUT ROWID;

-- A call whose tool runs again when its part `child` is settled.
CREATE TABLE continuations (
    call    BLOB    PRIMARY KEY REFERENCES calls (id),
    child   BLOB    NOT NULL UNIQUE,
    given   TEXT    NOT NULL,
    made_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
