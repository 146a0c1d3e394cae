-- What is kept of payloads, for whom and for how long; and what operators ask without reading a million rows.

-- The risk tier of the tool that was called; nothing for calls that were refused before it was known.
ALTER TABLE calls ADD COLUMN tier INTEGER;
-- Calls that are not over: few at any time.
CREATE INDEX calls_open ON calls (tenant, started_ms) WHERE final = 0;

-- Keys that seal payloads, one for each tenant and day. `own` is wrapped for the daemon, until it needs the payloads no more;
-- `age` is wrapped for the operators, until the tenant is forgotten. What has neither can be opened by nobody.
CREATE TABLE data_keys (
    id         TEXT    PRIMARY KEY,
    tenant     TEXT    NOT NULL,
    day        INTEGER NOT NULL,
    recipients BLOB    NOT NULL,
    made_ms    INTEGER NOT NULL,
    own        BLOB,
    age        BLOB,
    sealed_ms  INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX data_keys_of_tenant ON data_keys (tenant, day);
CREATE INDEX data_keys_live ON data_keys (day) WHERE own IS NOT NULL;

-- Legal holds: nothing of a call or a run is let go of. `subject` is the id of either.
CREATE TABLE holds (
    subject BLOB    PRIMARY KEY,
    kind    TEXT    NOT NULL,
    tenant  TEXT    NOT NULL,
    reason  TEXT    NOT NULL,
    set_by  TEXT    NOT NULL,
    set_ms  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX holds_of_tenant ON holds (tenant, set_ms);

-- How far the sweep of a class has come among the calls, and where it goes on among those that it left behind.
CREATE TABLE retention_marks (
    class    TEXT    PRIMARY KEY,
    seq      INTEGER NOT NULL,
    left_seq INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
-- Calls that were old enough and still needed.
CREATE TABLE retention_left (
    class TEXT    NOT NULL,
    seq   INTEGER NOT NULL,
    PRIMARY KEY (class, seq)
) STRICT, WITHOUT ROWID;

-- Tenants, or people of them, whose payloads are to be forgotten: what began before `asked_ms`. `done_ms` is absent while
-- something of it is still open.
CREATE TABLE forgets (
    seq      INTEGER PRIMARY KEY,
    tenant   TEXT    NOT NULL,
    user     TEXT    NOT NULL,
    asked_ms INTEGER NOT NULL,
    done_ms  INTEGER
) STRICT;
CREATE INDEX forgets_open ON forgets (seq) WHERE done_ms IS NULL;

-- Calls that ended, added up by day, tool, agent and how they ended. The last five are calls by how long they took.
CREATE TABLE stats (
    tenant    TEXT    NOT NULL,
    day       INTEGER NOT NULL,
    tool      TEXT    NOT NULL,
    agent     TEXT    NOT NULL,
    status    TEXT    NOT NULL,
    code      TEXT    NOT NULL,
    calls     INTEGER NOT NULL,
    fuel      INTEGER NOT NULL,
    cost      INTEGER NOT NULL,
    wall_ms   INTEGER NOT NULL,
    wall_max  INTEGER NOT NULL,
    in_10     INTEGER NOT NULL,
    in_100    INTEGER NOT NULL,
    in_1000   INTEGER NOT NULL,
    in_10000  INTEGER NOT NULL,
    in_longer INTEGER NOT NULL,
    PRIMARY KEY (tenant, day, tool, agent, status, code)
) STRICT, WITHOUT ROWID;
INSERT INTO stats SELECT tenant, started_ms / 86400000 AS on_day, tool, agent, status, coalesce(error_code, '') AS why,
    count(*), sum(fuel), sum(cost_micro_usd), sum(wall_ms), max(wall_ms),
    count(*) FILTER (WHERE wall_ms <= 10), count(*) FILTER (WHERE wall_ms > 10 AND wall_ms <= 100),
    count(*) FILTER (WHERE wall_ms > 100 AND wall_ms <= 1000), count(*) FILTER (WHERE wall_ms > 1000 AND wall_ms <= 10000),
    count(*) FILTER (WHERE wall_ms > 10000)
    FROM calls WHERE final = 1 GROUP BY tenant, on_day, tool, agent, status, why;

CREATE INDEX runs_by_time ON runs (tenant, opened_ms);
CREATE INDEX runs_by_agent ON runs (tenant, agent, opened_ms);
CREATE INDEX effects_of_path ON effects (workspace, path, plan_seq);
CREATE INDEX effects_moved_to ON effects (workspace, path_to, plan_seq) WHERE path_to IS NOT NULL;
