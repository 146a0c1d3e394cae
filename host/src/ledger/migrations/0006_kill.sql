-- Kill switches: what is stopped, until an operator clears it. `tenant` and `name` are empty where the level has none.

CREATE TABLE kill_switches (
    level  TEXT    NOT NULL,
    tenant TEXT    NOT NULL,
    name   TEXT    NOT NULL,
    mode   TEXT    NOT NULL,
    reason TEXT    NOT NULL,
    set_by TEXT    NOT NULL,
    set_ms INTEGER NOT NULL,
    PRIMARY KEY (level, tenant, name)
) STRICT, WITHOUT ROWID;
