-- student_registrations: a claim on a seat, and the price it was made at. A seat is held iff the status is seat_held,
-- payment_submitted or confirmed; batches.seats_taken counts exactly those rows.

CREATE SEQUENCE registration_request_no_seq;

CREATE TABLE student_registrations (
    id                   uuid          CONSTRAINT registrations_pkey PRIMARY KEY,
    request_no           text          NOT NULL DEFAULT 'R-' || lpad(nextval('registration_request_no_seq')::text, 10, '0')
                                       CONSTRAINT registrations_request_no_key UNIQUE,
    student_id           uuid          NOT NULL CONSTRAINT registrations_student_id_fkey REFERENCES users (id),
    batch_id             uuid          NOT NULL CONSTRAINT registrations_batch_id_fkey REFERENCES batches (id),
    status               text          NOT NULL CONSTRAINT registrations_status_check
                                       CHECK (status IN ('submitted', 'under_review', 'seat_held', 'payment_submitted', 'waitlisted',
                                                         'confirmed', 'expired', 'cancelled', 'rejected')),
    provisional          boolean       NOT NULL DEFAULT false,  -- anonymous, and the mailed link not opened yet
    fee                  numeric(14,2) NOT NULL,
    discount             numeric(14,2) NOT NULL DEFAULT 0,
    tax_rate             numeric(5,2)  NOT NULL CONSTRAINT registrations_tax_rate_check CHECK (tax_rate BETWEEN 0 AND 100),
    tax                  numeric(14,2) NOT NULL,
    amount_due           numeric(14,2) NOT NULL,                -- in all, not what remains
    deposit              numeric(14,2),
    amount_paid          numeric(14,2) NOT NULL DEFAULT 0,
    currency             char(3)       NOT NULL CONSTRAINT registrations_currency_check CHECK (currency ~ '^[A-Z]{3}$'),
    confirmed_by_mail_at timestamptz,
    hold_expires_at      timestamptz,
    waitlist_seq         bigint,
    answers              jsonb,
    reviewed_by          uuid          CONSTRAINT registrations_reviewed_by_fkey REFERENCES users (id),
    reason               text,
    operation_id         uuid          NOT NULL,
    created_at           timestamptz   NOT NULL DEFAULT now(),
    updated_at           timestamptz   NOT NULL DEFAULT now(),
    CONSTRAINT registrations_amounts_check
        CHECK (discount BETWEEN 0 AND fee AND tax >= 0 AND amount_due BETWEEN 0 AND fee - discount + tax),
    CONSTRAINT registrations_deposit_check  CHECK (deposit BETWEEN 0 AND amount_due),
    CONSTRAINT registrations_paid_check     CHECK (amount_paid BETWEEN 0 AND amount_due),
    CONSTRAINT registrations_hold_check     CHECK (status <> 'seat_held' OR hold_expires_at IS NOT NULL),
    CONSTRAINT registrations_waitlist_check CHECK (status <> 'waitlisted' OR waitlist_seq IS NOT NULL)
) WITH (fillfactor = 90);

ALTER SEQUENCE registration_request_no_seq OWNED BY student_registrations.request_no;

CREATE UNIQUE INDEX registrations_active_student_batch_key ON student_registrations (student_id, batch_id)
    WHERE status IN ('submitted', 'under_review', 'seat_held', 'payment_submitted', 'waitlisted', 'confirmed');
CREATE UNIQUE INDEX registrations_waitlist_seq_key ON student_registrations (batch_id, waitlist_seq) WHERE status = 'waitlisted';
CREATE INDEX registrations_batch_status_seq_idx ON student_registrations (batch_id, status, waitlist_seq);
CREATE INDEX registrations_hold_expires_at_idx ON student_registrations (hold_expires_at) WHERE status = 'seat_held';
CREATE INDEX registrations_student_id_idx ON student_registrations (student_id, id DESC);
CREATE INDEX registrations_reviewed_by_idx ON student_registrations (reviewed_by) WHERE reviewed_by IS NOT NULL;
