-- Oversight: what runs have seen and tried, how far agents may go, consent in advance, what checks noted of calls, and
-- digests of rows by which a changed one is found.

-- Taint only grows; breaches are counted. A run without a row has neither.
CREATE TABLE run_marks (
    run        BLOB    PRIMARY KEY,
    tenant     TEXT    NOT NULL,
    untrusted  INTEGER NOT NULL,
    private    INTEGER NOT NULL,
    breaches   INTEGER NOT NULL,
    changed_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE call_notes (
    call_seq INTEGER PRIMARY KEY REFERENCES calls (seq),
    body     TEXT NOT NULL
) STRICT;

-- Outputs that were too long for their replies.
CREATE TABLE call_outputs (
    call_seq INTEGER PRIMARY KEY REFERENCES calls (seq),
    body     TEXT NOT NULL
) STRICT;

CREATE TABLE autonomy (
    tenant TEXT    NOT NULL,
    agent  TEXT    NOT NULL,
    tool   TEXT    NOT NULL,
    level  TEXT    NOT NULL,
    set_by TEXT    NOT NULL,
    reason TEXT    NOT NULL,
    set_ms INTEGER NOT NULL,
    PRIMARY KEY (tenant, agent, tool)
) STRICT, WITHOUT ROWID;

-- State: 'pending' (wants another person), 'active', then 'used_up', 'expired' or 'revoked'.
CREATE TABLE standing (
    seq        INTEGER PRIMARY KEY,
    id         BLOB    NOT NULL UNIQUE,
    tenant     TEXT    NOT NULL,
    body       TEXT    NOT NULL,
    reason     TEXT    NOT NULL,
    people     INTEGER NOT NULL CHECK (people > 0),
    makers     TEXT    NOT NULL,
    groups     TEXT    NOT NULL,
    state      TEXT    NOT NULL,
    uses       INTEGER NOT NULL,
    used       INTEGER NOT NULL,
    made_ms    INTEGER NOT NULL,
    expires_ms INTEGER NOT NULL,
    ended_by   TEXT,
    ended_ms   INTEGER,
    row_digest BLOB
) STRICT;
CREATE INDEX standing_of_tenant ON standing (tenant, seq);
CREATE INDEX standing_open ON standing (expires_ms) WHERE state IN ('pending', 'active');

-- SHA-256 over every other column: of plans that can still be committed, and of all consent to them.
ALTER TABLE plans ADD COLUMN row_digest BLOB;
ALTER TABLE approvals ADD COLUMN row_digest BLOB;
ALTER TABLE approval_votes ADD COLUMN row_digest BLOB;
