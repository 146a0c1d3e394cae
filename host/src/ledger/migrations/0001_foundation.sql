-- The foundation: calls, plans, consent, commits, keys, audit, recordings, blobs.
--
-- Ids are the 16 bytes of a UUIDv7, digests 32 bytes, times milliseconds since the Unix epoch. `seq` is the order of
-- writing; what belongs to a call has its seq, so that one commit touches the last page of a few tables. host_id,
-- lease_epoch and fence belong to many hosts on one database (D20); one host writes 0 and 0.

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
    tenant   TEXT    NOT NULL,
    user     TEXT    NOT NULL,
    agent    TEXT    NOT NULL,
    tool     TEXT    NOT NULL,
    key      TEXT    NOT NULL,
    request  BLOB    NOT NULL,
    call_seq INTEGER NOT NULL REFERENCES calls (seq),
    made_ms  INTEGER NOT NULL,
    PRIMARY KEY (tenant, user, agent, tool, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_of_call ON idempotency (call_seq);

-- A plan and, once it is to be committed, the intent to do so: one row, because there is at most one intent of a plan,
-- ever. What changes is here; the texts, which do not, are in plan_texts.
CREATE TABLE plans (
    seq         INTEGER PRIMARY KEY REFERENCES calls (seq),
    id          BLOB    NOT NULL UNIQUE,
    tenant      TEXT    NOT NULL,
    call        BLOB    NOT NULL,
    tool        TEXT    NOT NULL,
    digest      BLOB    NOT NULL,
    seal        BLOB    NOT NULL,
    run         BLOB,
    nonce       TEXT    NOT NULL,
    expires_ms  INTEGER NOT NULL,
    shown       INTEGER NOT NULL,
    state       TEXT    NOT NULL,
    effects     INTEGER NOT NULL,
    made_ms     INTEGER NOT NULL,
    settled_ms  INTEGER,
    intent_ms   INTEGER,
    approval    BLOB,
    undoes      BLOB,
    undone_by   BLOB,
    halted      TEXT,
    unknown     INTEGER NOT NULL,
    host_id     TEXT    NOT NULL,
    lease_epoch INTEGER NOT NULL,
    fence       INTEGER NOT NULL
) STRICT;
CREATE INDEX plans_of_tenant ON plans (tenant, seq);
-- Plans that somebody was shown before their commit, and may name by what they are.
CREATE INDEX plans_by_digest ON plans (digest, seq) WHERE shown = 1;
CREATE INDEX plans_open ON plans (expires_ms) WHERE state IN ('previewed', 'held', 'committing');

CREATE TABLE plan_texts (
    plan_seq  INTEGER PRIMARY KEY REFERENCES plans (seq),
    canonical TEXT NOT NULL,
    witnesses TEXT NOT NULL,
    steps     TEXT,
    reply     TEXT,
    receipt   TEXT
) STRICT;

CREATE TABLE approvals (
    seq         INTEGER PRIMARY KEY,
    id          BLOB    NOT NULL UNIQUE,
    tenant      TEXT    NOT NULL,
    user        TEXT    NOT NULL,
    agent       TEXT    NOT NULL,
    tool        TEXT    NOT NULL,
    call        BLOB    NOT NULL,
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

CREATE TABLE effects (
    plan_seq    INTEGER NOT NULL REFERENCES plans (seq),
    ordinal     INTEGER NOT NULL,
    kind        TEXT    NOT NULL,
    workspace   TEXT    NOT NULL,
    path        TEXT    NOT NULL,
    path_to     TEXT,
    host_id     TEXT    NOT NULL,
    lease_epoch INTEGER NOT NULL,
    fence       INTEGER NOT NULL,
    PRIMARY KEY (plan_seq, ordinal)
) STRICT, WITHOUT ROWID;

CREATE TABLE blobs (
    seq     INTEGER PRIMARY KEY,
    digest  BLOB    NOT NULL UNIQUE,
    size    INTEGER NOT NULL,
    content BLOB
) STRICT;

-- What keeps a blob: role 'after' until the plan is settled, role 'undo' until it is undone.
CREATE TABLE blob_pins (
    plan_seq INTEGER NOT NULL REFERENCES plans (seq),
    role     TEXT    NOT NULL,
    blob_seq INTEGER NOT NULL REFERENCES blobs (seq),
    PRIMARY KEY (plan_seq, role, blob_seq)
) STRICT, WITHOUT ROWID;
CREATE INDEX blob_pins_of_blob ON blob_pins (blob_seq);

CREATE TABLE audit (
    seq      INTEGER PRIMARY KEY,
    kind     TEXT    NOT NULL,
    at_ms    INTEGER NOT NULL,
    body     TEXT    NOT NULL,
    previous BLOB    NOT NULL,
    digest   BLOB    NOT NULL
) STRICT;
