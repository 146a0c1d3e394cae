-- What a credential is good for, also after it was restarted or pruned: whose runs and transactions are, what a credential was made
-- with, how many calls were made through a session, and through which session something was charged.

-- The outermost credential through which a run or a transaction was opened: one that is narrowed sees no other's.
ALTER TABLE runs ADD COLUMN credential TEXT NOT NULL DEFAULT 'record';
ALTER TABLE transactions ADD COLUMN credential TEXT NOT NULL DEFAULT 'record';

-- The token or session that made this one, if one did: what ends it ends this, too.
ALTER TABLE credentials ADD COLUMN parent BLOB;
-- Calls on record that were made through it, or through what comes from it. The calls themselves are pruned.
ALTER TABLE credentials ADD COLUMN calls INTEGER NOT NULL DEFAULT 0;
CREATE INDEX credentials_of_parent ON credentials (parent) WHERE parent IS NOT NULL;
DROP INDEX credentials_of_root;

ALTER TABLE charges ADD COLUMN session BLOB;
CREATE INDEX charges_of_session ON charges (session) WHERE session IS NOT NULL;
