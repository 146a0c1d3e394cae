-- When spending of a workflow (or of what has none: '') was last told to be a spike, so that a restart does not tell it again.
CREATE TABLE spikes (
    tenant   TEXT    NOT NULL,
    workflow TEXT    NOT NULL,
    told_ms  INTEGER NOT NULL,
    PRIMARY KEY (tenant, workflow)
) STRICT, WITHOUT ROWID;

-- The latest agreements of one person.
CREATE INDEX approval_votes_of ON approval_votes (approver, at_ms);
