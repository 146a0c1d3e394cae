-- Deliveries that are over, in the order in which they ended: what retention removes.

CREATE INDEX outbox_over ON outbox (changed_ms) WHERE state IN ('delivered', 'discarded');
