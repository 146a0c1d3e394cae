-- What a call made of requests to other systems, and what those cost by the prices of its manifest.

ALTER TABLE calls ADD COLUMN http_requests INTEGER NOT NULL DEFAULT 0;
ALTER TABLE calls ADD COLUMN cost_micro_usd INTEGER NOT NULL DEFAULT 0;
