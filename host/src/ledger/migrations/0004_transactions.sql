-- Transactions: what several calls have staged together, until it is committed or dropped (D11).
--
-- State: 'open', then 'sealed' (with its plan, which decides how it ends), then 'committed' or 'discarded'. The layer is
-- JSON of the host, named by `digest`; a call replaces it by compare-and-swap on that digest.

CREATE TABLE transactions (
    seq         INTEGER PRIMARY KEY,
    id          BLOB    NOT NULL UNIQUE,
    tenant      TEXT    NOT NULL,
    user        TEXT    NOT NULL,
    agent       TEXT    NOT NULL,
    run         BLOB,
    tools       TEXT,
    state       TEXT    NOT NULL,
    layer       TEXT    NOT NULL,
    digest      BLOB    NOT NULL,
    calls       INTEGER NOT NULL,
    bytes       INTEGER NOT NULL,
    call        BLOB,
    plan        BLOB    UNIQUE REFERENCES plans (id),
    opened_ms   INTEGER NOT NULL,
    expires_ms  INTEGER NOT NULL,
    settled_ms  INTEGER,
    host_id     TEXT    NOT NULL,
    lease_epoch INTEGER NOT NULL,
    fence       INTEGER NOT NULL
) STRICT;
CREATE INDEX transactions_of_tenant ON transactions (tenant, seq);
CREATE INDEX transactions_unsettled ON transactions (tenant, user, agent) WHERE state IN ('open', 'sealed');
CREATE INDEX transactions_open_by_expiry ON transactions (expires_ms) WHERE state = 'open';

-- What keeps a blob that a layer writes, until the transaction ends.
CREATE TABLE transaction_pins (
    txn    BLOB NOT NULL REFERENCES transactions (id),
    digest BLOB NOT NULL REFERENCES blobs (digest),
    PRIMARY KEY (txn, digest)
) STRICT, WITHOUT ROWID;
CREATE INDEX transaction_pins_of_digest ON transaction_pins (digest);
