-- The references of the hot path, checked once a statement instead of once a row. A foreign key runs a query of its own for
-- every row and locks the row that is referred to, which writes it: 28 of the 62 us that an invoice's insert took, all of it
-- to guard against deletes that no role may do. Here the statement's rows are checked together, in the transaction that
-- writes them, and what they refer to can neither go nor change its key. The checks also hold more than the keys did:
-- whose registration is paid for, and whose payment is invoiced. loadtest/README.md has the measurements.

-- What is referred to stays.
CREATE TRIGGER registrations_permanent
BEFORE DELETE OR TRUNCATE OR UPDATE OF id, student_id, batch_id ON student_registrations
FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER payments_permanent
BEFORE DELETE OR TRUNCATE OR UPDATE OF id, registration_id, student_id ON payments
FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER batches_permanent BEFORE DELETE OR TRUNCATE OR UPDATE OF id ON batches
FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER users_permanent BEFORE DELETE OR TRUNCATE OR UPDATE OF id ON users
FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER invoice_series_permanent BEFORE DELETE OR TRUNCATE OR UPDATE OF id ON invoice_series
FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- The error of a foreign key, if a row refers to nothing, or to what is not its own.
CREATE FUNCTION refuse_stray(table_schema text, table_name text, trigger_name text, stray uuid) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF stray IS NOT NULL THEN
        RAISE EXCEPTION 'row % of % refers to what does not exist, or belongs to somebody else', stray, table_name
        USING ERRCODE = 'foreign_key_violation', SCHEMA = table_schema, TABLE = table_name, CONSTRAINT = trigger_name;
    END IF;
END
$$;

-- Each row's reference is a subquery of its own, which is always answered by the index: a join might be planned on an empty
-- table and read all of a full one.
CREATE FUNCTION check_registrations_references() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp SET enable_seqscan = off AS $$
BEGIN
    PERFORM refuse_stray(TG_TABLE_SCHEMA, TG_TABLE_NAME, TG_NAME, (
    SELECT added.id
      FROM added
     WHERE (SELECT batches.id FROM batches WHERE batches.id = added.batch_id) IS NULL
        OR (SELECT users.id FROM users WHERE users.id = added.student_id) IS NULL
     LIMIT 1));
    RETURN NULL;
END
$$;

CREATE FUNCTION check_payments_references() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp SET enable_seqscan = off AS $$
BEGIN
    PERFORM refuse_stray(TG_TABLE_SCHEMA, TG_TABLE_NAME, TG_NAME, (
    SELECT added.id
      FROM added
     WHERE (SELECT r.student_id FROM student_registrations AS r WHERE r.id = added.registration_id)
           IS DISTINCT FROM added.student_id
     LIMIT 1));
    RETURN NULL;
END
$$;

CREATE FUNCTION check_enrollments_references() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp SET enable_seqscan = off AS $$
BEGIN
    PERFORM refuse_stray(TG_TABLE_SCHEMA, TG_TABLE_NAME, TG_NAME, (
    SELECT added.id
      FROM added
     WHERE CASE WHEN added.registration_id IS NULL
                THEN (SELECT batches.id FROM batches WHERE batches.id = added.batch_id) IS NULL
                  OR (SELECT users.id FROM users WHERE users.id = added.student_id) IS NULL
                ELSE (SELECT (r.student_id, r.batch_id) FROM student_registrations AS r WHERE r.id = added.registration_id)
                     IS DISTINCT FROM (added.student_id, added.batch_id)
           END
     LIMIT 1));
    RETURN NULL;
END
$$;

CREATE FUNCTION check_invoices_references() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp SET enable_seqscan = off AS $$
BEGIN
    PERFORM refuse_stray(TG_TABLE_SCHEMA, TG_TABLE_NAME, TG_NAME, (
    SELECT added.id
      FROM added
     WHERE (SELECT (p.registration_id, p.student_id) FROM payments AS p WHERE p.id = added.payment_id)
           IS DISTINCT FROM (added.registration_id, added.student_id)
        OR (SELECT s.id FROM invoice_series AS s WHERE s.id = added.series_id) IS NULL
     LIMIT 1));
    RETURN NULL;
END
$$;

CREATE TRIGGER registrations_references AFTER INSERT ON student_registrations REFERENCING NEW TABLE AS added
FOR EACH STATEMENT EXECUTE FUNCTION check_registrations_references();
CREATE TRIGGER payments_references AFTER INSERT ON payments REFERENCING NEW TABLE AS added
FOR EACH STATEMENT EXECUTE FUNCTION check_payments_references();
CREATE TRIGGER enrollments_references AFTER INSERT ON enrollments REFERENCING NEW TABLE AS added
FOR EACH STATEMENT EXECUTE FUNCTION check_enrollments_references();
-- Who enrolls again takes over the old row for the new registration.
CREATE TRIGGER enrollments_new_references AFTER UPDATE ON enrollments REFERENCING NEW TABLE AS added
FOR EACH STATEMENT EXECUTE FUNCTION check_enrollments_references();
-- An issued invoice changes in none of these columns: 0012.
CREATE TRIGGER invoices_references AFTER INSERT ON invoices REFERENCING NEW TABLE AS added
FOR EACH STATEMENT EXECUTE FUNCTION check_invoices_references();

-- As in 0012, and a line without an invoice is as wrong as one that comes late.
CREATE OR REPLACE FUNCTION refuse_late_invoice_lines() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp SET enable_seqscan = off AS $$
BEGIN
    IF EXISTS (SELECT
                 FROM added
                WHERE (SELECT i.created_at FROM invoices AS i WHERE i.id = added.invoice_id) IS DISTINCT FROM now()) THEN
        RAISE EXCEPTION 'no line can be added but with its invoice'
        USING ERRCODE = 'restrict_violation',
              SCHEMA = TG_TABLE_SCHEMA,
              TABLE = TG_TABLE_NAME,
              CONSTRAINT = TG_NAME,
              HINT = 'An invoice that is issued is corrected by a credit note.';
    END IF;
    RETURN NULL;
END
$$;

ALTER TABLE student_registrations DROP CONSTRAINT registrations_batch_id_fkey;
ALTER TABLE payments DROP CONSTRAINT payments_registration_id_fkey;
ALTER TABLE enrollments
    DROP CONSTRAINT enrollments_batch_id_fkey,
    DROP CONSTRAINT enrollments_registration_id_fkey;
ALTER TABLE invoices
    DROP CONSTRAINT invoices_series_id_fkey,
    DROP CONSTRAINT invoices_payment_id_fkey,
    DROP CONSTRAINT invoices_registration_id_fkey;
ALTER TABLE invoice_lines DROP CONSTRAINT invoice_lines_invoice_id_fkey;
