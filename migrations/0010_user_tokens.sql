-- user_tokens: single-use links. The secret is no column: it is an HMAC of the id, computed while the mail is rendered.

CREATE TABLE user_tokens (
    id              uuid        CONSTRAINT user_tokens_pkey PRIMARY KEY,
    user_id         uuid        NOT NULL CONSTRAINT user_tokens_user_id_fkey REFERENCES users (id),
    purpose         text        NOT NULL CONSTRAINT user_tokens_purpose_check CHECK (purpose IN ('verify', 'reset', 'magic_link')),
    registration_id uuid        CONSTRAINT user_tokens_registration_id_fkey REFERENCES student_registrations (id),  -- confirmed by it
    expires_at      timestamptz NOT NULL,
    used_at         timestamptz,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX user_tokens_user_id_idx ON user_tokens (user_id, purpose);
CREATE INDEX user_tokens_registration_id_idx ON user_tokens (registration_id) WHERE registration_id IS NOT NULL;
CREATE INDEX user_tokens_expires_at_idx ON user_tokens (expires_at);

CREATE TRIGGER user_tokens_touch BEFORE UPDATE ON user_tokens
FOR EACH ROW EXECUTE FUNCTION touch_updated_at();
