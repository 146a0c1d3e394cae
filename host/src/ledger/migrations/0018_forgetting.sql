-- Forgetting by what was there, not by the clock: which data keys go with it, and which calls were on record when it was asked for.

-- The order to forget that a key goes with. Nothing is sealed under it any more.
ALTER TABLE data_keys ADD COLUMN forget INTEGER;
-- Calls in front of this place are forgotten, whenever they say that they began.
ALTER TABLE forgets ADD COLUMN before_seq INTEGER NOT NULL DEFAULT 0;

CREATE INDEX outbox_of_call ON outbox (call) WHERE call IS NOT NULL;
CREATE INDEX outbox_of_tenant ON outbox (tenant, state);
CREATE INDEX dead_letters_of_item ON dead_letters (item);
CREATE INDEX stats_by_day ON stats (day);
