-- Replay: what recordings need besides themselves, versions of tools, golden cases and what became of suites.

-- What keeps a content of a recording, as long as the recording is kept.
CREATE TABLE recording_pins (
    call_seq INTEGER NOT NULL REFERENCES calls (seq),
    blob_seq INTEGER NOT NULL REFERENCES blobs (seq),
    PRIMARY KEY (call_seq, blob_seq)
) STRICT, WITHOUT ROWID;
CREATE INDEX recording_pins_of_blob ON recording_pins (blob_seq);

-- The same where payloads are encrypted to operators: contents of its own for each call, hexadecimal and sealed.
CREATE TABLE recording_parts (
    call_seq INTEGER NOT NULL REFERENCES calls (seq),
    digest   BLOB    NOT NULL,
    body     TEXT    NOT NULL,
    PRIMARY KEY (call_seq, digest)
) STRICT, WITHOUT ROWID;

-- Every manifest that was ever in force, with the component that it meant: a replay needs the one of its call.
CREATE TABLE versions (
    manifest  BLOB    NOT NULL,
    component BLOB    NOT NULL,
    name      TEXT    NOT NULL,
    version   TEXT    NOT NULL,
    tools     TEXT    NOT NULL,
    body      TEXT    NOT NULL,
    path      TEXT    NOT NULL,
    size      INTEGER NOT NULL,
    first_ms  INTEGER NOT NULL,
    PRIMARY KEY (manifest, component)
) STRICT, WITHOUT ROWID;
CREATE INDEX versions_by_name ON versions (name, first_ms);

CREATE TABLE golden_cases (
    seq     INTEGER PRIMARY KEY,
    tenant  TEXT    NOT NULL,
    suite   TEXT    NOT NULL,
    name    TEXT    NOT NULL,
    tool    TEXT    NOT NULL,
    body    TEXT    NOT NULL,
    made_by TEXT    NOT NULL,
    made_ms INTEGER NOT NULL,
    UNIQUE (tenant, suite, name)
) STRICT;
CREATE INDEX golden_cases_of_tool ON golden_cases (tenant, tool);

CREATE TABLE suite_runs (
    seq       INTEGER PRIMARY KEY,
    tenant    TEXT    NOT NULL,
    suite     TEXT    NOT NULL,
    passed    INTEGER NOT NULL,
    failed    INTEGER NOT NULL,
    body      TEXT    NOT NULL,
    at_ms     INTEGER NOT NULL
) STRICT;
CREATE INDEX suite_runs_of_suite ON suite_runs (tenant, suite, seq);
