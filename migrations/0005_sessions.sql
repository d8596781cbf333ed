-- sessions: one row per refresh token. A rotation writes the child and stamps the parent's rotated_at; a family is
-- all that grew from one login.

CREATE TABLE sessions (
    id                  uuid        CONSTRAINT sessions_pkey PRIMARY KEY,
    user_id             uuid        NOT NULL CONSTRAINT sessions_user_id_fkey REFERENCES users (id),
    family_id           uuid        NOT NULL,
    parent_id           uuid        CONSTRAINT sessions_parent_id_key UNIQUE  -- one rotation wins
                                    CONSTRAINT sessions_parent_id_fkey REFERENCES sessions (id) ON DELETE SET NULL,
    refresh_hash        bytea       NOT NULL CONSTRAINT sessions_refresh_hash_key UNIQUE,
    ip                  inet,
    user_agent          text,
    expires_at          timestamptz NOT NULL,      -- idle: moves with each rotation
    absolute_expires_at timestamptz NOT NULL,      -- copied from parent to child: no rotation outlives it
    rotated_at          timestamptz,
    revoked_at          timestamptz,
    created_at          timestamptz NOT NULL DEFAULT now(),
    updated_at          timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT sessions_expiry_check CHECK (expires_at <= absolute_expires_at)
);

CREATE INDEX sessions_user_id_idx ON sessions (user_id);
CREATE INDEX sessions_family_id_idx ON sessions (family_id);
CREATE INDEX sessions_expires_at_idx ON sessions (expires_at);
CREATE INDEX sessions_revoked_at_idx ON sessions (revoked_at) WHERE revoked_at IS NOT NULL;

CREATE TRIGGER sessions_touch BEFORE UPDATE ON sessions
FOR EACH ROW EXECUTE FUNCTION touch_updated_at();
