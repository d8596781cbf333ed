-- Invoices are issued once and never edited: a correction is a credit note. Numbers are gapless within a series, so
-- they come from a locked row, not from a sequence.

CREATE TABLE invoice_series (
    id             uuid        CONSTRAINT invoice_series_pkey PRIMARY KEY,
    kind           text        NOT NULL CONSTRAINT invoice_series_kind_check CHECK (kind IN ('invoice', 'credit_note')),
    financial_year text        NOT NULL CONSTRAINT invoice_series_year_check CHECK (financial_year ~ '^[0-9]{4}(-[0-9]{2})?$'),
    prefix         text        NOT NULL,
    next_seq       bigint      NOT NULL DEFAULT 1 CONSTRAINT invoice_series_next_seq_check CHECK (next_seq > 0),
    created_at     timestamptz NOT NULL DEFAULT now(),
    updated_at     timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT invoice_series_kind_year_key UNIQUE (kind, financial_year)
);

CREATE TRIGGER invoice_series_touch BEFORE UPDATE ON invoice_series
FOR EACH ROW EXECUTE FUNCTION touch_updated_at();


CREATE TABLE invoices (
    id              uuid          CONSTRAINT invoices_pkey PRIMARY KEY,
    kind            text          NOT NULL CONSTRAINT invoices_kind_check CHECK (kind IN ('invoice', 'credit_note')),
    series_id       uuid          NOT NULL CONSTRAINT invoices_series_id_fkey REFERENCES invoice_series (id),
    seq             bigint        NOT NULL CONSTRAINT invoices_seq_check CHECK (seq > 0),
    number          text          NOT NULL CONSTRAINT invoices_number_key UNIQUE,
    payment_id      uuid          NOT NULL CONSTRAINT invoices_payment_id_fkey REFERENCES payments (id),
    registration_id uuid          NOT NULL CONSTRAINT invoices_registration_id_fkey REFERENCES student_registrations (id),
    student_id      uuid          NOT NULL CONSTRAINT invoices_student_id_fkey REFERENCES users (id),
    original_id     uuid          CONSTRAINT invoices_original_id_fkey REFERENCES invoices (id),  -- what a credit note corrects
    status          text          NOT NULL DEFAULT 'issued' CONSTRAINT invoices_status_check CHECK (status IN ('issued', 'credited')),
    issue_date      date          NOT NULL,        -- in the institute's time zone
    supplier        jsonb         NOT NULL,
    recipient       jsonb         NOT NULL,
    currency        char(3)       NOT NULL CONSTRAINT invoices_currency_check CHECK (currency ~ '^[A-Z]{3}$'),
    subtotal        numeric(14,2) NOT NULL,
    discount        numeric(14,2) NOT NULL DEFAULT 0,
    tax             numeric(14,2) NOT NULL,
    rounding        numeric(14,2) NOT NULL DEFAULT 0,
    total           numeric(14,2) NOT NULL,
    issued_at       timestamptz   NOT NULL,
    pdf_file_id     uuid          CONSTRAINT invoices_pdf_file_id_fkey REFERENCES files (id),
    operation_id    uuid          NOT NULL,
    created_at      timestamptz   NOT NULL DEFAULT now(),
    updated_at      timestamptz   NOT NULL DEFAULT now(),
    CONSTRAINT invoices_series_seq_key UNIQUE (series_id, seq),
    CONSTRAINT invoices_original_check CHECK ((kind = 'credit_note') = (original_id IS NOT NULL)),
    CONSTRAINT invoices_amounts_check  CHECK (subtotal >= 0 AND discount >= 0 AND tax >= 0 AND total >= 0),
    CONSTRAINT invoices_total_check    CHECK (total = subtotal - discount + tax + rounding)
);

CREATE UNIQUE INDEX invoices_payment_id_key ON invoices (payment_id) WHERE kind = 'invoice';
CREATE INDEX invoices_payment_id_idx ON invoices (payment_id);
CREATE INDEX invoices_registration_id_idx ON invoices (registration_id);
CREATE INDEX invoices_student_id_idx ON invoices (student_id, id DESC);
CREATE INDEX invoices_original_id_idx ON invoices (original_id) WHERE original_id IS NOT NULL;
CREATE INDEX invoices_pdf_file_id_idx ON invoices (pdf_file_id) WHERE pdf_file_id IS NOT NULL;

-- After issue only the PDF's file may be set, and the status go from issued to credited.
CREATE FUNCTION refuse_invoice_change() RETURNS trigger
LANGUAGE plpgsql AS $$
DECLARE
    content invoices := NEW;
BEGIN
    content.pdf_file_id := OLD.pdf_file_id;
    content.status      := OLD.status;
    content.updated_at  := OLD.updated_at;

    IF content IS DISTINCT FROM OLD OR (OLD.status = 'credited' AND NEW.status <> 'credited') THEN
        RAISE EXCEPTION 'invoice % is issued: its content is immutable', OLD.number
        USING ERRCODE = 'restrict_violation',
              SCHEMA = TG_TABLE_SCHEMA,
              TABLE = TG_TABLE_NAME,
              CONSTRAINT = TG_NAME,
              HINT = 'Issue a credit note.';
    END IF;
    RETURN NEW;
END
$$;

CREATE TRIGGER invoices_immutable BEFORE UPDATE ON invoices
FOR EACH ROW EXECUTE FUNCTION refuse_invoice_change();
CREATE TRIGGER invoices_permanent BEFORE DELETE OR TRUNCATE ON invoices
FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();


CREATE TABLE invoice_lines (
    id          uuid          CONSTRAINT invoice_lines_pkey PRIMARY KEY,
    invoice_id  uuid          NOT NULL CONSTRAINT invoice_lines_invoice_id_fkey REFERENCES invoices (id),
    position    integer       NOT NULL CONSTRAINT invoice_lines_position_check CHECK (position > 0),
    description text          NOT NULL,
    quantity    numeric(14,2) NOT NULL DEFAULT 1 CONSTRAINT invoice_lines_quantity_check CHECK (quantity > 0),
    unit_price  numeric(14,2) NOT NULL,
    amount      numeric(14,2) NOT NULL,
    tax_rate    numeric(5,2)  NOT NULL CONSTRAINT invoice_lines_tax_rate_check CHECK (tax_rate BETWEEN 0 AND 100),
    tax         numeric(14,2) NOT NULL,
    created_at  timestamptz   NOT NULL DEFAULT now(),
    CONSTRAINT invoice_lines_invoice_position_key UNIQUE (invoice_id, position)
);

-- A line added later would change the content as well: lines come in the transaction that issues their invoice.
CREATE FUNCTION refuse_late_invoice_lines() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM added JOIN invoices ON invoices.id = added.invoice_id WHERE invoices.created_at <> now()) THEN
        RAISE EXCEPTION 'the invoice is issued: no line can be added'
        USING ERRCODE = 'restrict_violation',
              SCHEMA = TG_TABLE_SCHEMA,
              TABLE = TG_TABLE_NAME,
              CONSTRAINT = TG_NAME,
              HINT = 'Issue a credit note.';
    END IF;
    RETURN NULL;
END
$$;

CREATE TRIGGER invoice_lines_immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON invoice_lines
FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER invoice_lines_with_invoice AFTER INSERT ON invoice_lines REFERENCING NEW TABLE AS added
FOR EACH STATEMENT EXECUTE FUNCTION refuse_late_invoice_lines();
