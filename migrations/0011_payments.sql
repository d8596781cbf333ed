-- payments: what students say they have paid, and what the accountants made of it.

CREATE TABLE payments (
    id                  uuid          CONSTRAINT payments_pkey PRIMARY KEY,
    registration_id     uuid          NOT NULL CONSTRAINT payments_registration_id_fkey REFERENCES student_registrations (id),
    student_id          uuid          NOT NULL CONSTRAINT payments_student_id_fkey REFERENCES users (id),
    method              text          NOT NULL CONSTRAINT payments_method_check CHECK (method ~ '^[a-z][a-z0-9_]{1,31}$'),
    transaction_id      text          NOT NULL,    -- as typed
    transaction_ref     text          NOT NULL CONSTRAINT payments_reference_check
                                      CHECK (transaction_ref <> '' AND transaction_ref !~ '[[:space:][:punct:]a-z]'),
    amount              numeric(14,2) NOT NULL CONSTRAINT payments_amount_check CHECK (amount > 0),
    currency            char(3)       NOT NULL CONSTRAINT payments_currency_check CHECK (currency ~ '^[A-Z]{3}$'),
    paid_at             timestamptz,               -- as the payer says
    payer_name          text,
    proof_file_id       uuid          CONSTRAINT payments_proof_file_id_fkey REFERENCES files (id),
    status              text          NOT NULL CONSTRAINT payments_status_check
                                      CHECK (status IN ('submitted', 'approved', 'rejected', 'refund_pending', 'refunded', 'cancelled')),
    risk_flags          text[]        NOT NULL DEFAULT '{}',
    without_seat        boolean       NOT NULL DEFAULT false,  -- came late, or while waitlisted
    reviewed_by         uuid          CONSTRAINT payments_reviewed_by_fkey REFERENCES users (id),
    reviewed_at         timestamptz,
    rejection_code      text,
    note                text,
    refund_amount       numeric(14,2),             -- requested; in `refunded` once it has been paid back
    refunded            numeric(14,2) NOT NULL DEFAULT 0,
    refund_requested_by uuid          CONSTRAINT payments_refund_requested_by_fkey REFERENCES users (id),
    refund_approved_by  uuid          CONSTRAINT payments_refund_approved_by_fkey REFERENCES users (id),
    operation_id        uuid          NOT NULL,
    created_at          timestamptz   NOT NULL DEFAULT now(),
    updated_at          timestamptz   NOT NULL DEFAULT now(),
    CONSTRAINT payments_reviewer_check        CHECK (reviewed_by <> student_id),
    CONSTRAINT payments_refund_check          CHECK (refunded BETWEEN 0 AND amount AND refund_amount > 0 AND refund_amount <= amount),
    CONSTRAINT payments_refund_approver_check CHECK (refund_approved_by <> refund_requested_by)
) WITH (fillfactor = 90);

-- Among live rows only: a typo or a fraudster must not lock the true payer out for ever.
CREATE UNIQUE INDEX payments_live_reference_key ON payments (transaction_ref) WHERE status NOT IN ('rejected', 'cancelled');
CREATE INDEX payments_registration_id_idx ON payments (registration_id);
CREATE INDEX payments_student_status_idx ON payments (student_id, status);
CREATE INDEX payments_status_created_at_idx ON payments (status, created_at);
CREATE INDEX payments_proof_file_id_idx ON payments (proof_file_id) WHERE proof_file_id IS NOT NULL;
CREATE INDEX payments_reviewed_by_idx ON payments (reviewed_by) WHERE reviewed_by IS NOT NULL;
CREATE INDEX payments_refund_requested_by_idx ON payments (refund_requested_by) WHERE refund_requested_by IS NOT NULL;
CREATE INDEX payments_refund_approved_by_idx ON payments (refund_approved_by) WHERE refund_approved_by IS NOT NULL;


-- bank_statement_lines: the bank's side of it. A line imported twice is one line.
CREATE TABLE bank_statement_lines (
    id           uuid          CONSTRAINT bank_statement_lines_pkey PRIMARY KEY,
    file_id      uuid          NOT NULL CONSTRAINT bank_statement_lines_file_id_fkey REFERENCES files (id),
    line_no      integer       NOT NULL,           -- in the file, for the accountant to find it
    reference    text          NOT NULL CONSTRAINT bank_statement_lines_reference_key UNIQUE,  -- normalised as transaction_ref is
    amount       numeric(14,2) NOT NULL,
    currency     char(3)       NOT NULL CONSTRAINT bank_statement_lines_currency_check CHECK (currency ~ '^[A-Z]{3}$'),
    booked_on    date,
    payer_name   text,
    description  text,
    status       text          NOT NULL CONSTRAINT bank_statement_lines_status_check
                               CHECK (status IN ('matched', 'unmatched', 'amount_differs', 'ignored')),
    payment_id   uuid          CONSTRAINT bank_statement_lines_payment_id_fkey REFERENCES payments (id),
    operation_id uuid          NOT NULL,
    created_at   timestamptz   NOT NULL DEFAULT now(),
    updated_at   timestamptz   NOT NULL DEFAULT now(),
    CONSTRAINT bank_statement_lines_matched_check CHECK (status <> 'matched' OR payment_id IS NOT NULL)
);

CREATE INDEX bank_statement_lines_file_id_idx ON bank_statement_lines (file_id, line_no);
CREATE INDEX bank_statement_lines_payment_id_idx ON bank_statement_lines (payment_id) WHERE payment_id IS NOT NULL;
CREATE INDEX bank_statement_lines_status_idx ON bank_statement_lines (status, created_at);

CREATE TRIGGER bank_statement_lines_touch BEFORE UPDATE ON bank_statement_lines
FOR EACH ROW EXECUTE FUNCTION touch_updated_at();
