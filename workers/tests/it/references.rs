//! What refers to what: a row that refers to nothing, or to somebody else's, is not written, and what is referred to stays.

use sqlx::PgPool;
use testkit::Sandbox;
use workers::invoicing::IssueInvoiceHandler;

use crate::{
    invoicing::{approved, issue},
    registrations::settle,
    support::{count, settings},
};

/// `foreign_key_violation`.
const NO_SUCH_ROW: &str = "23503";
/// `restrict_violation`.
const MUST_STAY: &str = "23001";

async fn refused(db: &PgPool, statement: &'static str) -> (String, String) {
    let error = sqlx::query(statement).execute(db).await.expect_err(statement);
    let error = error.as_database_error().unwrap_or_else(|| panic!("{statement}: {error}"));
    let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
    (text(error.code().as_deref()), text(error.constraint()))
}

#[tokio::test]
async fn a_row_refers_to_what_is_its_own() {
    let sandbox = Sandbox::new("references").await;
    let payments = approved(&sandbox, 2).await;
    let invoices: Vec<_> = payments.iter().map(|payment_id| issue(*payment_id)).collect();
    settle(&sandbox.db, &IssueInvoiceHandler::new(&settings(&sandbox).institute), &invoices).await;
    assert_eq!(
        count(&sandbox, "SELECT count(*) FROM invoices JOIN invoice_lines ON invoice_id = invoices.id").await,
        2
    );
    assert_eq!(count(&sandbox, "SELECT count(*) FROM enrollments").await, 2);

    let registration = "registrations_references";
    let payment = "payments_references";
    let enrollment = "enrollments_references";
    let invoice = "invoices_references";
    for (statement, trigger) in [
        (
            "INSERT INTO student_registrations (id, student_id, batch_id, status, fee, tax_rate, tax, amount_due, currency,
                                                operation_id)
             SELECT gen_random_uuid(), student_id, gen_random_uuid(), 'cancelled', fee, tax_rate, tax, amount_due,
                    currency, operation_id
               FROM student_registrations",
            registration,
        ),
        (
            "INSERT INTO student_registrations (id, student_id, batch_id, status, fee, tax_rate, tax, amount_due, currency,
                                                operation_id)
             SELECT gen_random_uuid(), gen_random_uuid(), batch_id, 'cancelled', fee, tax_rate, tax, amount_due,
                    currency, operation_id
               FROM student_registrations",
            registration,
        ),
        // The first row of the statement is right.
        (
            "INSERT INTO payments
             SELECT (jsonb_populate_record(p, jsonb_build_object(
                        'id', gen_random_uuid(), 'status', 'cancelled',
                        'registration_id', CASE WHEN n = 1 THEN p.registration_id ELSE gen_random_uuid() END))).*
               FROM payments AS p, generate_series(1, 2) AS n",
            payment,
        ),
        (
            "INSERT INTO payments
             SELECT (jsonb_populate_record(p, jsonb_build_object(
                        'id', gen_random_uuid(), 'status', 'cancelled', 'student_id', another.student_id))).*
               FROM payments AS p JOIN payments AS another ON another.student_id <> p.student_id",
            payment,
        ),
        (
            "INSERT INTO enrollments
             SELECT (jsonb_populate_record(e, jsonb_build_object(
                        'id', gen_random_uuid(), 'batch_id', gen_random_uuid(), 'registration_id', gen_random_uuid()))).*
               FROM enrollments AS e",
            enrollment,
        ),
        (
            "INSERT INTO enrollments
             SELECT (jsonb_populate_record(e, jsonb_build_object(
                        'id', gen_random_uuid(), 'batch_id', gen_random_uuid()))).*
               FROM enrollments AS e
              LIMIT 1
             ON CONFLICT (registration_id) DO UPDATE SET batch_id = EXCLUDED.batch_id",
            "enrollments_new_references",
        ),
        ("UPDATE enrollments SET student_id = gen_random_uuid()", "enrollments_new_references"),
        (
            "INSERT INTO enrollments
             SELECT (jsonb_populate_record(e, jsonb_build_object(
                        'id', gen_random_uuid(), 'student_id', gen_random_uuid(), 'registration_id', null))).*
               FROM enrollments AS e",
            enrollment,
        ),
        (
            "INSERT INTO invoices
             SELECT (jsonb_populate_record(i, jsonb_build_object(
                        'id', gen_random_uuid(), 'number', 'X', 'seq', 1000000, 'payment_id', gen_random_uuid()))).*
               FROM invoices AS i
              LIMIT 1",
            invoice,
        ),
        (
            "INSERT INTO invoices
             SELECT (jsonb_populate_record(i, jsonb_build_object(
                        'id', gen_random_uuid(), 'number', 'X', 'seq', 1000000, 'kind', 'credit_note', 'original_id', i.id,
                        'student_id', another.student_id))).*
               FROM invoices AS i JOIN invoices AS another ON another.student_id <> i.student_id
              LIMIT 1",
            invoice,
        ),
        (
            "INSERT INTO invoices
             SELECT (jsonb_populate_record(i, jsonb_build_object(
                        'id', gen_random_uuid(), 'number', 'X', 'kind', 'credit_note', 'original_id', i.id,
                        'series_id', gen_random_uuid()))).*
               FROM invoices AS i
              LIMIT 1",
            invoice,
        ),
    ] {
        assert_eq!(refused(&sandbox.db, statement).await, (NO_SUCH_ROW.into(), trigger.into()), "{statement}");
    }

    let token = "INSERT INTO user_tokens (id, user_id, purpose, registration_id, expires_at)
         SELECT gen_random_uuid(), student_id, 'magic_link', id, now() FROM student_registrations";
    sqlx::query(token).execute(&sandbox.db).await.expect("a link for one's own registration");
    let mail =
        "INSERT INTO email_logs (id, user_id, to_email, template, locale, subject, dedupe_key, message_id, status)
         SELECT gen_random_uuid(), u.id, 'a@example.org', 'magic_link', 'en', 'A mail', u.n::text, u.n::text, 'queued'
           FROM (SELECT id, row_number() OVER () AS n FROM users UNION ALL SELECT null, 0) AS u";
    sqlx::query(mail).execute(&sandbox.db).await.expect("mails to users, and to nobody that is known");
    for (statement, trigger) in [
        (
            "INSERT INTO user_profiles (id, user_id, full_name) VALUES (gen_random_uuid(), gen_random_uuid(), 'Nobody')",
            "user_profiles_references",
        ),
        (
            "INSERT INTO user_tokens (id, user_id, purpose, expires_at)
             VALUES (gen_random_uuid(), gen_random_uuid(), 'reset', now())",
            "user_tokens_references",
        ),
        (
            "INSERT INTO user_tokens (id, user_id, purpose, registration_id, expires_at)
             SELECT gen_random_uuid(), student_id, 'magic_link', gen_random_uuid(), now() FROM student_registrations",
            "user_tokens_references",
        ),
        // A link to somebody else's registration would let a stranger in.
        (
            "INSERT INTO user_tokens (id, user_id, purpose, registration_id, expires_at)
             SELECT gen_random_uuid(), another.student_id, 'magic_link', r.id, now()
               FROM student_registrations AS r
               JOIN student_registrations AS another ON another.student_id <> r.student_id",
            "user_tokens_references",
        ),
        (
            "INSERT INTO email_logs (id, user_id, to_email, template, locale, subject, dedupe_key, message_id, status)
             VALUES (gen_random_uuid(), gen_random_uuid(), 'a@example.org', 'magic_link', 'en', 'A mail', 'x', 'x', 'queued')",
            "email_logs_references",
        ),
    ] {
        assert_eq!(refused(&sandbox.db, statement).await, (NO_SUCH_ROW.into(), trigger.into()), "{statement}");
    }

    let without_registration = "INSERT INTO enrollments
         SELECT (jsonb_populate_record(e, jsonb_build_object(
                    'id', gen_random_uuid(), 'student_id', u.id, 'registration_id', null))).*
           FROM enrollments AS e, users AS u
          WHERE u.role = 'accountant'
          LIMIT 1";
    sqlx::query(without_registration).execute(&sandbox.db).await.expect("somebody may be enrolled without registering");

    for (statement, trigger) in [
        ("DELETE FROM users", "users_permanent"),
        ("UPDATE users SET id = gen_random_uuid()", "users_permanent"),
        ("DELETE FROM batches", "batches_permanent"),
        ("UPDATE batches SET id = gen_random_uuid()", "batches_permanent"),
        ("DELETE FROM student_registrations", "registrations_permanent"),
        ("UPDATE student_registrations SET student_id = gen_random_uuid()", "registrations_permanent"),
        ("TRUNCATE payments CASCADE", "payments_permanent"),
        ("UPDATE payments SET registration_id = gen_random_uuid()", "payments_permanent"),
        ("DELETE FROM invoice_series", "invoice_series_permanent"),
        ("UPDATE user_profiles SET user_id = gen_random_uuid()", "user_profiles_permanent"),
        ("UPDATE user_tokens SET registration_id = null", "user_tokens_permanent"),
        ("UPDATE email_logs SET user_id = null", "email_logs_permanent"),
        (
            "INSERT INTO invoice_lines
             SELECT (jsonb_populate_record(l, jsonb_build_object('id', gen_random_uuid(), 'position', 2))).*
               FROM invoice_lines AS l",
            "invoice_lines_with_invoice",
        ),
        (
            "INSERT INTO invoice_lines
             SELECT (jsonb_populate_record(l, jsonb_build_object(
                        'id', gen_random_uuid(), 'invoice_id', gen_random_uuid()))).*
               FROM invoice_lines AS l",
            "invoice_lines_with_invoice",
        ),
    ] {
        assert_eq!(refused(&sandbox.db, statement).await, (MUST_STAY.into(), trigger.into()), "{statement}");
    }
    sandbox.close().await;
}
