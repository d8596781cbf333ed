-- operations: one row per settled event. It is the inbox (its key), the result (state, outcome) and what the outbox is
-- computed from. No foreign keys and few indexes: every event pays for each of them.

CREATE TABLE operations (
    id          uuid        CONSTRAINT operations_pkey PRIMARY KEY,
    kind        text        NOT NULL,
    parent_id   uuid,
    principal   text,                              -- `student:<uuid>`; null for an anonymous registrant and for the system
    fingerprint bytea       NOT NULL,              -- of the payload as first accepted, also when a replay was edited
    state       text        NOT NULL CONSTRAINT operations_state_check CHECK (state IN ('succeeded', 'rejected', 'failed')),
    outcome     jsonb       NOT NULL,
    subject     text,                              -- the partition key
    accepted_at timestamptz NOT NULL,
    settled_at  timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX operations_principal_idx ON operations (principal, id DESC) WHERE principal IS NOT NULL;

-- For pruning. A btree, not BRIN: pruning frees pages that new rows then fill, and a BRIN range keeps its old minimum,
-- so after the first retention period every range would match. The btree costs little: rows arrive in its order, and
-- those of one batch share one settled_at, which deduplication stores once.
CREATE INDEX operations_settled_at_idx ON operations (settled_at);


-- dead_letters: events given up on, until somebody replays or discards them.
CREATE TABLE dead_letters (
    id              uuid        CONSTRAINT dead_letters_pkey PRIMARY KEY,
    operation_id    uuid,                          -- null, as is kind, where the event could not be decoded
    pool            text        NOT NULL,
    kind            text,
    event           bytea       NOT NULL,          -- jsonb would refuse \u0000 and what is no JSON at all
    error_class     text        NOT NULL,
    error_text      text        NOT NULL,
    attempts        integer     NOT NULL CONSTRAINT dead_letters_attempts_check CHECK (attempts >= 0),
    first_failed_at timestamptz NOT NULL,
    last_failed_at  timestamptz NOT NULL,
    dedupe_key      text        NOT NULL,          -- a hash of the event
    state           text        NOT NULL DEFAULT 'parked'
                    CONSTRAINT dead_letters_state_check CHECK (state IN ('parked', 'replayed', 'discarded')),
    decided_by      text,
    decided_at      timestamptz,
    edited_event    bytea,                         -- what was replayed, where it is not `event`
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT dead_letters_decided_check
        CHECK (num_nonnulls(decided_by, decided_at) = CASE state WHEN 'parked' THEN 0 ELSE 2 END)
);

-- The `dead` queue delivers at least once: draining an event again finds it parked. After a replay it may come back.
CREATE UNIQUE INDEX dead_letters_parked_dedupe_key ON dead_letters (dedupe_key) WHERE state = 'parked';
CREATE INDEX dead_letters_parked_idx ON dead_letters (pool, kind, id) WHERE state = 'parked';
CREATE INDEX dead_letters_operation_id_idx ON dead_letters (operation_id) WHERE operation_id IS NOT NULL;

CREATE TRIGGER dead_letters_touch BEFORE UPDATE ON dead_letters
FOR EACH ROW EXECUTE FUNCTION touch_updated_at();
