-- email_logs: every mail, from wish to delivery. Its row is claimed with a lease before the mail goes out; its
-- Message-ID comes from the event, so a repeated mail is recognised as one.

CREATE TABLE email_logs (
    id              uuid        CONSTRAINT email_logs_pkey PRIMARY KEY,
    user_id         uuid        CONSTRAINT email_logs_user_id_fkey REFERENCES users (id),
    to_email        citext      NOT NULL,
    template        text        NOT NULL,
    locale          text        NOT NULL,
    subject         text        NOT NULL,
    context         jsonb       NOT NULL DEFAULT '{}',  -- what the template and its attachments are made from; no secrets
    dedupe_key      text        NOT NULL CONSTRAINT email_logs_dedupe_key UNIQUE,
    event_id        uuid,
    trace_id        text,
    message_id      text        NOT NULL,
    status          text        NOT NULL CONSTRAINT email_logs_status_check
                                CHECK (status IN ('queued', 'sending', 'sent', 'failed', 'suppressed')),
    attempts        integer     NOT NULL DEFAULT 0 CONSTRAINT email_logs_attempts_check CHECK (attempts >= 0),
    lease_until     timestamptz,
    next_attempt_at timestamptz,                   -- null: as soon as may be
    last_error      text,
    sent_at         timestamptz,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT email_logs_lease_check CHECK (status <> 'sending' OR lease_until IS NOT NULL),
    CONSTRAINT email_logs_sent_check  CHECK (status <> 'sent' OR sent_at IS NOT NULL)
);

CREATE INDEX email_logs_user_id_idx ON email_logs (user_id, id DESC) WHERE user_id IS NOT NULL;
CREATE INDEX email_logs_unsent_idx ON email_logs (created_at) WHERE status IN ('queued', 'sending');
CREATE INDEX email_logs_failed_idx ON email_logs (created_at) WHERE status = 'failed';


-- email_suppressions: addresses that get no mail any more.
CREATE TABLE email_suppressions (
    id         uuid        CONSTRAINT email_suppressions_pkey PRIMARY KEY,
    email      citext      NOT NULL CONSTRAINT email_suppressions_email_key UNIQUE,
    reason     text        NOT NULL CONSTRAINT email_suppressions_reason_check
                           CHECK (reason IN ('hard_bounce', 'complaint', 'unsubscribed', 'manual')),
    detail     text,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE TRIGGER email_suppressions_touch BEFORE UPDATE ON email_suppressions
FOR EACH ROW EXECUTE FUNCTION touch_updated_at();
