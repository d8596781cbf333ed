-- users: who may sign in, and as what. user_profiles: who they are.

CREATE TABLE users (
    id                uuid        CONSTRAINT users_pkey PRIMARY KEY,
    email             citext      NOT NULL CONSTRAINT users_email_check
                                  CHECK (email ~ '^[^@[:space:][:cntrl:]]+@[^@[:space:][:cntrl:]]+$' AND octet_length(email::text) <= 254),
    phone             text,
    password_hash     text,                        -- bcrypt; null until the invited user chooses one
    role              text        NOT NULL CONSTRAINT users_role_check CHECK (role IN ('student', 'teacher', 'accountant', 'admin')),
    status            text        NOT NULL CONSTRAINT users_status_check CHECK (status IN ('invited', 'active', 'suspended')),
    email_verified_at timestamptz,
    failed_logins     integer     NOT NULL DEFAULT 0 CONSTRAINT users_failed_logins_check CHECK (failed_logins >= 0),
    locked_until      timestamptz,
    last_login_at     timestamptz,
    operation_id      uuid,                        -- null where an admin created the user
    created_at        timestamptz NOT NULL DEFAULT now(),
    updated_at        timestamptz NOT NULL DEFAULT now(),
    deleted_at        timestamptz
);

CREATE UNIQUE INDEX users_email_key ON users (email) WHERE deleted_at IS NULL;
CREATE INDEX users_role_status_idx ON users (role, status);
CREATE INDEX users_phone_idx ON users (phone) WHERE phone IS NOT NULL;

CREATE TRIGGER users_touch BEFORE UPDATE ON users
FOR EACH ROW EXECUTE FUNCTION touch_updated_at();


CREATE TABLE user_profiles (
    id             uuid        CONSTRAINT user_profiles_pkey PRIMARY KEY,
    user_id        uuid        NOT NULL
                               CONSTRAINT user_profiles_user_id_key UNIQUE
                               CONSTRAINT user_profiles_user_id_fkey REFERENCES users (id),
    full_name      text        NOT NULL CONSTRAINT user_profiles_full_name_check CHECK (full_name <> ''),
    given_name     text,
    family_name    text,
    date_of_birth  date,
    guardian_name  text,
    guardian_phone text,
    address        jsonb,
    country        text        CONSTRAINT user_profiles_country_check CHECK (country ~ '^[A-Z]{2}$'),  -- ISO 3166-1 alpha-2
    tax_id         text,
    locale         text        NOT NULL DEFAULT 'en',
    timezone       text        NOT NULL DEFAULT 'UTC',
    notify_prefs   jsonb       NOT NULL DEFAULT '{}',
    created_at     timestamptz NOT NULL DEFAULT now(),
    updated_at     timestamptz NOT NULL DEFAULT now()
);

CREATE TRIGGER user_profiles_touch BEFORE UPDATE ON user_profiles
FOR EACH ROW EXECUTE FUNCTION touch_updated_at();
