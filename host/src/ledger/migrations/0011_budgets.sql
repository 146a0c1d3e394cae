-- Runs with terms and budgets, and what was charged to them.
--
-- Money is millionths of a dollar. A charge is written when it is reserved, with all that it may come to, and again when its
-- call is recorded, with what it came to; one that a stopped daemon left reserved counts in full, as `interrupted`.

ALTER TABLE runs ADD COLUMN workflow TEXT NOT NULL DEFAULT '';
-- What binds the run, JSON of the host; and how much an operator raised its budget, likewise.
ALTER TABLE runs ADD COLUMN terms TEXT NOT NULL DEFAULT '';
ALTER TABLE runs ADD COLUMN raised TEXT NOT NULL DEFAULT '';
ALTER TABLE runs ADD COLUMN outcome TEXT;
-- Why no call of it is admitted until an operator releases it.
ALTER TABLE runs ADD COLUMN held_code TEXT;
ALTER TABLE runs ADD COLUMN held_reason TEXT;
-- Calls before this do not count as repetitions any more.
ALTER TABLE runs ADD COLUMN released_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE runs ADD COLUMN escalations INTEGER NOT NULL DEFAULT 0;

-- State: 'reserved', then 'settled' or 'interrupted'. Amounts of a plan stand apart, because they are given back if it is
-- not committed; `held` is 1 while it waits for people. A report of a caller has no call.
CREATE TABLE charges (
    id            BLOB    PRIMARY KEY,
    call          BLOB,
    run           BLOB,
    tenant        TEXT    NOT NULL,
    user          TEXT    NOT NULL,
    workflow      TEXT    NOT NULL,
    tool          TEXT    NOT NULL,
    day           INTEGER NOT NULL,
    at_ms         INTEGER NOT NULL,
    state         TEXT    NOT NULL,
    steps         INTEGER NOT NULL,
    calls         INTEGER NOT NULL,
    wall_ms       INTEGER NOT NULL,
    fuel          INTEGER NOT NULL,
    cost          INTEGER NOT NULL,
    tokens        INTEGER NOT NULL,
    reported_cost INTEGER NOT NULL,
    requests      INTEGER NOT NULL,
    plan_bytes    INTEGER NOT NULL,
    plan_requests INTEGER NOT NULL,
    plan_cost     INTEGER NOT NULL,
    held          INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX charges_of_run ON charges (run) WHERE run IS NOT NULL;
CREATE INDEX charges_of_call ON charges (call) WHERE call IS NOT NULL;
CREATE INDEX charges_of_day ON charges (day, tenant);
CREATE INDEX charges_reserved ON charges (state) WHERE state = 'reserved';

-- Spending that an operator has to resume.
CREATE TABLE pauses (
    tenant   TEXT    NOT NULL,
    workflow TEXT    NOT NULL,
    reason   TEXT    NOT NULL,
    at_ms    INTEGER NOT NULL,
    PRIMARY KEY (tenant, workflow)
) STRICT, WITHOUT ROWID;

-- How many times more than configured a ceiling allows on one day.
CREATE TABLE allowances (
    ceiling TEXT    NOT NULL,
    subject TEXT    NOT NULL,
    day     INTEGER NOT NULL,
    times   INTEGER NOT NULL,
    PRIMARY KEY (ceiling, subject, day)
) STRICT, WITHOUT ROWID;
