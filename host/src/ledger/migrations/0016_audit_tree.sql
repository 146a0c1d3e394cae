-- The Merkle tree over the audit entries, and signed statements of how far it has come.

-- Hashes of complete subtrees of 64 entries and more; what is below follows from the digests of the entries.
CREATE TABLE audit_nodes (
    level INTEGER NOT NULL,
    place INTEGER NOT NULL,
    hash  BLOB    NOT NULL,
    PRIMARY KEY (level, place)
) STRICT, WITHOUT ROWID;

-- Notes as they were signed. All of their columns are covered by the signature.
CREATE TABLE audit_checkpoints (
    size INTEGER PRIMARY KEY,
    note TEXT NOT NULL
) STRICT;

-- Under which policies a call was judged.
ALTER TABLE calls ADD COLUMN policy_set BLOB;
