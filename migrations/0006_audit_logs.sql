-- audit_logs: who did what to which row. Append-only, also for the owner until it says otherwise. No foreign keys:
-- the log outlives what it speaks of.

CREATE TABLE audit_logs (
    id           uuid        CONSTRAINT audit_logs_pkey PRIMARY KEY,
    occurred_at  timestamptz NOT NULL DEFAULT now(),
    actor_id     uuid,                             -- null for the clock, an anonymous registrant and an operator
    actor_role   text,
    action       text        NOT NULL,
    entity_type  text        NOT NULL,
    entity_id    uuid        NOT NULL,
    before       jsonb,
    after        jsonb,
    operation_id uuid,
    ip           inet,
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX audit_logs_entity_idx ON audit_logs (entity_type, entity_id, occurred_at);
CREATE INDEX audit_logs_actor_idx ON audit_logs (actor_id, occurred_at) WHERE actor_id IS NOT NULL;

CREATE TRIGGER audit_logs_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_logs
FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
