-- What committed effects used up of quotas: one row for each intent and rule, for as long as the period of the rule.

CREATE TABLE quota_uses (
    seq   INTEGER PRIMARY KEY,
    rule  TEXT    NOT NULL,
    at_ms INTEGER NOT NULL,
    plan  BLOB    NOT NULL,
    used  INTEGER NOT NULL
) STRICT;
CREATE INDEX quota_uses_of_rule ON quota_uses (rule, at_ms);
CREATE INDEX quota_uses_of_plan ON quota_uses (plan);
