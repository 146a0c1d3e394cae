-- Who acts and by what: minted tokens, sessions, and how each call was authenticated.
--
-- A token and a session are one kind of row: a secret that somebody may show. `path` is the ids of the sessions from the
-- outermost to this one, 16 bytes each, and nothing for a token; what a session delegates has a path that starts with its
-- own. `root` is the credential at the outer end. The secret itself is kept by nobody: `secret` is its SHA-256.

CREATE TABLE credentials (
    seq        INTEGER PRIMARY KEY,
    id         BLOB    NOT NULL UNIQUE,
    kind       TEXT    NOT NULL,
    root       TEXT    NOT NULL,
    path       BLOB,
    tenant     TEXT    NOT NULL,
    user       TEXT    NOT NULL,
    agent      TEXT,
    groups     TEXT    NOT NULL,
    held       TEXT    NOT NULL,
    label      TEXT    NOT NULL,
    secret     BLOB    NOT NULL,
    made_by    TEXT    NOT NULL,
    made_ms    INTEGER NOT NULL,
    expires_ms INTEGER NOT NULL,
    revoked_by TEXT,
    revoked_ms INTEGER
) STRICT;
CREATE INDEX credentials_of_tenant ON credentials (tenant, seq);
CREATE INDEX credentials_standing ON credentials (expires_ms) WHERE revoked_ms IS NULL;
CREATE INDEX credentials_of_root ON credentials (root) WHERE path IS NOT NULL;

ALTER TABLE calls ADD COLUMN credential TEXT NOT NULL DEFAULT 'record';
ALTER TABLE calls ADD COLUMN session BLOB;
CREATE INDEX calls_of_session ON calls (session) WHERE session IS NOT NULL;
ALTER TABLE runs ADD COLUMN session BLOB;
ALTER TABLE transactions ADD COLUMN session BLOB;
