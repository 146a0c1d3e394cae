-- The foundation: calls, plans, consent, commits, keys, audit, recordings, blobs.
--
-- Ids are the 16 bytes of a UUIDv7, digests 32 bytes, times milliseconds since the Unix epoch. `seq` is the order of
-- writing. host_id, lease_epoch and fence belong to many hosts on one database (D20); one host writes 0 and 0.

-- Says in the file's header whose it is: `TKlg`.
PRAGMA application_id = 1414229095;

CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE workspaces (
    tenant      TEXT    NOT NULL,
    name        TEXT    NOT NULL,
    root        TEXT    NOT NULL,
    seen_ms     INTEGER NOT NULL,
    host_id     TEXT    NOT NULL,
    lease_epoch INTEGER NOT NULL,
    fence       INTEGER NOT NULL,
    PRIMARY KEY (tenant, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE runs (
    seq       INTEGER PRIMARY KEY,
    id        BLOB    NOT NULL UNIQUE,
    tenant    TEXT    NOT NULL,
    user      TEXT    NOT NULL,
    agent     TEXT    NOT NULL,
    label     TEXT    NOT NULL,
    opened_ms INTEGER NOT NULL,
    closed_ms INTEGER
) STRICT;
CREATE INDEX runs_of_tenant ON runs (tenant, seq);

CREATE TABLE calls (
    seq          INTEGER PRIMARY KEY,
    id           BLOB    NOT NULL UNIQUE,
    tenant       TEXT    NOT NULL,
    user         TEXT    NOT NULL,
    agent        TEXT    NOT NULL,
    run          BLOB,
    step         TEXT,
    tool         TEXT    NOT NULL,
    component    BLOB,
    manifest     BLOB,
    mode         TEXT    NOT NULL,
    input        TEXT    NOT NULL,
    input_digest BLOB    NOT NULL,
    status       TEXT    NOT NULL,
    outcome      TEXT    NOT NULL,
    error_code   TEXT,
    reply        TEXT    NOT NULL,
    fuel         INTEGER NOT NULL,
    wall_ms      INTEGER NOT NULL,
    memory_peak  INTEGER NOT NULL,
    host_calls   INTEGER NOT NULL,
    started_ms   INTEGER NOT NULL,
    ended_ms     INTEGER NOT NULL,
    plan         BLOB,
    final        INTEGER NOT NULL
) STRICT;
CREATE INDEX calls_of_run ON calls (run, seq) WHERE run IS NOT NULL;

CREATE TABLE recordings (
    call_seq INTEGER PRIMARY KEY REFERENCES calls (seq),
    body     TEXT NOT NULL
) STRICT;

CREATE TABLE idempotency (
    tenant  TEXT    NOT NULL,
    user    TEXT    NOT NULL,
    agent   TEXT    NOT NULL,
    tool    TEXT    NOT NULL,
    key     TEXT    NOT NULL,
    request BLOB    NOT NULL,
    call    BLOB    NOT NULL REFERENCES calls (id),
    made_ms INTEGER NOT NULL,
    PRIMARY KEY (tenant, user, agent, tool, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE plans (
    seq         INTEGER PRIMARY KEY,
    id          BLOB    NOT NULL UNIQUE,
    tenant      TEXT    NOT NULL,
    call        BLOB    NOT NULL REFERENCES calls (id),
    tool        TEXT    NOT NULL,
    digest      BLOB    NOT NULL,
    canonical   TEXT    NOT NULL,
    seal        BLOB    NOT NULL,
    run         BLOB,
    nonce       TEXT    NOT NULL,
    expires_ms  INTEGER NOT NULL,
    state       TEXT    NOT NULL,
    effects     INTEGER NOT NULL,
    witnesses   TEXT    NOT NULL,
    made_ms     INTEGER NOT NULL,
    settled_ms  INTEGER,
    host_id     TEXT    NOT NULL,
    lease_epoch INTEGER NOT NULL,
    fence       INTEGER NOT NULL
) STRICT;
CREATE INDEX plans_of_tenant ON plans (tenant, seq);
CREATE INDEX plans_by_digest ON plans (digest, seq);
CREATE INDEX plans_open_by_expiry ON plans (expires_ms) WHERE state IN ('previewed', 'held');

CREATE TABLE approvals (
    seq         INTEGER PRIMARY KEY,
    id          BLOB    NOT NULL UNIQUE,
    tenant      TEXT    NOT NULL,
    user        TEXT    NOT NULL,
    agent       TEXT    NOT NULL,
    tool        TEXT    NOT NULL,
    call        BLOB    NOT NULL REFERENCES calls (id),
    plan        BLOB    NOT NULL UNIQUE REFERENCES plans (id),
    seal        BLOB    NOT NULL,
    approvers   INTEGER NOT NULL CHECK (approvers > 0),
    barred      TEXT,
    reason      TEXT    NOT NULL,
    state       TEXT    NOT NULL,
    made_ms     INTEGER NOT NULL,
    expires_ms  INTEGER NOT NULL,
    resolved_ms INTEGER
) STRICT;
CREATE INDEX approvals_by_state ON approvals (state, seq);
CREATE INDEX approvals_open_by_expiry ON approvals (expires_ms) WHERE state IN ('pending', 'approved');

CREATE TABLE approval_votes (
    approval BLOB    NOT NULL REFERENCES approvals (id),
    approver TEXT    NOT NULL,
    approved INTEGER NOT NULL,
    reason   TEXT    NOT NULL,
    at_ms    INTEGER NOT NULL,
    PRIMARY KEY (approval, approver)
) STRICT, WITHOUT ROWID;

CREATE TABLE intents (
    seq         INTEGER PRIMARY KEY,
    plan        BLOB    NOT NULL UNIQUE REFERENCES plans (id),
    tenant      TEXT    NOT NULL,
    call        BLOB    NOT NULL REFERENCES calls (id),
    approval    BLOB    REFERENCES approvals (id),
    undoes      BLOB    REFERENCES calls (id),
    undone_by   BLOB    REFERENCES calls (id),
    steps       TEXT    NOT NULL,
    reply       TEXT    NOT NULL,
    receipt     TEXT,
    state       TEXT    NOT NULL,
    halted      TEXT,
    made_ms     INTEGER NOT NULL,
    settled_ms  INTEGER,
    host_id     TEXT    NOT NULL,
    lease_epoch INTEGER NOT NULL,
    fence       INTEGER NOT NULL
) STRICT;
CREATE INDEX intents_of_call ON intents (call);
CREATE INDEX intents_open ON intents (seq) WHERE state = 'open';

CREATE TABLE effects (
    plan        BLOB    NOT NULL REFERENCES plans (id),
    ordinal     INTEGER NOT NULL,
    kind        TEXT    NOT NULL,
    workspace   TEXT    NOT NULL,
    path        TEXT    NOT NULL,
    path_to     TEXT,
    host_id     TEXT    NOT NULL,
    lease_epoch INTEGER NOT NULL,
    fence       INTEGER NOT NULL,
    PRIMARY KEY (plan, ordinal)
) STRICT, WITHOUT ROWID;

CREATE TABLE receipts (
    id      BLOB    PRIMARY KEY,
    tenant  TEXT    NOT NULL,
    call    BLOB    NOT NULL UNIQUE REFERENCES calls (id),
    body    TEXT    NOT NULL,
    made_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE blobs (
    seq     INTEGER PRIMARY KEY,
    digest  BLOB    NOT NULL UNIQUE,
    size    INTEGER NOT NULL,
    content BLOB
) STRICT;

-- What keeps a blob: role 'after' until the plan is settled, role 'undo' until it is undone.
CREATE TABLE blob_pins (
    plan   BLOB NOT NULL REFERENCES plans (id),
    role   TEXT NOT NULL,
    digest BLOB NOT NULL REFERENCES blobs (digest),
    PRIMARY KEY (plan, role, digest)
) STRICT, WITHOUT ROWID;
CREATE INDEX blob_pins_of_digest ON blob_pins (digest);

CREATE TABLE audit (
    seq      INTEGER PRIMARY KEY,
    kind     TEXT    NOT NULL,
    at_ms    INTEGER NOT NULL,
    body     TEXT    NOT NULL,
    previous BLOB    NOT NULL,
    digest   BLOB    NOT NULL
) STRICT;
