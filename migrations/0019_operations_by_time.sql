-- What a user asks for is "mine, in the order of time": the list, and what was settled while a stream of events was away.
-- Ids tell no time, as those made from an Idempotency-Key are hashes.

CREATE INDEX operations_principal_settled_at_idx ON operations (principal, settled_at, id) WHERE principal IS NOT NULL;
DROP INDEX operations_principal_idx;
